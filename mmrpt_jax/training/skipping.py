"""Too many updates in a row were skipped: which steps, and which examples they learned from."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

# Of the ids in a message.
_SHOWN = 64


class NonFiniteError(RuntimeError):
    """The loss or the gradient was NaN or infinite in too many updates, one after the other."""


def too_many_skipped(
    stage: str,
    step: int,
    in_a_row: int,
    open_batches: Callable[[int], Iterator[Any]],
    *,
    updates_per_step: int = 1,
) -> NonFiniteError:
    """The error that ends a training.

    Args:
        stage: its name.
        step: the last step, counted from 1.
        in_a_row: updates that were skipped until then.
        open_batches: as `loop.train` takes it: batches are a function of the step, so they are read once more.
        updates_per_step: of one batch.
    """
    first = max(step - -(-in_a_row // updates_per_step) + 1, 1)
    ids = [name for batch in islice(open_batches(first - 1), step - first + 1) for name in example_ids(batch)]
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    examples = (
        f"their examples are {shown}"
        if ids
        else f"their examples carry no ids: the batches are those that open_batches({first - 1}) begins with"
    )
    return NonFiniteError(
        f"{stage}: the loss or its gradient was not finite in {in_a_row} updates in a row, up to step {step}; look at "
        f"steps {first} to {step}, or lower the learning rate of a new run; {examples}"
    )


def example_ids(batch: Any) -> list[str]:
    """Ids of a batch's examples, or of those of several tasks, where it knows them; without ids, its prompts."""
    if isinstance(batch, Mapping):
        return [name for part in batch.values() for name in example_ids(part)]
    texts = getattr(batch, "texts", [])
    return [str(name) for name in getattr(batch, "columns", {}).get("id", texts)]
