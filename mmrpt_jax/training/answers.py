"""Groups of answers to learn from: rollout on the devices, rewards and advantages on the host."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mmrpt_jax.data.tokenizer import Tokenizer
from mmrpt_jax.models.packing import pack_rows
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.rewards import RewardFn
from mmrpt_jax.sampling import Rollout
from mmrpt_jax.training.judging import (
    Advantage,
    Judgement,
    judge_groups,
    per_member,
    take_groups,
    telling_groups,
)
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
        completions: B·G texts, group by group.
        judgement: what all completions earned, those of other processes included.
        own: what `completions` earned.
        rollout: the sampled tokens.
    """

    batch: PromptBatch
    completions: list[str]
    judgement: Judgement
    own: Judgement
    rollout: Rollout


@dataclasses.dataclass(frozen=True)
class Answering:
    """The parts of it; each is a plain callable.

    Attributes:
        rollout: (params, images, prompt, key) -> Rollout, compiled.
        rewards: name -> (reward, weight).
        advantage: compares the answers of a group.
        tokenizer: decodes completions.
        group_size: G.
        more_columns: (params, batch, completions) -> further reward columns of B·G entries, computed on the devices.
        ref_logprobs: (images, prompt, branches) -> [B G R] under the reference, or None without a KL term.
        train_on_truncated: whether completions without an end token are in the loss (they are always in the baseline).
        keep: how many groups are learned from, at most as many as prompts are given; all of them if None. Groups whose
            answers teach nothing are passed over where there are others.
        rows: how many rows of an update a group's answers may be packed into, shorter ones together; of each number
            there is a program. A group that does not fit has a row for every answer.
        drop_zero_variance: whether such groups leave the loss and its normaliser; their advantage is 0 either way.
        on_judged: called with the step and what was judged.
        share: what this process has of batches; completions are decoded and rewarded where they are.
    """

    rollout: Callable[..., Rollout]
    rewards: Mapping[str, tuple[RewardFn, float]]
    advantage: Advantage
    tokenizer: Tokenizer
    group_size: int
    more_columns: Callable[[Any, PromptBatch, list[str]], dict[str, list[Any]]] = (
        lambda params, batch, completions: {}
    )
    ref_logprobs: Callable[..., Float[Array, "B G R"]] | None = None
    train_on_truncated: bool = True
    keep: int | None = None
    rows: Sequence[int] = ()
    drop_zero_variance: bool = False
    on_judged: Callable[[int, JudgedAnswers], None] = lambda step, judged: None
    share: Share = ALONE


def collect_answers(
    parts: Answering, params, batch: PromptBatch, key, step: int
) -> tuple[PolicyBatch, dict[str, float]]:
    """Samples and judges groups of answers: a `reinforce.Collector`, once its parts are given."""
    judged = judge(parts, params, batch, parts.rollout(params, batch.images, batch.prompt, key))
    parts.on_judged(step, judged)
    batch = _policy_batch(parts, judged)
    return batch, _summary(judged) | {"padded_share": _padded_share(batch)}


def judge(parts: Answering, params, batch: PromptBatch, rollout: Rollout) -> JudgedAnswers:
    """Decodes, rewards and compares the answers of every group."""
    sampled = parts.share.read((rollout.ids, rollout.valid))
    ids, valid = (array.reshape(-1, array.shape[-1]) for array in sampled)
    completions = [parts.tokenizer.decode(row[keep]) for row, keep in zip(ids, valid, strict=True)]
    columns = {name: per_member(values, parts.group_size) for name, values in batch.columns.items()}
    columns["completion_ids"] = [row[keep].tolist() for row, keep in zip(ids, valid, strict=True)]
    columns |= parts.more_columns(params, batch, completions)
    judgement = judge_groups(
        parts.rewards,
        parts.advantage,
        prompts=batch.texts,
        completions=completions,
        columns=columns,
        share=parts.share,
    )
    own = judgement.of(parts.share.rows(len(judgement.advantages)))
    return JudgedAnswers(batch, completions, judgement, own, rollout)


def _policy_batch(parts: Answering, judged: JudgedAnswers) -> PolicyBatch:
    batch, judgement, rollout = judged.batch, judged.judgement, judged.rollout
    trained = judgement.scorable
    if not parts.train_on_truncated:
        trained = trained & ~fetch(rollout.truncated)
    if parts.drop_zero_variance:
        trained = trained & ~judgement.zero_variance[:, None]
    prompt = (batch.images, batch.prompt, BranchTokens(rollout.ids, rollout.valid))
    everything = PolicyBatch(*prompt, rollout.logprobs, judgement.advantages, trained)
    learned = take_groups(everything, telling_groups(judgement, parts.keep))
    if parts.rows:
        length = learned.branches.ids.shape[2]
        learned = learned._replace(packing=pack_rows(_trained_lengths(learned), length, parts.rows))
    if parts.ref_logprobs is None:
        return learned
    inputs = (learned.images, learned.prompt, learned.branches, learned.packing)
    return learned._replace(ref_logprobs=parts.ref_logprobs(*inputs))


def _trained_lengths(batch: PolicyBatch) -> Int[np.ndarray, "B G"]:
    """Tokens of each answer that is learned from; of the others, 0."""
    return np.where(batch.trained, fetch(batch.branches.valid).sum(axis=-1), 0)


def _padded_share(batch: PolicyBatch) -> float:
    """Share of what an update computes that teaches nothing: padding, and answers that are left out."""
    rows = batch.branches.ids if batch.packing is None else batch.packing
    computed = batch.prompt.ids.size + rows.size
    return 1.0 - float(fetch(batch.prompt.valid).sum() + _trained_lengths(batch).sum()) / computed


def _summary(judged: JudgedAnswers) -> dict[str, float]:
    truncated, valid = fetch((judged.rollout.truncated, judged.rollout.valid))
    return judged.judgement.metrics() | {
        "truncated_share": float(np.mean(truncated)),
        "unparsed_share": float(np.mean(~judged.judgement.table.passed)),
        "tokens_per_completion": float(np.mean(np.sum(valid, axis=-1))),
    }
