"""Where the tokens of a pass stand: alone, behind keys that were computed before, or as a prompt with its group."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Tokens(NamedTuple):
    """Where tokens stand.

    Attributes:
        positions: [B G T] rotary positions, or [B G T A] where axes differ.
        order: [B G T] for the visibility rule of `attend`.
        valid: [B G T], False for padding.
        places: [B G T], likewise; needed by local layers, and where rows hold several images.
    """

    positions: Int[Array, "B G T *A"]
    order: Int[Array, "B G T"]
    valid: Bool[Array, "B G T"]
    places: Int[Array, "B G T"] | None = None


class Context(NamedTuple):
    """Where keys stand that come before the tokens; the same for all layers.

    A prompt's keys are shared by the group and have no G axis; a branch's earlier tokens are its own and have one.

    Attributes:
        order: [B S] or [B G S].
        valid: [B S] or [B G S].
        regions: [B S M] indicator columns whose attention mass is wanted, or None; one shared context at most.
        query_weights: [B G T] weights of the branch queries in the mass that each key receives; needed with
            regions.
        places: [B S] or [B G S]; None: near to all.
    """

    order: Int[Array, "B *G S"]
    valid: Bool[Array, "B *G S"]
    regions: Float[Array, "B S M"] | None = None
    query_weights: Float[Array, "B G T"] | None = None
    places: Int[Array, "B *G S"] | None = None


class RowShape(NamedTuple):
    """Sizes of a row of `GroupTokens`.

    Attributes:
        prompt: P, tokens of the prompt.
        group: G branches.
        length: R, tokens of a branch.
    """

    prompt: int
    group: int
    length: int


class GroupTokens(NamedTuple):
    """A prompt and its branches as one row of P + G·R tokens: the prompt, and one branch behind the other.

    Whatever a layer does to single tokens it does to the row, with one product for each of its weights: those are read,
    and fetched from other devices, once. Only attention tells prompt and branches apart.

    Attributes:
        prompt: [B 1 P].
        branches: [B G R].
        context: the prompt, as its branches see it.
    """

    prompt: Tokens
    branches: Tokens
    context: Context

    @property
    def positions(self) -> Int[Array, "B 1 S *A"]:
        """Rotary positions of the row."""
        prompt, branches = self.prompt.positions, self.branches.positions
        if prompt.ndim > branches.ndim:
            branches = jnp.broadcast_to(branches[..., None], (*branches.shape, prompt.shape[-1]))
        return join_row(prompt, branches)

    @property
    def valid(self) -> Bool[Array, "B 1 S"]:
        """False for the padding of the prompt and of its branches."""
        return join_row(self.prompt.valid, self.branches.valid)

    @property
    def shape(self) -> RowShape:
        """What the row consists of."""
        return RowShape(self.prompt.order.shape[2], *self.branches.order.shape[1:])

    def split(
        self, row: Float[Array, "B 1 S *E"]
    ) -> tuple[Float[Array, "B 1 P *E"], Float[Array, "B G R *E"]]:
        """What belongs to the prompt, and what to its branches."""
        prompt, group, length = self.shape
        branches = row[:, 0, prompt:].reshape(len(row), group, length, *row.shape[3:])
        return row[:, :, :prompt], branches


def join_row(
    prompt: Float[Array, "B 1 P *E"], branches: Float[Array, "B G R *E"]
) -> Float[Array, "B 1 S *E"]:
    """A prompt and its branches as the row of `GroupTokens`."""
    flat = branches.reshape(len(branches), 1, -1, *branches.shape[3:])
    return jnp.concatenate([prompt, flat], axis=2)
