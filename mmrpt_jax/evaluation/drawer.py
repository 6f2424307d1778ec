"""Compiled drawing with any parameters of one model: groups of images from texts."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.models.autoencoder import Autoencoder, decode_tokens
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.vlm import PromptTokens
from mmrpt_jax.sampling import Conditions, FlowSampler, make_image_rollout
from mmrpt_jax.training.processes import ALONE, Whole


@dataclasses.dataclass(frozen=True)
class Drawer:
    """Draws in batches of one size, so that the program is compiled once; `Evaluator`'s twin.

    Attributes:
        model: sizes.
        sampler: the policy, guidance of text included.
        coder: the autoencoder of the model's latents.
        encode: texts to prompts without images; an empty text is the prompt that guidance steers away from. One
            program is compiled for every length that it pads to.
        group_size: G, images per text.
        batch_size: texts per batch; the last batch is filled up with its last text.
        batches: where the rows of a batch go; all processes draw the same.
    """

    model: UnifiedConfig
    sampler: FlowSampler
    coder: Autoencoder
    encode: Callable[[Sequence[str]], PromptTokens]
    group_size: int
    batch_size: int
    batches: Whole = ALONE

    def __post_init__(self):
        rollout = make_image_rollout(self.model, self.sampler, group_size=self.group_size)

        def images(params, coder, conditions, key):
            return decode_tokens(coder, rollout(params, conditions, key).latents, self.model.latent)

        object.__setattr__(self, "_images", jax.jit(images))

    def draw(self, params, texts: Sequence[str], *, seed: int) -> UInt8[np.ndarray, "N G h w 3"]:
        """G images of each text.

        The images of text n are a function of the parameters, the text, n and `seed`, given this drawer: other texts,
        and how many there are, do not matter (but for rounding, where `encode` pads to several lengths). The same text
        in another place is drawn from other noise; other parameters draw the same texts from the same noise.

        Args:
            params: the policy.
            texts: N of them.
            seed: of the noise, ≥ 0.

        Raises:
            ValueError: the sampler's guidance needs prompts with images, or `coder` is not the autoencoder that
                `model` describes.
        """
        images = np.zeros((len(texts), self.group_size, *self.model.latent.image_size, 3), np.uint8)
        for number, start in enumerate(range(0, len(texts), self.batch_size)):
            stop = start + self.batch_size
            chosen = [texts[min(i, len(texts) - 1)] for i in range(start, stop)]
            key = jax.random.fold_in(jax.random.key(seed), number)
            drawn = self._images(params, self.coder, self._conditions(chosen), key)
            images[start:stop] = self.batches.read(drawn)[: len(texts) - start]
        return images

    def _conditions(self, texts: Sequence[str]) -> Conditions:
        guided = self.sampler.guidance.text > 1.0
        textless = self.encode([""] * len(texts)) if guided else None
        return self.batches.place(Conditions(self.encode(texts), textless=textless))
