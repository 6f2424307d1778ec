"""Where the tokens of prompts and branches stand: rotary positions, order of visibility, place in the sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.attention import FAR
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.patches import image_sizes
from mmrpt_jax.models.tokens import Tokens
from mmrpt_jax.models.vision import VisualTokens

# Of a token of a packed row that holds none.
EMPTY = -1


class PromptTokens(NamedTuple):
    """Prompts, padded on the right.

    Attributes:
        ids: [B P] token ids; an image takes as many consecutive placeholder tokens as it has visual tokens.
        valid: [B P], False for padding.
        image_slots: [B P], True where a visual token stands.
    """

    ids: Int[Array, "B P"]
    valid: Bool[Array, "B P"]
    image_slots: Bool[Array, "B P"]


class Packing(NamedTuple):
    """What stands in rows that the branches of a group share; see `packing.pack_lengths`.

    Attributes:
        branch: [B S] the number of a token's branch, or `EMPTY`.
        step: [B S] the number of the token in it, or `EMPTY`.
    """

    branch: Int[Array, "B S"]
    step: Int[Array, "B S"]


class BranchTokens(NamedTuple):
    """The G continuations of each prompt, padded on the right.

    Attributes:
        ids: [B G R].
        valid: [B G R], True up to and including the end token.
    """

    ids: Int[Array, "B G R"]
    valid: Bool[Array, "B G R"]


class PackedBranches(NamedTuple):
    """The continuations of each prompt in one row.

    Attributes:
        ids: [B 1 S].
        packing: what they are.
    """

    ids: Int[Array, "B 1 S"]
    packing: Packing


def prompt_places(config: VLMConfig, prompt: PromptTokens, images: VisualTokens | None) -> Tokens:
    """Where prompt tokens stand, as `image_positions`, `image_attention` and `image_marks` have it: [B 1 P].

    Args:
        config: the model.
        prompt: the tokens.
        images: what stands in the image slots, the i-th visual token in the i-th slot; None for text only.
    """
    slots = prompt.image_slots
    index = jnp.broadcast_to(jnp.arange(slots.shape[1], dtype=jnp.int32), slots.shape)
    positions = order = index
    if images is not None:
        here = jnp.where(slots, at_slots(slots, images.image), -1)
        # Images may follow each other without a word between.
        opens = slots & (here != _shift(here, 1, fill=-1))
        inside = slots
        if config.image_marks:
            closes = slots & (here != _shift(here, -1, fill=-1))
            opens, inside = _shift(opens, -1), slots | _shift(opens, -1) | _shift(closes, 1)
        if config.image_positions == "shared":
            positions = jnp.cumsum(~inside | opens, axis=1, dtype=jnp.int32) - 1
        if config.image_positions == "grid":
            positions = _grid_positions(slots, opens, images)
        if config.image_attention == "bidirectional":
            order = jnp.where(inside, jax.lax.cummax(jnp.where(opens, index, 0), axis=1), index)
    places = index if any(config.decoder.local_layers) else None
    return jax.tree.map(lambda x: x[:, None], Tokens(positions, order, prompt.valid, places))


def _grid_positions(slots, opens, images: VisualTokens) -> Int[Array, "B P 3"]:
    """Where the image begins, and from there its row and its column; text behind goes on after the longer side."""
    longer = at_slots(slots, jnp.maximum(*image_sizes(images.rows, images.columns, images.image)))
    advance = jnp.where(slots, jnp.where(opens, longer, 0), 1)
    start = jnp.cumsum(advance, axis=1, dtype=jnp.int32) - jnp.where(slots, longer, 1)
    row, column = (jnp.where(slots, at_slots(slots, x), 0) for x in (images.rows, images.columns))
    return jnp.stack([start, start + row, start + column], axis=-1)


def branch_places(
    config: VLMConfig, length: Int[Array, " B"], prompt_valid: Bool[Array, "B P"], valid: Bool[Array, "B G R"]
) -> Tokens:
    """Branch tokens go on where the prompt ends: [B G R].

    Args:
        config: the model.
        length: rotary positions that the prompt takes.
        prompt_valid: False for the prompt's padding.
        valid: False for the branches'.
    """
    steps = jnp.arange(valid.shape[2], dtype=jnp.int32)
    behind = lambda start: jnp.broadcast_to(start[:, None, None] + steps, valid.shape)  # noqa: E731
    positions = behind(length)
    places = behind(prompt_end(prompt_valid)) if any(config.decoder.local_layers) else None
    return Tokens(positions, positions, valid, places)


def packed_places(config: VLMConfig, length: Int[Array, " B"], packing: Packing) -> Tokens:
    """Likewise where branches share a row, in places too far apart to be seen from one another: [B 1 S].

    Raises:
        ValueError: layers see only what is near, which is what places tell them.
    """
    if any(config.decoder.local_layers):
        raise ValueError("layers that see only what is near cannot tell packed branches apart: do not pack")
    positions = length[:, None] + packing.step
    places = packing.branch * (2 * FAR) + packing.step
    tokens = Tokens(positions, positions, packing.branch != EMPTY, places)
    return jax.tree.map(lambda x: x[:, None], tokens)


def prompt_end(valid: Bool[Array, "B P"]) -> Int[Array, " B"]:
    """Tokens up to the last valid one: padding is on the right, but image slots may be hidden."""
    return jnp.max(jnp.where(valid, jnp.arange(1, valid.shape[1] + 1), 0), axis=1)


def at_slots(slots: Bool[Array, "B P"], values: Array) -> Array:
    """[B P ...]: in the i-th image slot the i-th of values [B I ...]; in front of it, in text, anything."""
    index = jnp.clip(jnp.cumsum(slots, axis=1) - 1, 0, values.shape[1] - 1)
    return jnp.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - 2)), axis=1)


def place_images(
    x: Float[Array, "B P D"], features: Float[Array, "B I D"], slots: Bool[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Puts the i-th visual token of a prompt into its i-th image slot."""
    return jnp.where(slots[..., None], at_slots(slots, features).astype(x.dtype), x)


def _shift(x: Array, by: int, fill: int = 0) -> Array:
    """[B P] moved one place to the right (1) or to the left (-1)."""
    moved = jnp.pad(x, ((0, 0), (1, 1)), constant_values=fill)
    return moved[:, :-2] if by == 1 else moved[:, 2:]
