"""The embedded world as a source of records: endless, random-access, nothing on disk."""

import io
import json

import numpy as np
from PIL import Image

from mmrpt_jax.data.records import Record
from mmrpt_jax.scenes import WORLDS, World, describe, render, sample_scene, split_seed


class SceneSource:
    """`size` scenes of a world with their captions, as records whose images are PNG files."""

    def __init__(self, world: str | World, *, split: str, stream: int = 0, size: int, captions: int = 1):
        """Names a stream of scenes; nothing is rendered before it is asked for.

        Args:
            world: a name of `scenes.WORLDS` or a world.
            split: a name of `scenes.SPLITS`; splits share no scenes.
            stream: which stream of the split, e.g. the seed of a run.
            size: number of records.
            captions: captions per scene, in different words about different things.

        Raises:
            KeyError: unknown world.
        """
        if isinstance(world, str) and world not in WORLDS:
            raise KeyError(f"no world {world!r}; there are {', '.join(WORLDS)}")
        self._world = WORLDS[world] if isinstance(world, str) else world
        self._seed, self._size, self._captions = split_seed(split, stream), size, captions

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._size:
            raise IndexError(index)
        scene = sample_scene(self._world, self._seed, index)
        # Caption streams are numbered apart: caption k of scene i is stream i + k·size.
        captions = [describe(scene, self._seed, index + k * self._size) for k in range(self._captions)]
        needs = [[sentence.needs_image for sentence in caption.sentences] for caption in captions]
        return Record(
            id=f"scene-{self._seed}-{index}",
            images=[png(render(scene))],
            captions=[caption.text for caption in captions],
            qa=[],
            group=str(index),
            extra=json.dumps({"needs_image": needs}),
        )


def png(image: np.ndarray) -> bytes:
    """Encodes uint8 [h, w, 3]; lightly compressed, because it is made to be read once."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
