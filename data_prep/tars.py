"""Images inside a .tar, read in place: nothing is ever unpacked to disk."""

import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from data_prep.errors import Reject
from mmrpt_jax.reporting.command_line import UsageError

MAX_IMAGE_BYTES = 256 * 2**20


class TarImages:
    """Random access by name to the regular files of an uncompressed .tar.

    Links, devices, and members with absolute paths or ".." are reported to `on_reject` and left alone, and so
    is the place where a damaged archive stops being readable. Of two members of one name the later one
    counts, as in tar.

    Raises:
        UsageError: the file is no uncompressed tar archive.
    """

    def __init__(self, path: Path, on_reject: Callable[[Reject], None]):
        self._places: dict[str, tuple[int, int]] = {}
        self._file = path.open("rb")
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                self._index(archive, on_reject)
        except tarfile.ReadError as error:
            self._file.close()
            raise UsageError(f"{path} is not an uncompressed tar archive ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str) -> bytes:
        """Returns the bytes of the file `name`; raises Reject if it is missing, cut off, or far too large."""
        place = self._places.get(str(PurePosixPath(name)))
        if place is None:
            raise Reject("missing image", f"{name!r} is not in the archive")
        offset, size = place
        if size > MAX_IMAGE_BYTES:
            raise Reject("unreadable image", f"{name!r} has {size} bytes, at most {MAX_IMAGE_BYTES} are read")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise Reject("unreadable image", f"{name!r} is cut off: {len(data)} of {size} bytes are there")
        return data

    def _index(self, archive: tarfile.TarFile, on_reject: Callable[[Reject], None]) -> None:
        try:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # every header would be kept
                self._add(member, on_reject)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            on_reject(Reject("damaged tar", f"unreadable after {len(self._places)} files: {error}"))
            return
        # tarfile takes a damaged header for the end of the archive; a true end is empty or zeros.
        self._file.seek(archive.offset)
        if self._file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            on_reject(Reject("damaged tar", f"unreadable after {len(self._places)} files: bad header"))

    def _add(self, member: tarfile.TarInfo, on_reject: Callable[[Reject], None]) -> None:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            on_reject(Reject("unsafe tar member", f"{member.name!r} points outside the archive"))
        elif member.isreg() and not member.issparse():
            self._places[str(path)] = (member.offset_data, member.size)
        elif not member.isdir():
            on_reject(Reject("unsafe tar member", f"{member.name!r} is no regular file"))
