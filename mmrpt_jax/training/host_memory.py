"""The memory that XLA's CPU programs work in, kept from one call to the next.

Such a program takes one buffer for all that it computes on its way, and frees it at its end. glibc gives buffers of
that size back to the system, which clears their pages one by one when the next call asks for them: for the update of a
small model that is a quarter of the time.
"""

import ctypes
import importlib.metadata
import importlib.util
import sys

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def drives_accelerators() -> bool:
    """Whether this installation of JAX could compute elsewhere than on the CPU; starts no device."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def keep_freed_memory() -> None:
    """Lets the process keep what it frees; it stays as large as it ever was.

    To be called before the first use of a device: threads that run already go on as they were. Does nothing where the C
    library is not glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    # Only the main arena can grow to such buffers: others map them, whatever they are told.
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
