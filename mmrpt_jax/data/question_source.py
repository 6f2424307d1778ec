"""Questions about scenes of the embedded world: endless, random-access, nothing on disk."""

from typing import TypedDict

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.scenes import WORLDS, ask, render, sample_scene, split_seed


class SceneQuestion(TypedDict):
    """A question about a picture, and the answer as one would say it; `id` names the picture."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    question: str
    reply: str


class QuestionSource:
    """`size` scenes of a world with the questions that come naturally: answers follow the world's bias."""

    def __init__(self, world: str, *, split: str, stream: int = 0, size: int):
        """Names a stream of scenes; nothing is rendered before it is asked for.

        Args:
            world: a name of `scenes.WORLDS`.
            split: a name of `scenes.SPLITS`; splits share no scenes.
            stream: which stream of the split, e.g. the seed of a run.
            size: number of scenes.
        """
        self._world, self._seed, self._size = WORLDS[world], split_seed(split, stream), size
        self._name = f"{world}-{split}-{stream}"

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> SceneQuestion:
        if not 0 <= index < self._size:
            raise IndexError(index)
        scene = sample_scene(self._world, self._seed, index)
        questions = ask(scene, self._seed, index)
        chosen = questions[index % len(questions)]
        name = f"{self._name}-{index}"
        return SceneQuestion(id=name, image=render(scene), question=chosen.question, reply=chosen.reply)
