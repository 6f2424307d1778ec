"""Compiled evaluation of any parameters of one model: greedy answers and candidate likelihoods."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmrpt_jax.data.processor import Pixels, Processor
from mmrpt_jax.data.prompts import Wording, encode_branches
from mmrpt_jax.masking import GREY
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.training.processes import ALONE, Whole
from mmrpt_jax.training.supervised import hide_images

ImageCondition = Literal["right", "swapped", "none"]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores prompts in batches of one size, so that every program is compiled once.

    Attributes:
        model: sizes.
        processor: texts and images to arrays.
        wording: of prompts.
        batch_size: prompts per batch; the last batch is filled up with its last item.
        text_lengths: buckets of given texts whose likelihood is asked for.
        max_tokens: longest generated answer.
        batches: which rows of a batch are made and read here: all that all processes are asked, or the own ones.
    """

    model: VLMConfig
    processor: Processor
    wording: Wording
    batch_size: int
    text_lengths: tuple[int, ...]
    max_tokens: int
    batches: Whole = ALONE

    def __post_init__(self):
        tokenizer = self.processor.tokenizer
        greedy = make_rollout(
            self.model,
            group_size=1,
            max_tokens=self.max_tokens,
            end_ids=tokenizer.stop_ids,
            banned=jnp.asarray(tokenizer.banned),
            temperature=0.0,
        )

        def likelihood(params, images, prompt: PromptTokens, branches: BranchTokens):
            out = forward(self.model, params, images, prompt, branches)
            return jnp.sum(jnp.where(branches.valid, out.logprobs, 0.0), axis=-1)

        object.__setattr__(self, "_greedy", jax.jit(greedy))
        object.__setattr__(self, "_likelihood", jax.jit(likelihood))

    def generate(
        self,
        params,
        images: Sequence[Sequence[Pixels]],
        prompts: Sequence[str],
        condition: ImageCondition = "right",
    ) -> list[str]:
        """The most likely completion of each prompt, token by token.

        Args:
            params: the policy.
            images: those of each prompt.
            prompts: texts with as many image placeholders.
            condition: the prompt's own images, another prompt's (see `swap_images`), or none.
        """
        completions = []
        for _, batch, prompt in self._batches(images, prompts, condition):
            rollout = self._greedy(params, batch, prompt, jax.random.key(0))
            ids, valid = (array[:, 0] for array in self.batches.read((rollout.ids, rollout.valid)))
            completions += [
                self.processor.tokenizer.decode(row[keep]) for row, keep in zip(ids, valid, strict=True)
            ]
        return completions[: len(prompts)]

    def log_likelihoods(
        self,
        params,
        images: Sequence[Sequence[Pixels]],
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        condition: ImageCondition = "right",
    ) -> list[Float[np.ndarray, " candidates"]]:
        """log p(candidate | images, prompt) in nats, summed over the candidate's tokens.

        Args:
            params: the policy.
            images: those of each prompt.
            prompts: texts with as many image placeholders.
            candidates: texts per prompt, in any number; shorter lists are padded to the longest of all.
            condition: as in `generate`.
        """
        width, scores = max(map(len, candidates)), []
        for chosen, batch, prompt in self._batches(images, prompts, condition):
            texts = [candidates[i] for i in chosen]
            padded = [[*group, *[group[-1]] * (width - len(group))] for group in texts]
            branches = self.batches.place(
                encode_branches(self.processor.tokenizer, padded, lengths=self.text_lengths)
            )
            values = self.batches.read(self._likelihood(params, batch, prompt, branches))
            scores += [row[: len(group)] for row, group in zip(values, texts, strict=True)]
        return scores[: len(prompts)]

    def _batches(
        self, images: Sequence[Sequence[Pixels]], prompts: Sequence[str], condition: ImageCondition
    ) -> Iterator[tuple[list[int], Any, PromptTokens]]:
        """Yields numbers of prompts, with their images and tokens; beyond the last prompt it comes again and again."""
        if condition == "swapped":
            images = swap_images(images, lambda i, sizes: self.processor.fits(prompts[i], *sizes))
        size, last = len(self.batches.rows(self.batch_size)), len(prompts) - 1
        for start in range(0, self.batches.most(len(prompts)), size):
            chosen = [min(i, last) for i in range(start, start + size)]
            views = [self.processor.view(*images[i]) for i in chosen]
            batch, prompt = self.processor.inputs([prompts[i] for i in chosen], views)
            if condition == "none":
                prompt = hide_images(prompt, np.ones(size, bool))
            yield chosen, *self.batches.place((batch, prompt))


def swap_images(
    images: Sequence[Sequence[Pixels]], fits: Callable[[int, list[tuple[int, int]]], bool]
) -> list[Sequence[Pixels]]:
    """Gives each prompt the images of the next one, round the end, that has as many others of sizes that fit.

    Where there is no such other prompt, its images become grey: with "swapped" images no prompt sees its own.

    Args:
        images: those of each prompt.
        fits: (number of a prompt, sizes of images) -> whether it has room for them.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for place, own in enumerate(images):
        alike[len(own)].append(place)

    def swapped(place: int) -> Sequence[Pixels]:
        same, own = alike[len(images[place])], images[place]
        turn = same.index(place)
        for other in (*same[turn + 1 :], *same[:turn]):
            if fits(place, [image.shape[:2] for image in images[other]]) and not _same(images[other], own):
                return images[other]
        return [np.full_like(image, GREY) for image in own]

    return [swapped(place) for place in range(len(images))]


def _same(images: Sequence[Pixels], others: Sequence[Pixels]) -> bool:
    return all(np.array_equal(image, other) for image, other in zip(images, others, strict=True))
