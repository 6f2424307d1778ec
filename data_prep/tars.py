"""Files inside a .tar, read in place: nothing is ever unpacked to disk."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from data_prep.disk_index import Place
from data_prep.errors import Reject
from data_prep.sources.base import MAX_IMAGE_BYTES

_MAX_HEADER_BYTES = 2**20


def tar_members(file: BinaryIO, on_reject: Callable[[Reject], None]) -> Iterator[tuple[str, Place]]:
    """Yields (path, place) of the regular files of an uncompressed .tar, in order.

    Links, devices, and members with absolute paths or ".." are reported to `on_reject` and passed over, and so is the
    place where a damaged archive stops being readable.

    Raises:
        tarfile.ReadError: `file` is no uncompressed tar archive.
    """
    headers = _Headers(file)
    count = offset = 0
    with _open(headers) as archive:
        try:
            while member := archive.next():
                # A negative size would send the reader back to the same members for ever.
                if member.size < 0 or archive.offset <= offset:
                    raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
                count, offset = count + 1, archive.offset
                if name := _safe_name(member, on_reject):
                    yield name, (member.offset_data, member.size)
                archive.members.clear()  # type: ignore[attr-defined]  # every header would be kept
                headers.allowance = _MAX_HEADER_BYTES
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            on_reject(Reject("damaged tar", f"unreadable after {count} members: {error}"))
            return
        # tarfile takes a damaged header for the end of the archive; a true end is empty or zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            on_reject(Reject("damaged tar", f"unreadable after {count} members: bad header"))


class TarImages:
    """Reads files of a .tar by name, from where `place_of` says that they are."""

    def __init__(self, file: BinaryIO, place_of: Callable[[str], Place | None]):
        self._file = file
        self._place_of = place_of

    def read(self, name: str) -> bytes:
        """Returns the bytes of the file `name`; raises Reject if it is missing, cut off, or far too large."""
        place = self._place_of(str(PurePosixPath(name)))
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


class _Headers(io.RawIOBase):
    """A file of which tarfile reads headers only, and no more of them at a time than a sane archive has.

    An extended header may state any length, and may be followed by any number of others.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.allowance = _MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.allowance:
            raise tarfile.ReadError(f"more than {_MAX_HEADER_BYTES} bytes of headers for one member")
        self.allowance -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _open(headers: _Headers) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=headers, mode="r:")
    except (ValueError, OverflowError, RecursionError) as error:
        raise tarfile.ReadError(str(error)) from error


def _safe_name(member: tarfile.TarInfo, on_reject: Callable[[Reject], None]) -> str | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        on_reject(Reject("unsafe tar member", f"{member.name!r} points outside the archive"))
    elif member.isreg() and not member.issparse():
        return str(path)
    elif not member.isdir():
        on_reject(Reject("unsafe tar member", f"{member.name!r} is no regular file"))
    return None
