import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

from mmrpt_jax.training.host_memory import drives_accelerators

# Fills a large buffer in a thread, twice, and prints how many pages the system had to clear for the second.
PROBE = """
import ctypes, resource, sys, threading
from mmrpt_jax.training.host_memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def fill():
    size = 128 * 2**20
    buffer = libc.malloc(size)
    ctypes.memset(buffer, 1, size)
    libc.free(buffer)


def in_thread():
    thread = threading.Thread(target=fill)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


in_thread()
print(in_thread() * resource.getpagesize() // 2**20)
"""


def mebibytes_cleared(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what is told to keep memory")
def test_a_buffer_is_used_again_once_freed_memory_is_kept():
    assert mebibytes_cleared("keep") < 8


def test_a_plugin_or_libtpu_means_accelerators(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not drives_accelerators()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert drives_accelerators()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ("cuda",))
    assert drives_accelerators()
