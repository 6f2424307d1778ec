"""Checkpoints: arrays and what the host must remember, saved and restored together. The only file that knows Orbax.

The data's position is the step itself: batches are a pure function of it.
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

    def save(self, step: int, state: Any, data: dict) -> None:
        """Starts saving arrays (`state`) and JSON-able host state (`data`); returns before it is on disk."""
        self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data))
        )

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict]:
        """Restores a checkpoint onto the devices and shardings of `like` (arrays or abstract arrays).

        Raises:
            FileNotFoundError: there is no complete checkpoint.
        """
        step = self.latest if step is None else step
        if step is None:
            raise FileNotFoundError(f"no complete checkpoint in {self._manager.directory}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        return restored.state, restored.data

    def close(self) -> None:
        """Waits for the last save; without it, the last checkpoint may be missing."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
