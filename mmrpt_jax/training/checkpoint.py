"""Checkpoints of a training state. The only file that knows Orbax.

The data's position is the state's own step: batches, and the keys that sampling draws from, are pure functions of it.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmrpt_jax.models.finite import check_finite
from mmrpt_jax.models.full_disk import naming_a_full_disk
from mmrpt_jax.training.fingerprint import fingerprint
from mmrpt_jax.training.processes import by_writer, wait_for_all


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be read, or does not hold what was written."""


class _Manager(ocp.CheckpointManager):
    """Orbax's, without a say in when the run stops.

    JAX's preemption service agrees on the number of a call to come, and tells of it at that number alone. Asked with
    other numbers than those of `StopRequest`, as Orbax would at every save, it may agree on one that has been.
    """

    def reached_preemption(self, step: int) -> bool:
        """The loop asks, and saves."""
        return False


class Checkpointer:
    """Numbered checkpoints in one folder; the newest `keep` stay.

    A checkpoint is complete or it is not there: Orbax writes aside and renames. Beside the state it holds the state's
    fingerprint, since a file that was damaged later may still be read.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2):
        self._directory, self._keep = Path(directory).absolute(), keep
        self._manager = self._open()

    def _open(self) -> _Manager:
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=True)
        with naming_a_full_disk(self._directory):
            return _Manager(self._directory, options=options)

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts saving a tree of arrays; returns before it is on disk.

        Raises:
            OSError: the disk is full; of the checkpoint before this one, too, if that was not yet known.
        """
        with naming_a_full_disk(self._directory):
            self._manager.save(step, args=ocp.args.StandardSave(_sealed(state, fingerprint(state))))

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Restores a checkpoint onto the devices and shardings of `like` (arrays or abstract arrays).

        Raises:
            FileNotFoundError: there is no complete checkpoint.
            DamagedCheckpointError: it cannot be read, or does not hold what was written.
            ValueError: it is of another model than `like`, or holds numbers that are not finite.
        """
        step = self.latest if step is None else step
        if step is None or step not in self._manager.all_steps():
            raise FileNotFoundError(f"no complete checkpoint {step or ''} in {self._directory}")
        place = self._directory / str(step)
        state = self._read(like, step)
        check_finite(state, place, "remove it to go on from the checkpoint before it")
        return state

    def restore_newest_sound(self, like: Any, log: Callable[[str], None]) -> Any | None:
        """Restores the newest checkpoint that is not damaged; None if none is left.

        Damaged ones are told of and set aside, as `<step>.damaged`, while there is one before them.

        Raises:
            DamagedCheckpointError: the last one is damaged, too; whether to begin anew is for the user to say.
            ValueError: as `restore`; what was written so will not be better the next time.
        """
        while (step := self.latest) is not None:
            try:
                return self.restore(like, step)
            except DamagedCheckpointError as error:
                if len(self._manager.all_steps()) == 1:
                    raise DamagedCheckpointError(
                        f"{error}, and there is none before it: remove {self._directory} to begin this training anew"
                    ) from error
                self._set_aside(step)
                log(f"   {error}; it is set aside, and training goes on from step {self.latest}")
        return None

    def _read(self, like: Any, step: int) -> Any:
        leaves, place = jax.tree_util.tree_leaves_with_path(like), self._directory / str(step)
        abstract = _sealed(
            jax.tree.map(ocp.utils.to_shape_dtype_struct, like), np.zeros(len(leaves), np.uint32)
        )
        try:
            found = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        # Orbax and TensorStore raise many types on damaged files, bare `Exception` among them.
        except Exception as error:
            if _will_pass(error):
                raise
            self._check_same_model(abstract, step)
            raise DamagedCheckpointError(f"{place} is damaged: it cannot be read") from error
        state = found["state"]
        for (path, _), stored, sum_ in zip(leaves, found["fingerprint"], fingerprint(state), strict=True):
            if stored != sum_:
                self._check_same_model(abstract, step)
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise DamagedCheckpointError(f"{place} is damaged: {name} is not what was written")
        return state

    def _check_same_model(self, abstract: Any, step: int) -> None:
        """Raises ValueError if a checkpoint says of itself, legibly, that it has other arrays."""
        try:
            described = self._manager.item_metadata(step).tree
        except Exception:
            return
        if described is None:
            return
        found, wanted = _kinds(described), _kinds(abstract)
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"{self._directory / str(step)} is of another model than this one: {name} is "
                    f"{found.get(name, 'missing')} in it, and {wanted.get(name, 'missing')} here"
                )

    def _set_aside(self, step: int) -> None:
        # All have read it before it goes away.
        wait_for_all(f"checkpoint {step} is damaged")
        by_writer(_rename_damaged, self._directory / str(step))
        # A new one: what it has found in one checkpoint, Orbax takes for the form of them all.
        self._manager.close()
        self._manager = self._open()

    def close(self) -> None:
        """Waits for the last save; without it, the last checkpoint may be missing. Raises as `save`."""
        with naming_a_full_disk(self._directory):
            self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _rename_damaged(place: Path) -> None:
    aside = place.with_name(f"{place.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    place.replace(aside)


def _sealed(state: Any, sums: np.ndarray) -> dict[str, Any]:
    """What is in the files."""
    return {"state": state, "fingerprint": sums}


def _kinds(tree: Any) -> dict[str, str]:
    """Types and shapes by path, of arrays or of Orbax's descriptions of them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(leaf.dtype)}{tuple(leaf.shape)}"
        for path, leaf in leaves
    }


def _will_pass(error: Exception) -> bool:
    """Whether it is the machine that cannot read now, and not the checkpoint that is damaged."""
    told = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return isinstance(error, MemoryError | PermissionError) or any(word in str(error) for word in told)
