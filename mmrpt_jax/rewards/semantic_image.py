"""Does the image mean what the prompt says? The policy's own judgement, from log-probabilities, or an encoder's.

The arrays come from the caller: what the policy, or a frozen copy of it, says with the generated image in view.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from mmrpt_jax.rewards.kinds import TaggedReward


def prompt_likelihood(logprobs: Float[Array, "*E P"], mask: Bool[Array, "*E P"]) -> Float[Array, "*E"]:
    """How likely the image makes its prompt, per token: the geometric mean of the tokens' probabilities, in [0, 1].

        r = exp( (1/|p|) Σ_{k∈p} log p(p_k | image, p_<k) )

    Without the mean, long prompts would earn nothing. It is high, too, for a prompt that is likely anyway, so compare
    images of one prompt, never prompts. Our stand-in for an external encoder's similarity.

    Args:
        logprobs: log-probabilities of the prompt's tokens, nats, ≤ 0.
        mask: which positions are the prompt's; values elsewhere are ignored.

    Returns:
        0 for an empty prompt.
    """
    count = mask.sum(axis=-1)
    mean = jnp.where(mask, logprobs, 0.0).sum(axis=-1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, jnp.exp(mean), 0.0)


def yes_probability(logprob_yes: Float[Array, "*E"], logprob_no: Float[Array, "*E"]) -> Float[Array, "*E"]:
    """How sure the model is that the image shows the prompt, asked with yes or no: in [0, 1].

        r = p(yes) / (p(yes) + p(no)) = σ( log p(yes) − log p(no) )

    VQAScore (arXiv 2404.01291), asked of the policy itself. What else it might have answered does not count.
    """
    return jax.nn.sigmoid(logprob_yes - logprob_no)


class ImageTextEncoder(Protocol):
    """Two towers whose embeddings can be compared, such as SigLIP's; rows need not be of length 1."""

    def encode_images(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[np.ndarray, "N D"]:
        """Embeds N images."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Embeds N texts."""
        ...


def image_text_cosine(
    encoder: ImageTextEncoder | None, images: Sequence[UInt8[np.ndarray, "h w 3"]], texts: Sequence[str]
) -> Float[np.ndarray, " N"]:
    """Cosine of each image's embedding with its text's, in [−1, 1].

    Raises:
        ValueError: there is no encoder, or an embedding has the wrong shape or no length.
    """
    encoder = _required(encoder)
    sides = {"image": encoder.encode_images(images), "text": encoder.encode_texts(texts)}
    units = []
    for name, embedding in sides.items():
        rows = np.asarray(embedding, np.float32)
        lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
        if rows.ndim != 2 or len(rows) != len(images) or not np.all(lengths > 0.0):
            raise ValueError(
                f"the encoder returned {name} embeddings of shape {rows.shape} for {len(images)} images, expected "
                "one row with a direction for each"
            )
        units.append(rows / lengths)
    return (units[0] * units[1]).sum(axis=-1)


def make_image_text_cosine(encoder: ImageTextEncoder | None) -> TaggedReward:
    """The reward `image_text_cosine` of the columns `images` and `prompts`: external, for generation.

    Raises:
        ValueError: there is no encoder.
    """
    given = _required(encoder)

    def cosine(images: Sequence[np.ndarray], prompts: Sequence[str], **columns: Any) -> np.ndarray:
        del columns
        return image_text_cosine(given, images, prompts)

    return TaggedReward("image_text_cosine", "external", ("generation",), cosine)


def _required(encoder: ImageTextEncoder | None) -> ImageTextEncoder:
    if encoder is None:
        raise ValueError(
            "image_text_cosine needs an image-text encoder and got none: pass one, or use the rewards of the policy "
            "itself, prompt_likelihood or yes_probability."
        )
    return encoder


def _from_column(name: str) -> TaggedReward:
    """A reward read from the column of its name, numbers in [0, 1] or None; anything else is refused."""

    def read(**columns: Any) -> list[float | None]:
        for index, value in enumerate(columns[name]):
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}[{index}] is {value}, outside [0, 1]: fill the column with {name}()")
        return list(columns[name])

    return TaggedReward(name, "self", ("generation",), read)


SELF_REWARDS = (_from_column("prompt_likelihood"), _from_column("yes_probability"))
"""Rewards read from the columns of these names, which the functions of these names fill."""
