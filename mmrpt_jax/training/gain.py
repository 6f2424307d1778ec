"""The visual gain of completions, computed on the devices: what does the image add to the likelihood of a span?"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from mmrpt_jax.data.prompts import completion, encode_branches
from mmrpt_jax.data.tokenizer import ANSWER, END_ANSWER, Tokenizer
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.vlm import BranchTokens
from mmrpt_jax.rewards import parse_completion, visual_gain
from mmrpt_jax.training.answers import PromptBatch
from mmrpt_jax.training.judging import in_groups
from mmrpt_jax.training.processes import ALONE, Share
from mmrpt_jax.training.supervised import hide_images


def make_visual_gain(
    config: VLMConfig,
    tokenizer: Tokenizer,
    *,
    of: Literal["truth", "answer"],
    lengths: Sequence[int],
    cap: float,
    share: Share = ALONE,
) -> Callable[[Any, PromptBatch, list[str]], list[float]]:
    """Builds `gain(params, batch, completions) -> B·G gains in [0, 1]`.

    "truth" scores the true span behind each sampled thought, against the blind model without thought; "answer"
    scores the sampled answer without a thought on either side, under parameters that should be frozen
    (`rewards.visual_gain` says why). A malformed completion gains 0; so does one that, spelled anew, takes more
    tokens than the largest of `lengths`. Completions are those of the process's `share` of the batch.

    Raises:
        ValueError: unknown `of`.
    """
    if of not in ("truth", "answer"):
        raise ValueError(f"visual gain is of the 'truth' or of the 'answer', not {of!r}")

    @jax.jit
    def compare(params, images, prompt, seeing: BranchTokens, blind: BranchTokens, masks):
        hidden = hide_images(prompt, jnp.ones(prompt.ids.shape[0], bool))
        with_image = forward(config, params, images, prompt, seeing).logprobs
        without_image = forward(config, params, images, hidden, blind).logprobs
        # A thought shifts the span; means over the span need no alignment.
        seen, unseen = (
            jnp.sum(jnp.where(mask, logprobs, 0.0), -1, keepdims=True)
            / jnp.maximum(mask.sum(-1, keepdims=True), 1)
            for mask, logprobs in zip(masks, (with_image, without_image), strict=True)
        )
        return visual_gain(seen, unseen, jnp.ones(seen.shape, bool), cap=cap)

    def gain(params, batch: PromptBatch, completions: list[str]) -> list[float]:
        group = len(completions) // len(batch.texts)
        parsed = [parse_completion(text) for text in completions]
        truths = [answer for answer in batch.columns["answer"] for _ in range(group)]
        spans = truths if of == "truth" else [p.answer for p in parsed]
        thoughts = [p.think if of == "truth" else "" for p in parsed]
        seeing = [completion(think, span) for think, span in zip(thoughts, spans, strict=True)]
        blind = [completion("", span) for span in spans]
        fits = [len(tokenizer.encode(text).ids) <= max(lengths) for text in seeing]
        scored = [p.well_formed and fit for p, fit in zip(parsed, fits, strict=True)]

        def grouped(texts: list[str]) -> list[list[str]]:
            kept = [text if keep else completion("", "") for text, keep in zip(texts, scored, strict=True)]
            return in_groups(kept, group)

        texts = grouped(seeing), grouped(blind)
        branches = [encode_branches(tokenizer, groups, lengths=lengths) for groups in texts]
        masks = [
            answer_tokens(tokenizer, groups, tokens.ids.shape[-1])
            for groups, tokens in zip(texts, branches, strict=True)
        ]
        told = share.place((*branches, masks))
        gains = share.read(compare(params, batch.images, batch.prompt, *told)).reshape(-1)
        return [float(value) if keep else 0.0 for value, keep in zip(gains, scored, strict=True)]

    return gain


def answer_tokens(
    tokenizer: Tokenizer, groups: Sequence[Sequence[str]], length: int
) -> Bool[np.ndarray, "B G R"]:
    """The tokens of completions that hold any of the text between `<answer>` and `</answer>`.

    Told by characters: to most vocabularies a tag is several tokens, and the last of them may hold the first word.
    """
    inside = np.zeros((len(groups), len(groups[0]), length), bool)
    for row, texts in zip(inside, groups, strict=True):
        for tokens, text in zip(row, texts, strict=True):
            start, end = text.rfind(ANSWER) + len(ANSWER), text.rfind(END_ANSWER)
            offsets = np.array(tokenizer.encode(text).offsets, int).reshape(-1, 2)
            tokens[: len(offsets)] = (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return inside
