"""Checkpoints of a training state. The only file that knows Orbax.

The data's position is the state's own step: batches, and the keys that sampling draws from, are pure functions of it.
"""

import os
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpointer:
    """Numbered checkpoints in one folder; the newest `keep` stay.

    A checkpoint is complete or it is not there: Orbax writes aside and renames.
    """

    def __init__(self, directory: str, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(os.path.abspath(directory), options=options)

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts saving a tree of arrays; returns before it is on disk."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Restores a checkpoint onto the devices and shardings of `like` (arrays or abstract arrays).

        Raises:
            FileNotFoundError: there is no complete checkpoint.
        """
        step = self.latest if step is None else step
        if step is None:
            raise FileNotFoundError(f"no complete checkpoint in {self._manager.directory}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """Waits for the last save; without it, the last checkpoint may be missing."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
