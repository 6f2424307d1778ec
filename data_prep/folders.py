"""Images that rows name by their path in a folder."""

from pathlib import Path, PurePosixPath

from data_prep.errors import Reject
from data_prep.sources.base import MAX_IMAGE_BYTES


class FolderImages:
    """Reads files below `root`, and nothing outside it whatever the name or a link says."""

    def __init__(self, root: Path):
        self._root = root.resolve()

    def read(self, name: str) -> bytes:
        """Returns the bytes of the file `name`; raises Reject if it is missing, outside, or far too large."""
        try:
            path = (self._root / PurePosixPath(name)).resolve()
            if not path.is_relative_to(self._root):
                raise Reject("unsafe path", f"{name!r} points outside {self._root.name}")
            if not path.is_file():
                raise Reject("missing image", f"{name!r} is not in {self._root.name}")
            with path.open("rb") as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        # A name may be too long, hold a zero byte, or lead round in a circle of links.
        except (OSError, ValueError, RuntimeError) as error:
            raise Reject("missing image", f"{name!r} cannot be read: {error}") from error
        if len(data) > MAX_IMAGE_BYTES:
            raise Reject("unreadable image", f"{name!r} has more than {MAX_IMAGE_BYTES} bytes")
        return data


class NamedImages:
    """Images that are at hand with their row."""

    def __init__(self, images: dict[str, bytes]):
        self._images = images

    def read(self, name: str) -> bytes:
        """Returns the bytes of the image `name`; raises Reject if the row has none of that name."""
        if name not in self._images:
            raise Reject("missing image", f"the row has no image {name!r}")
        return self._images[name]
