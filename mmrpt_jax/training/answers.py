"""Groups of answers to learn from: rollout on the devices, rewards and advantages on the host."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8

from mmrpt_jax.data.tokenizer import Tokenizer
from mmrpt_jax.models.packing import pack_lengths
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.rewards import RewardFn, RewardTable
from mmrpt_jax.sampling import Rollout
from mmrpt_jax.training.judging import (
    Advantage,
    Judgement,
    compare_groups,
    in_groups,
    per_member,
    reward_groups,
    take_groups,
    telling_groups,
)
from mmrpt_jax.training.parts import join_rows, sample_and_reward
from mmrpt_jax.training.policy import PolicyBatch
from mmrpt_jax.training.processes import ALONE, Share, fetch


class PromptBatch(NamedTuple):
    """Prompts to answer, and what is known of them on the host.

    Attributes:
        images: what the policy sees.
        prompt: token ids.
        texts: the prompts as text.
        columns: further fields for the rewards, B entries each; `answer` is the hidden span.
    """

    images: UInt8[Array, "B C h w 3"]
    prompt: PromptTokens
    texts: list[str]
    columns: dict[str, list[Any]]


class JudgedAnswers(NamedTuple):
    """Answers with what they earned; everything about one step that is worth writing down.

    Texts and columns are those of the process's own prompts, arrays are of all.

    Attributes:
        batch: the prompts.
        completions: B groups of G texts.
        judgement: what all completions earned, those of other processes included.
        own: what `completions` earned.
        rollout: the sampled tokens.
    """

    batch: PromptBatch
    completions: list[list[str]]
    judgement: Judgement
    own: Judgement
    rollout: Rollout


@dataclasses.dataclass(frozen=True)
class Answering:
    """What it is made of; each is a plain callable.

    Attributes:
        rollout: (params, images, prompt, key) -> Rollout, compiled.
        rewards: name -> (reward, weight).
        advantage: compares the answers of a group.
        tokenizer: decodes completions.
        group_size: G.
        rollout_parts: in how many a batch is sampled; each is rewarded while the next is sampled (see `parts`).
        more_columns: (params, batch, completions) -> further reward columns of B·G entries, computed on the devices.
        ref_logprobs: (images, prompt, branches, packing) -> [B G R] under the reference, or None without a KL term.
        train_on_truncated: whether completions without an end token are in the loss (they are always in the baseline).
        keep: how many groups are learned from, at most as many as prompts are given; all of them if None. Groups whose
            answers teach nothing are passed over where there are others.
        packed_lengths: what the length of a row may be that all answers of a group share in updates; of each there is a
            program. Where one group is too long for all of them, every answer of the batch has a row of its own.
        drop_zero_variance: whether such groups leave the loss and its normaliser; their advantage is 0 either way.
        on_judged: called with the step and what was judged.
        share: what this process has of batches; completions are decoded and rewarded where they are.
    """

    rollout: Callable[..., Rollout]
    rewards: Mapping[str, tuple[RewardFn, float]]
    advantage: Advantage
    tokenizer: Tokenizer
    group_size: int
    rollout_parts: int = 1
    more_columns: Callable[[Any, PromptBatch, list[str]], dict[str, list[Any]]] = (
        lambda params, batch, completions: {}
    )
    ref_logprobs: Callable[..., Float[Array, "B G R"]] | None = None
    train_on_truncated: bool = True
    keep: int | None = None
    packed_lengths: Sequence[int] = ()
    drop_zero_variance: bool = False
    on_judged: Callable[[int, JudgedAnswers], None] = lambda step, judged: None
    share: Share = ALONE


def collect_answers(
    answering: Answering, params, batch: PromptBatch, key, step: int
) -> tuple[PolicyBatch, dict[str, float]]:
    """Samples and judges groups of answers: a `reinforce.Collector`, once it is told how."""
    judged = judge(answering, params, batch, key)
    answering.on_judged(step, judged)
    learned = _learned(answering, judged)
    lengths = np.where(learned.trained, fetch(learned.branches.valid).sum(axis=-1), 0)
    # Longer than all answers in rows of their own, a row would save nothing.
    shorter = [
        length for length in answering.packed_lengths if length < math.prod(learned.branches.ids.shape[1:])
    ]
    learned = learned._replace(packing=pack_lengths(lengths, shorter))
    if answering.ref_logprobs is not None:
        inputs = (learned.images, learned.prompt, learned.branches, learned.packing)
        learned = learned._replace(ref_logprobs=answering.ref_logprobs(*inputs))
    return learned, _summary(judged) | {"padded_share": _padded_share(learned, int(lengths.sum()))}


def judge(answering: Answering, params, batch: PromptBatch, key) -> JudgedAnswers:
    """Samples, decodes and rewards the answers, part by part, and compares those of every group."""

    def sample(part: PromptBatch, part_key) -> Rollout:
        return answering.rollout(params, part.images, part.prompt, part_key)

    rollouts, earned = sample_and_reward(
        sample,
        functools.partial(_read, answering, params),
        functools.partial(_reward, answering),
        batch,
        key,
        parts=answering.rollout_parts,
    )
    completions, table = join_rows(earned)
    judgement = compare_groups(answering.rewards, answering.advantage, table, share=answering.share)
    own = judgement.of(answering.share.rows(len(judgement.advantages)))
    return JudgedAnswers(batch, completions, judgement, own, join_rows(rollouts))


def _read(
    answering: Answering, params, batch: PromptBatch, rollout: Rollout
) -> tuple[list[str], dict[str, list[Any]]]:
    """Completions, and the columns that their rewards read; waits for the devices."""
    sampled = answering.share.read((rollout.ids, rollout.valid))
    ids, valid = (array.reshape(-1, array.shape[-1]) for array in sampled)
    completions = [answering.tokenizer.decode(row[keep]) for row, keep in zip(ids, valid, strict=True)]
    columns = {name: per_member(values, answering.group_size) for name, values in batch.columns.items()}
    columns["completion_ids"] = [row[keep].tolist() for row, keep in zip(ids, valid, strict=True)]
    return completions, columns | answering.more_columns(params, batch, completions)


def _reward(
    answering: Answering, batch: PromptBatch, seen: tuple[list[str], dict[str, list[Any]]]
) -> tuple[list[list[str]], RewardTable]:
    """Completions in their groups, and what they earned."""
    completions, columns = seen
    table = reward_groups(
        answering.rewards,
        prompts=batch.texts,
        completions=completions,
        columns=columns,
        share=answering.share,
    )
    return in_groups(completions, answering.group_size), table


def _learned(answering: Answering, judged: JudgedAnswers) -> PolicyBatch:
    batch, judgement, rollout = judged.batch, judged.judgement, judged.rollout
    trained = judgement.table.scorable
    if not answering.train_on_truncated:
        trained = trained & ~fetch(rollout.truncated)
    if answering.drop_zero_variance:
        trained = trained & ~judgement.zero_variance[:, None]
    prompt = (batch.images, batch.prompt, BranchTokens(rollout.ids, rollout.valid))
    everything = PolicyBatch(*prompt, rollout.logprobs, judgement.advantages, trained)
    return take_groups(everything, telling_groups(judgement, answering.keep))


def _padded_share(batch: PolicyBatch, trained: int) -> float:
    """Share of an update's tokens that are padding, or of answers left out of the loss: all but the `trained` ones."""
    rows = batch.branches.ids if batch.packing is None else batch.packing.branch
    computed = batch.prompt.ids.size + rows.size
    return 1.0 - float(fetch(batch.prompt.valid).sum() + trained) / computed


def _summary(judged: JudgedAnswers) -> dict[str, float]:
    truncated, valid = fetch((judged.rollout.truncated, judged.rollout.valid))
    return judged.judgement.metrics() | {
        "truncated_share": float(np.mean(truncated)),
        "unparsed_share": float(np.mean(~judged.judgement.table.passed)),
        "tokens_per_completion": float(np.mean(np.sum(valid, axis=-1))),
    }
