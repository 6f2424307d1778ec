"""Does the answer mean the same as the masked span? Cosine of sentence embeddings."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmrpt_jax.rewards.base import RewardFn
from mmrpt_jax.rewards.parse import parse_completion, score_answers

Encoder = Callable[[Sequence[str]], Float[np.ndarray, "N D"]]


def make_semantic_reward(encode: Encoder, *, floor: float = 0.4) -> RewardFn:
    """Returns a reward for answers whose embedding is close to the truth's.

        score = max(0, (cos(e(answer), e(truth)) − floor) / (1 − floor)),  in [0, 1]

    Unrelated short phrases still have cosines of up to about 0.4 under common sentence encoders; without a
    floor that is income for any answer at all, and noise where a group should be all zeros. What no floor
    repairs: embeddings measure topic more than truth. To all-MiniLM-L6-v2 `red circle` is closer to `blue
    circle` than to `crimson circle`. Use this beside exact match and visual gain, never alone.

    Malformed completions get 0; None where the truth holds no word.

    Args:
        encode: texts to embeddings, one row each, of any length but zero;
            `models.sentence_encoder.load_sentence_encoder(directory).encode` is one.
        floor: the cosine that earns nothing, in [0, 1).

    Raises:
        ValueError: `floor` is outside [0, 1), or, when the reward runs, an embedding has the wrong shape or
            no length.
    """
    if not 0.0 <= floor < 1.0:
        raise ValueError(f"floor must be in [0, 1), got {floor}")

    def semantic(
        prompts: list[str], completions: list[str], *, answer: list[str | None], **columns: Any
    ) -> list[float | None]:
        del prompts, columns
        answers = [parse_completion(completion).answer for completion in completions]
        texts = sorted({text for text in (*answers, *answer) if text})
        embedding = dict(zip(texts, _unit_rows(encode, texts), strict=True))

        def closeness(given: str, truth: str) -> float:
            cosine = float(embedding[given] @ embedding[truth])
            return min(max((cosine - floor) / (1.0 - floor), 0.0), 1.0)

        return score_answers(completions, answer, closeness)

    return semantic


def _unit_rows(encode: Encoder, texts: list[str]) -> Float[np.ndarray, "N D"]:
    """Embeds the texts and scales every row to length 1."""
    if not texts:
        return np.zeros((0, 1), np.float32)
    rows = np.asarray(encode(texts), np.float32)
    if rows.ndim != 2 or len(rows) != len(texts):
        raise ValueError(
            f"the encoder returned shape {rows.shape} for {len(texts)} texts, expected one row per text"
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(lengths > 0.0):
        raise ValueError(f"the embedding of {texts[int(np.argmin(lengths > 0.0))]!r} has no direction")
    return rows / lengths
