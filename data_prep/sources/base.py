"""What a source is: files whose rows can be planned once and then read in parts, by any process, again and again."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from data_prep.adapters import Adapter, Row
from data_prep.errors import Reject

MAX_IMAGE_BYTES = 256 * 2**20
MAX_LINE_BYTES = 16 * 2**20


class Images(Protocol):
    """The encoded images that rows name."""

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image; raises Reject if it cannot be had."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """A part of a source that one process converts in one go.

    Attributes:
        file: what is read: a file, or a part of a dataset by name.
        split: the split of the file.
        first: number of the first row within the file, from 1.
        start: where the part begins, in the source's own unit (bytes, row groups, rows).
        stop: where it ends.
    """

    file: str
    split: str
    first: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Item:
    """One row of a source with its images, or what is wrong with it.

    Attributes:
        number: the row's place in its file, from 1; None for what is no row, such as a damaged rest.
        row: the fields, or the verdict.
        images: where the row's images are; None beside a verdict.
    """

    number: int | None
    row: Row | Reject
    images: Images | None = None


class OnReject(Protocol):
    """Is told what is wrong with a file as a whole."""

    def __call__(self, reject: Reject, file: Path) -> None:
        """Lists `reject` of `file`."""
        ...


class Source(Protocol):
    """Rows in files. A frozen dataclass, so that it can be sent to other processes."""

    @property
    def files(self) -> Sequence[Path]:
        """The files whose change would change the rows."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """The splits that tasks may name."""
        ...

    @property
    def adapter(self) -> Adapter | None:
        """What a row means unless the user says otherwise; None if only the user can say."""
        ...

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Yields the tasks, about `rows` rows each, in an order that depends on the files alone.

        Indexes that reading needs are written to the empty folder `scratch`. Whatever is wrong with a file as a whole
        goes to `on_reject`.
        """
        ...

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields the items of a task, in order; never raises for what a file holds."""
        ...
