"""What one of two processes sees of shared batches; `processes_test.py` runs it as both and compares."""

import json
import sys

import jax
import numpy as np

from mmrpt_jax.models.patches import PADDING, ImagePatches
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.training.processes import Share, Whole, agreed, fetch, is_writer, start_processes


def main(number: int, coordinator: str | None = None) -> None:
    """Prints what this process found, as JSON; without a coordinator, the surroundings tell it of the other."""
    start_processes(*((coordinator, 2, number) if coordinator else ()))
    found = {"writer": is_writer(), "agreed": [agreed(number == 0), agreed(number == 1)]}
    for name, sizes in {
        "data": (8, 1, 1),
        "fsdp": (2, 4, 1),
        "tensor": (4, 1, 2),
        "across": (1, 1, 8),
    }.items():
        share = Share(make_mesh(*sizes))
        rows = share.rows(8)
        # The first four rows are shorter.
        longer = int(rows.max() > 3)
        own = {
            "x": np.tile(rows[:, None], (1, 2 + longer)).astype(np.int32),
            "patches": patches(rows, 1 + longer),
        }
        placed = share.place(own)
        whole = Whole(share.mesh).place(np.arange(16, dtype=np.int32).reshape(8, 2))
        doubled = jax.jit(lambda x: 2 * x)(whole)
        found[name] = {
            "rows": rows.tolist(),
            "placed": fetch(placed["x"]).tolist(),
            "image": fetch(placed["patches"].image).tolist(),
            "own": share.read(doubled).tolist(),
            "whole": Whole(share.mesh).read(doubled).tolist(),
            "gathered": share.gather(rows * 10).tolist(),
            "most": share.most(number + 3),
            "locally": _locally(share, rows),
        }
    print(json.dumps(found))


def _locally(share: Share, rows: np.ndarray) -> list[int]:
    """What a reward might compute, in the place where rewards are asked: its rows squared, of each process's number."""
    with jax.set_mesh(share.mesh), share.locally():
        return np.asarray(jax.jit(lambda x: x**2)(rows[: jax.process_index() + 1])).tolist()


def patches(rows: np.ndarray, count: int) -> ImagePatches:
    """`count` patches per row, all of image 0."""
    shape = (len(rows), count)
    zeros = np.zeros(shape, np.int32)
    return PADDING._replace(pixels=np.ones((*shape, 3), np.uint8), rows=zeros, columns=zeros, image=zeros)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
