"""Groups of images to learn from: rollout on the devices, rewards and advantages on the host."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mmrpt_jax.rewards import RewardFn, RewardTable
from mmrpt_jax.sampling import Conditions, ImageRollout
from mmrpt_jax.training.image_policy import DrawnBatch
from mmrpt_jax.training.judging import (
    Advantage,
    Judgement,
    compare_groups,
    per_member,
    reward_groups,
    take_groups,
    telling_groups,
)
from mmrpt_jax.training.parts import join_rows, sample_and_reward
from mmrpt_jax.training.processes import ALONE, Share


class DrawingPrompts(NamedTuple):
    """Prompts to draw, and what is known of them on the host.

    Attributes:
        conditions: what the policy sees.
        texts: the prompts as text.
        columns: further fields for the rewards, B entries each.
        seeds: [B] of noise in the update.
    """

    conditions: Conditions
    texts: list[str]
    columns: dict[str, list[Any]]
    seeds: Int[Array, " B"]


class JudgedImages(NamedTuple):
    """Images with what they earned; everything about one step that is worth keeping.

    Texts, columns and images are those of the process's own prompts, other arrays are of all.

    Attributes:
        batch: the prompts.
        images: group by group.
        judgement: what all images earned, those of other processes included.
        own: what `images` earned.
        rollout: as sampled.
    """

    batch: DrawingPrompts
    images: UInt8[np.ndarray, "B G h w 3"]
    judgement: Judgement
    own: Judgement
    rollout: ImageRollout


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What it is made of; each is a plain callable.

    Attributes:
        rollout: (params, conditions, key) -> ImageRollout, compiled.
        decode: [B G I C] latents -> [B G h w 3] images, compiled.
        rewards: name -> (reward, weight); rewards read the column `images`, and have no completions to read.
        advantage: compares the images of a group.
        group_size: G.
        rollout_parts: as in `answers.Answering`.
        more_columns: (params, batch, images) -> further reward columns of B·G entries, computed on the devices.
        ref_velocity: (conditions, rollout, seeds) -> `DrawnBatch.ref_velocity`, or None where the loss needs none.
        behaviour_velocity: (params, conditions, rollout, seeds) -> `DrawnBatch.behaviour_velocity`, or None where the
            loss takes the present policy for it.
        keep: as in `answers.Answering`.
        drop_zero_variance: whether groups that teach nothing leave the loss and its normaliser.
        on_judged: called with the step and what was judged.
        share: what this process has of batches; images are rewarded where they are.
    """

    rollout: Callable[..., ImageRollout]
    decode: Callable[[Float[Array, "B G I C"]], UInt8[Array, "B G h w 3"]]
    rewards: Mapping[str, tuple[RewardFn, float]]
    advantage: Advantage
    group_size: int
    rollout_parts: int = 1
    more_columns: Callable[[Any, DrawingPrompts, UInt8[np.ndarray, "N h w 3"]], dict[str, list[Any]]] = (
        lambda params, batch, images: {}
    )
    ref_velocity: Callable[..., Array] | None = None
    behaviour_velocity: Callable[..., Array] | None = None
    keep: int | None = None
    drop_zero_variance: bool = True
    on_judged: Callable[[int, JudgedImages], None] = lambda step, judged: None
    share: Share = ALONE


def collect_drawings(
    drawing: Drawing, params, batch: DrawingPrompts, key, step: int
) -> tuple[DrawnBatch, dict[str, float]]:
    """Draws and judges groups of images: a `reinforce.Collector`, once it is told how."""
    judged = judge_images(drawing, params, batch, key)
    drawing.on_judged(step, judged)
    rollout, judgement = judged.rollout, judged.judgement
    trained = judgement.table.scorable
    if drawing.drop_zero_variance:
        trained = trained & ~judgement.zero_variance[:, None]
    everything = DrawnBatch(
        batch.conditions, rollout, judgement.table.total, judgement.advantages, trained, batch.seeds
    )
    learned = take_groups(everything, telling_groups(judgement, drawing.keep))
    seen = (learned.conditions, learned.rollout, learned.seeds)
    if drawing.ref_velocity is not None:
        learned = learned._replace(ref_velocity=drawing.ref_velocity(*seen))
    if drawing.behaviour_velocity is not None:
        learned = learned._replace(behaviour_velocity=drawing.behaviour_velocity(params, *seen))
    return learned, judgement.metrics() | _learned_from(judgement)


def judge_images(drawing: Drawing, params, batch: DrawingPrompts, key) -> JudgedImages:
    """Draws, decodes and rewards the images, part by part, and compares those of every group."""

    def sample(part: DrawingPrompts, part_key) -> tuple[ImageRollout, Array]:
        rollout = drawing.rollout(params, part.conditions, part_key)
        return rollout, drawing.decode(rollout.latents)

    sampled, earned = sample_and_reward(
        sample,
        functools.partial(_read, drawing, params),
        functools.partial(_reward, drawing),
        batch,
        key,
        parts=drawing.rollout_parts,
    )
    images, table = join_rows(earned)
    judgement = compare_groups(drawing.rewards, drawing.advantage, table, share=drawing.share)
    own = judgement.of(drawing.share.rows(len(judgement.advantages)))
    return JudgedImages(batch, images, judgement, own, join_rows([rollout for rollout, _ in sampled]))


def _read(
    drawing: Drawing, params, batch: DrawingPrompts, sampled: tuple[ImageRollout, Array]
) -> tuple[UInt8[np.ndarray, "B G h w 3"], dict[str, list[Any]]]:
    """Images, and the columns that their rewards read; waits for the devices."""
    images = drawing.share.read(sampled[1])
    members = images.reshape(-1, *images.shape[2:])
    columns = {name: per_member(values, drawing.group_size) for name, values in batch.columns.items()}
    return images, columns | {"images": list(members)} | drawing.more_columns(params, batch, members)


def _reward(
    drawing: Drawing,
    batch: DrawingPrompts,
    seen: tuple[UInt8[np.ndarray, "B G h w 3"], dict[str, list[Any]]],
) -> tuple[UInt8[np.ndarray, "B G h w 3"], RewardTable]:
    """Images, and what they earned."""
    images, columns = seen
    table = reward_groups(
        drawing.rewards,
        prompts=batch.texts,
        completions=[""] * len(columns["images"]),
        columns=columns,
        gate=None,
        share=drawing.share,
    )
    return images, table


def _learned_from(judgement: Judgement) -> dict[str, float]:
    """Spread of every reward, and its correlation with the advantage: which of them is learned from?"""
    found = {}
    for name, part in judgement.table.parts.items():
        known = ~np.isnan(part)
        if known.any():
            found[f"reward_std/{name}"] = float(part[known].std())
            found[f"reward_advantage/{name}"] = _correlation(part[known], judgement.advantages[known])
    return found


def _correlation(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> float:
    """Pearson's; 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norms = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norms) if norms > 0 else 0.0
