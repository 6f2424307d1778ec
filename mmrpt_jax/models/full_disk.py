"""A full disk, told by the error of the operating system whichever library met it."""

import contextlib
import errno
import os
from collections.abc import Iterator


@contextlib.contextmanager
def naming_a_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Writing of `path` inside.

    Raises:
        OSError: the disk is full, with `errno.ENOSPC` and the path as its `filename`; libraries written in other
            languages say so only in the words of an error of their own.
    """
    try:
        yield
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
