"""Dense grounding: does every word of the prompt find its place in the image? Cosines of token and patch features.

The features come from an encoder of the caller's choice. Pooling by `max` is the usual form, and easily pleased:
one patch may serve all tokens, and a collage of tiles, one for each token, serves them perfectly. `one_to_one`
takes the first way out, the global term the second; together they are meant to be used.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8

from mmrpt_jax.rewards.kinds import TaggedReward

POOLINGS = ("max", "top_k", "mean", "softmax", "one_to_one")


def grounding(
    tokens: Float[np.ndarray, "K D"],
    patches: Float[np.ndarray, "I D"],
    *,
    pooling: str = "max",
    top_k: int = 3,
    temperature: float = 0.1,
    global_weight: float = 0.0,
) -> float:
    """How well patches answer tokens, in [−1, 1].

        c_kp   = cos(t_k, v_p)
        dense  = (1/K) Σ_k pool_p c_kp
        global = cos(Σ_k t_k, Σ_p v_p), of features scaled to length 1
        result = (1 − w) · dense + w · global

    | pooling      | pool_p c_kp                                                               |
    |--------------|---------------------------------------------------------------------------|
    | `max`        | the best patch                                                            |
    | `top_k`      | mean of the `top_k` best (of all, if there are fewer)                     |
    | `mean`       | mean of all                                                               |
    | `softmax`    | Σ_p softmax(c_k / temperature)_p c_kp                                     |
    | `one_to_one` | the patch that an assignment of greatest sum gives the token and no other; |
    |              | 0 for tokens that get none, there being fewer patches                     |

    `max` is the late interaction of FILIP (arXiv 2111.07783) and the dense reward of LVRPO (arXiv 2603.27693). The
    others, and the global term, are ours, against its weakness.

    Args:
        tokens: features of the prompt's K tokens or keywords, none without a direction.
        patches: features of the image's I patches.
        pooling: one of `POOLINGS`.
        top_k: ≥ 1.
        temperature: positive.
        global_weight: w in [0, 1].

    Raises:
        ValueError: an argument is out of its range, or a feature has no direction.
    """
    if pooling not in POOLINGS or top_k < 1 or temperature <= 0.0 or not 0.0 <= global_weight <= 1.0:
        raise ValueError(
            f"need pooling of {POOLINGS}, top_k ≥ 1, temperature > 0 and 0 ≤ global_weight ≤ 1, "
            f"got {pooling!r}, {top_k}, {temperature} and {global_weight}"
        )
    words, places = _unit_rows(tokens, "token"), _unit_rows(patches, "patch")
    cosines = words @ places.T
    match pooling:
        case "max":
            pooled = cosines.max(axis=1)
        case "top_k":
            pooled = np.sort(cosines, axis=1)[:, -top_k:].mean(axis=1)
        case "mean":
            pooled = cosines.mean(axis=1)
        case "softmax":
            weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)
            pooled = (weights * cosines).sum(axis=1) / weights.sum(axis=1)
        case _:
            partner = assign(cosines)
            pooled = np.where(partner >= 0, np.take_along_axis(cosines, partner[:, None], axis=1)[:, 0], 0.0)
    sums = words.sum(axis=0), places.sum(axis=0)
    lengths = np.linalg.norm(sums[0]) * np.linalg.norm(sums[1])
    whole = float(sums[0] @ sums[1] / lengths) if lengths > 0.0 else 0.0
    return (1.0 - global_weight) * float(pooled.mean()) + global_weight * whole


def assign(scores: Float[np.ndarray, "K I"]) -> Int[np.ndarray, " K"]:
    """The one-to-one assignment of rows to columns with the greatest sum of scores, exactly.

    Shortest augmenting paths with potentials (the Hungarian algorithm in Jonker and Volgenant's form, O(K² I)).

    Args:
        scores: any finite numbers.

    Returns:
        The column of every row, each used at most once; −1 for the rows left over where K > I.
    """
    if len(scores) > scores.shape[1]:
        rows = assign(scores.T)
        partner = np.full(len(scores), -1)
        partner[rows] = np.arange(len(rows))
        return partner
    height, width = scores.shape
    # Row and column 0 are virtual: rows start out at column 0, and `owner` 0 means that a column is free.
    row_potential, column_potential = np.zeros(height + 1), np.zeros(width + 1)
    owner = np.zeros(width + 1, int)
    for start in range(1, height + 1):
        owner[0], column = start, 0
        reach, came_from = np.full(width + 1, np.inf), np.zeros(width + 1, int)
        done = np.zeros(width + 1, bool)
        while True:
            done[column] = True
            row = owner[column]
            slack = np.append(np.inf, -scores[row - 1]) - row_potential[row] - column_potential
            nearer = ~done & (slack < reach)
            reach[nearer], came_from[nearer] = slack[nearer], column
            column = int(np.argmin(np.where(done, np.inf, reach)))
            step = reach[column]
            row_potential[owner[done]] += step
            column_potential[done] -= step
            reach[~done] -= step
            if owner[column] == 0:
                break
        while column:
            owner[column], column = owner[came_from[column]], came_from[column]
    partner = np.full(height + 1, -1)
    partner[owner[1:]] = np.arange(width)
    return partner[1:]


class DenseEncoder(Protocol):
    """Features of the parts of images and of texts, in one space."""

    def encode_patches(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> Sequence[Float[np.ndarray, "I D"]]:
        """The features of each image's patches."""
        ...

    def encode_tokens(self, texts: Sequence[str]) -> Sequence[Float[np.ndarray, "K D"]]:
        """The features of each text's tokens, without padding."""
        ...


def make_dense_grounding(encoder: DenseEncoder, **options: Any) -> TaggedReward:
    """The reward `dense_grounding` of the columns `images` and `prompts`: external, for generation.

    Args:
        encoder: gives the features.
        **options: of `grounding`.
    """

    def dense(images: Sequence[np.ndarray], prompts: Sequence[str], **columns: Any) -> list[float]:
        del columns
        sides = encoder.encode_tokens(prompts), encoder.encode_patches(images)
        return [grounding(tokens, patches, **options) for tokens, patches in zip(*sides, strict=True)]

    return TaggedReward("dense_grounding", "external", ("generation",), dense)


def _unit_rows(features: Float[np.ndarray, "N D"], name: str) -> Float[np.ndarray, "N D"]:
    rows = np.asarray(features, np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if rows.ndim != 2 or not rows.size or not np.all(lengths > 0.0):
        raise ValueError(f"{name} features must be rows [N, D] with a direction each, got shape {rows.shape}")
    return rows / lengths
