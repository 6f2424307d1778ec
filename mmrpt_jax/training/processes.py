"""Several processes, one program: who writes, who waits, and which rows of a batch are whose.

Every process runs the same program on the same global arrays; `jax.distributed` brings them together. They differ in
two things: the first one alone writes files, and each loads, decodes and rewards the rows of a batch that its own
devices hold. With one process everything here is plain: all rows are its own, and nobody waits.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Int

from mmrpt_jax.models.patches import PADDING, ImagePatches
from mmrpt_jax.models.sharding import batch_sharding

# A process that has sent no sign of life for so long is taken for dead, and the others end.
HEARTBEAT_TIMEOUT_S = 60


def start_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run; before anything touches a device.

    What is None is told by the surroundings: TPU metadata, SLURM, Open MPI or Kubernetes.

    Where the others do not come, JAX ends the process.

    Raises:
        ValueError: it is not told.
    """
    jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S
    )


def leave(code: int) -> NoReturn:
    """Ends this process; of several at once, since leaving as usual would wait for the others, who wait for it."""
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_failed(error: Exception) -> NoReturn:
    """Ends one of several processes that failed with exit code 1, and says why."""
    traceback.print_exception(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        full = "RESOURCE_EXHAUSTED" in str(error)
        why = (
            "there is not enough memory. Make batches smaller, or split weights over more devices (config.mesh.fsdp)."
            if full
            else "another process of the run is gone, or a device failed. Start the same command again everywhere: it "
            "goes on where it was saved."
        )
        which = f"process {jax.process_index()} of {jax.process_count()}"
        print(f"error: {which} could not go on: {why}", file=sys.stderr)
    leave(1)


def is_writer() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns once all processes are here; `what` is the same on all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def agreed(found: bool) -> bool:
    """What the writer has found, on all processes: files appear to others at another moment, or on another disk."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(found)))


def by_writer(write: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Calls `write` on the process that writes; the others wait, and then find what it wrote."""
    if is_writer():
        write(*args, **options)
    wait_for_all(getattr(write, "__qualname__", "write"))


@contextlib.contextmanager
def writer_first(what: str) -> Iterator[None]:
    """Runs the block on the process that writes, then on the others, who find what it wrote."""
    if not is_writer():
        wait_for_all(what)
    yield
    if is_writer():
        wait_for_all(what)


class Silent:
    """Stands in for a writer of files on the processes that write none: whatever it is asked, it does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


def for_writer(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What `make` makes on the process that writes, and its silent stand-in on the others."""
    return make(*args, **options) if is_writer() else Silent()


def fetch(tree: Any) -> Any:
    """Arrays as NumPy arrays, whole, on every process, wherever their parts live; all processes take part."""
    return jax.tree.map(_whole, tree)


def fetch_to_writer(tree: Any) -> Any:
    """As `fetch`, but what writes alone keeps them; elsewhere there is None for each."""

    def kept(array: Any) -> np.ndarray | None:
        found = _whole(array)
        return found if is_writer() else None

    return jax.tree.map(kept, tree)


def demand_same(number: int, what: str) -> None:
    """Ends a run whose processes found different data, before they compute as if it were one.

    Raises:
        RuntimeError: they did.
    """
    found = multihost_utils.process_allgather(np.int32(number)).ravel().tolist()
    if len(set(found)) > 1:
        raise RuntimeError(f"processes found different {what}, {found}: give all of them the same data")


def _whole(array: Any) -> np.ndarray:
    spread = isinstance(array, jax.Array) and not array.is_fully_addressable
    return multihost_utils.process_allgather(array, tiled=True) if spread else np.asarray(array)


@dataclasses.dataclass(frozen=True)
class Whole:
    """Batches of which every process has all rows; what is read of them is known to all.

    Its methods, and those of `Share`, are for all processes at once, in the same order.

    Attributes:
        mesh: over which rows (prompts) are split; None, for one process alone, leaves arrays on the default device.
    """

    mesh: Mesh | None = None

    def rows(self, size: int) -> Int[np.ndarray, " rows"]:
        """Numbers of the rows of a batch of `size` that this process has, rising."""
        return np.arange(size)

    def place(self, rows: Any) -> Any:
        """Puts the rows that this process has on the mesh, beside those of the others."""
        if jax.process_count() == 1:
            return jax.device_put(rows, None if self.mesh is None else batch_sharding(self.mesh))
        return jax.tree.map(lambda array: _placed(self.mesh, array, len(array)), rows)

    def read(self, tree: Any) -> Any:
        """The rows of arrays on the mesh that this process has, as NumPy arrays."""
        return fetch(tree)

    def most(self, number: int) -> int:
        """The largest number that any process has."""
        return number


class Share(Whole):
    """Batches of which every process has its own rows: those that its devices hold."""

    def rows(self, size: int) -> Int[np.ndarray, " rows"]:
        """As `Whole.rows`; processes whose devices hold the same rows, split by `tensor` alone, have the same."""
        if self.mesh is None:
            return np.arange(size)
        slices = batch_sharding(self.mesh).addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[index] for index in slices]))

    def place(self, rows: Any) -> Any:
        """As `Whole.place`; rows are padded to the longest of all processes, as one process pads to its longest."""
        if jax.process_count() == 1:
            return super().place(rows)
        leaves, structure = jax.tree.flatten(rows)
        sizes = np.concatenate([np.shape(leaf)[1:] for leaf in leaves]).astype(np.int32)
        longest = iter(_largest(sizes).tolist())
        size = self._whole_size(len(leaves[0]))
        placed = [
            _placed(self.mesh, _lengthened(leaf, [next(longest) for _ in np.shape(leaf)[1:]], fill), size)
            for leaf, fill in zip(leaves, _fills(rows), strict=True)
        ]
        return jax.tree.unflatten(structure, placed)

    def read(self, tree: Any) -> Any:
        """As `Whole.read`."""
        if jax.process_count() == 1:
            return fetch(tree)
        return jax.tree.map(_addressable_rows, jax.device_put(tree, batch_sharding(self.mesh)))

    def most(self, number: int) -> int:
        """As `Whole.most`."""
        return number if jax.process_count() == 1 else int(_largest(np.array([number], np.int32))[0])

    def locally(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, what JAX computes of own rows is this process's affair, and no program of the whole mesh."""
        return jax.set_mesh(None) if jax.process_count() > 1 else contextlib.nullcontext()

    def gather(self, rows: Any) -> Any:
        """All rows of small NumPy arrays, in the order of the batch, of those that the processes have."""
        return rows if jax.process_count() == 1 else fetch(self.place(rows))

    def _whole_size(self, own: int) -> int:
        """Rows of the batch of which this process has `own`."""
        shards = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return own * shards // len(self.rows(shards))


# A process alone, with its default device.
ALONE = Share()


def _largest(numbers: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The largest that any process has, number by number."""
    return multihost_utils.process_allgather(numbers).max(axis=0)


def _placed(mesh: Mesh, array: Any, size: int) -> jax.Array:
    """A global array of `size` rows, of those that this process has."""
    array = np.asarray(array)
    shape = (size, *array.shape[1:])
    return jax.make_array_from_process_local_data(batch_sharding(mesh), array, shape)


def _addressable_rows(array: jax.Array) -> np.ndarray:
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def _lengthened(array: np.ndarray, sizes: list[int], fill: int) -> np.ndarray:
    """Pads every axis but the first on its right."""
    array = np.asarray(array)
    widths = [(0, 0), *((0, size - now) for size, now in zip(sizes, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=fill)


def _fills(batch: Any) -> list[int]:
    """What the padding of each array of a batch holds."""
    is_patches = lambda node: isinstance(node, ImagePatches)  # noqa: E731
    return jax.tree.leaves(
        jax.tree.map(lambda node: PADDING if is_patches(node) else 0, batch, is_leaf=is_patches)
    )
