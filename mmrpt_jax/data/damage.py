"""A record that cannot be used gives its place to the next one, the same one whenever that place is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from mmrpt_jax.data.images import ImageError
from mmrpt_jax.data.records import RandomAccess, RecordError

T = TypeVar("T")

# (id or number of a record, why it cannot be used)
Note = Callable[[str, Exception], None]

# What is wrong with the data, not with the program.
UNUSABLE = (RecordError, ImageError)
# So many in a row are no accident any more.
_MOST = 100
# Of the records in a sentence.
_SHOWN = 5


def ignore(name: str, error: Exception) -> None:
    """Notes nothing."""


class Damage:
    """Records that could not be used, and why; may be noted from many threads."""

    def __init__(self):
        """Nothing yet."""
        self._reasons: dict[str, str] = {}

    def note(self, name: str, error: Exception) -> None:
        """Remembers a record; once, however often it is read."""
        self._reasons.setdefault(name, str(error))

    def tell(self) -> str:
        """One sentence about what was noted since it was last told of; empty if nothing was."""
        reasons, self._reasons = self._reasons, {}
        shown = [f"{name} ({reason})" for name, reason in sorted(reasons.items())[:_SHOWN]]
        more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        count = "1 record" if len(reasons) == 1 else f"{len(reasons)} records"
        return f"{count} could not be used: {', '.join(shown)}{more}" if reasons else ""


def usable(
    source: RandomAccess[Any], use: Callable[[Any], T], note: Note, *, order: Iterable[int] | None = None
) -> Iterator[tuple[int, T]]:
    """Yields (index, `use(source[index])`) of every record that can be read and used.

    Args:
        source: records.
        use: decodes a record, as far as it is needed.
        note: is given the id (or the number) of every record that cannot be used, and why.
        order: of the indices; as they come if None.
    """
    for index in range(len(source)) if order is None else order:
        name = f"number {index}"
        try:
            record = source[index]
            name = _name(record, name)
            found = use(record)
        except UNUSABLE as error:
            note(name, error)
            continue
        yield index, found


def read_or_next(source: RandomAccess[Any], index: int, use: Callable[[Any], T], note: Note) -> T:
    """Returns `use(source[index])`, or that of the next record, round the end, which can be read and used.

    Args:
        source: records.
        index: which one.
        use: decodes a record.
        note: is given the id (or the number) of every record that cannot be used, and why.

    Raises:
        ValueError: a hundred in a row, or all, cannot be used.
    """
    for place in range(index, index + min(len(source), _MOST)):
        name = f"number {place % len(source)}"
        try:
            record = source[place % len(source)]
            name = _name(record, name)
            return use(record)
        except UNUSABLE as error:
            note(name, error)
            last = error
    raise ValueError(f"from number {index} on no record can be used; the last of them: {last}") from last


def _name(record: Any, number: str) -> str:
    return str(record["id"]) if isinstance(record, Mapping) and "id" in record else number
