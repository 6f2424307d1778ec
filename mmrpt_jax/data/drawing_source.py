"""Prompts of the embedded world with pictures that show what they ask for: endless, random-access, nothing on disk."""

from typing import TypedDict

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.scenes import WORLDS, ScenePrompt, prompt_at, render, scene_for, split_seed, tags_of


class Drawing(TypedDict):
    """A prompt, and one picture of the many that it allows."""

    prompt: ScenePrompt
    image: UInt8[np.ndarray, "h w 3"]


class DrawingSource:
    """`size` prompts of a world, all tags in equal numbers, each with a picture."""

    def __init__(self, world: str, *, split: str, stream: int = 0, size: int):
        """Names a stream of prompts; nothing is rendered before it is asked for.

        Args:
            world: a name of `scenes.WORLDS`.
            split: a name of `scenes.SPLITS`; splits share no seeds.
            stream: which stream of the split, e.g. the seed of a run.
            size: number of prompts.

        Raises:
            KeyError: unknown world.
        """
        if world not in WORLDS:
            raise KeyError(f"no world {world!r}; there are {', '.join(WORLDS)}")
        self._world, self._tags = WORLDS[world], tags_of(WORLDS[world])
        self._seed, self._size = split_seed(split, stream), size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Drawing:
        prompt = self.prompt(index)
        return Drawing(prompt=prompt, image=render(scene_for(prompt, self._world, self._seed, index)))

    def prompt(self, index: int) -> ScenePrompt:
        """The prompt alone, without the cost of a picture."""
        if not 0 <= index < self._size:
            raise IndexError(index)
        number, tag = divmod(index, len(self._tags))
        return prompt_at(self._world, self._tags[tag], self._seed, number)
