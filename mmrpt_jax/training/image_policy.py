"""Losses of a policy that draws, all on the same groups of drawn images.

grpo      clipped ratios of the densities of the sampler's steps (Flow-GRPO, DanceGRPO)
nft       no densities: good images attract, bad ones repel, at fresh noise (DiffusionNFT)
dpo       the best of a group is to be preferred to the worst (Diffusion-DPO)
rwr       imitation of all images, weighed by softmax(reward / temperature)
best_of   imitation of the best image of a group
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.objectives import (
    best_of_group_weights,
    flow_dpo_loss,
    flow_kl,
    flow_matching_errors,
    flow_matching_loss,
    flow_policy_loss,
    interpolate,
    logit_normal_times,
    nft_loss,
    preference_pairs,
    reward_weights,
)
from mmrpt_jax.sampling import Conditions, FlowSampler, ImageRollout, make_field, make_image_scorer
from mmrpt_jax.training.accumulate import LossFn


class DrawnBatch(NamedTuple):
    """Groups of images to learn from.

    Attributes:
        conditions: what they were drawn from.
        rollout: as sampled.
        rewards: [B G] totals.
        advantages: [B G].
        trained: [B G], False for images left out of the loss (unscorable, zero-variance group).
        seeds: [B] of fresh noise; the noise of a row depends on its own seed alone.
        behaviour_velocity: [B G I C] at fresh noise, of the policy that sampled, for nft; None takes the present policy
            for it, which it is until the first update.
        ref_velocity: of the reference; [B G K I C] at the sampled steps for grpo, [B G I C] at fresh noise for the
            others; None without a KL term.
    """

    conditions: Conditions
    rollout: ImageRollout
    rewards: Float[Array, "B G"]
    advantages: Float[Array, "B G"]
    trained: Bool[Array, "B G"]
    seeds: Int[Array, " B"]
    behaviour_velocity: Float[Array, "B G I C"] | None = None
    ref_velocity: Float[Array, "B G *K I C"] | None = None


class Noised(NamedTuple):
    """Images at fresh noise, `looks` times each, one look after the other.

    All images of a group share the times and noises, so that they differ in nothing else: what is common to them falls
    out of the comparison. (DiffusionNFT draws a time for each image.)

    Attributes:
        latents: x_t, [B G·looks I C].
        times: [B G·looks].
        clean: x_0.
        noise: ε.
    """

    latents: Float[Array, "B N I C"]
    times: Float[Array, "B N"]
    clean: Float[Array, "B N I C"]
    noise: Float[Array, "B N I C"]


def noise_anew(
    clean: Float[Array, "B G I C"], seeds: Int[Array, " B"], *, shift: float, looks: int = 1
) -> Noised:
    """Draws `looks` times and noises per row, from its seed, and brings its images to each of them."""

    def of_row(seed):
        for_times, for_noise = jax.random.split(jax.random.key(seed))
        noise = jax.random.normal(for_noise, (looks, *clean.shape[2:]))
        return logit_normal_times(for_times, (looks,), shift=shift), noise

    times, noise = jax.vmap(of_row)(seeds)
    times, noise = (jnp.tile(x, (1, clean.shape[1], *[1] * (x.ndim - 2))) for x in (times, noise))
    clean = jnp.repeat(clean, looks, axis=1)
    return Noised(interpolate(clean, noise, times), times, clean, noise)


def make_fresh_look(
    config: UnifiedConfig, sampler: FlowSampler, *, looks: int = 1
) -> Callable[..., tuple[Noised, Array]]:
    """Builds `look(params, conditions, clean, seeds) -> (Noised, velocity)`: a policy's view of images, noised anew."""

    def look(params, conditions: Conditions, clean: Float[Array, "B G I C"], seeds: Int[Array, " B"]):
        at = noise_anew(clean, seeds, shift=sampler.shift, looks=looks)
        field = make_field(config, params, conditions, sampler.guidance, repeats=looks)
        return at, field(at.latents, at.times)

    return look


def make_grpo_loss(
    config: UnifiedConfig, sampler: FlowSampler, *, kl: str = "none", reduce: str = "mean", **options: Any
) -> LossFn:
    """Builds `loss(params, batch) -> (sum, (count, metrics))`: `objectives.flow_policy_loss` over steps of images.

    Args:
        config: the model.
        sampler: that of the rollout.
        kl: "none", or a kind of `objectives.flow_kl`.
        reduce: of the KL over dimensions.
        **options: `clip_low`, `clip_high`, `max_advantage`, `kl_coefficient`.

    Raises:
        ValueError: the sampler adds no noise.
    """
    if not sampler.noisy_steps[1] or not sampler.noise_level:
        raise ValueError(
            "grpo learns from densities, which only steps with noise have: take an SDE with a noise level"
        )
    score = make_image_scorer(config, sampler)

    def loss(params, batch: DrawnBatch):
        rollout = _blanked(batch)
        found = score(params, batch.conditions, rollout)
        mask = jnp.broadcast_to(batch.trained[..., None], found.logprobs.shape)
        penalty = None
        if kl != "none":
            times, levels = rollout.times[:, None], rollout.noise_levels[:, None]
            steps = (times[..., :-1], times[..., 1:], levels)
            penalty = flow_kl(found.velocity, _reference(batch), *steps, mask, kind=kl, reduce=reduce)
        total, count, metrics = flow_policy_loss(
            found.logprobs, rollout.logprobs, batch.advantages, mask, kl=penalty, **options
        )
        gap = jnp.sum(jnp.where(mask, jnp.abs(found.logprobs - rollout.logprobs), 0.0))
        return total, (count, metrics | {"sampler_gap": (gap, jnp.sum(mask, dtype=jnp.float32))})

    return loss


def make_nft_loss(
    config: UnifiedConfig, sampler: FlowSampler, *, kl: str = "none", looks: int = 1, **options: Any
) -> LossFn:
    """Builds the loss of DiffusionNFT.

    Args:
        config: the model.
        sampler: that of the rollout.
        kl: "none" or "velocity".
        looks: noise levels that each image is learned from at; they share its prompt, so that more cost little.
        **options: of `objectives.nft_loss`.

    Raises:
        ValueError: another kind of KL.
    """
    if kl not in ("none", "velocity"):
        raise ValueError(f"kl of nft is {kl!r}; without the sampler's steps it must be 'none' or 'velocity'")
    look = make_fresh_look(config, sampler, looks=looks)

    def loss(params, batch: DrawnBatch):
        at, found = look(params, batch.conditions, _blanked(batch).latents, batch.seeds)
        advantages, trained = (jnp.repeat(x, looks, axis=1) for x in (batch.advantages, batch.trained))
        old = found if batch.behaviour_velocity is None else batch.behaviour_velocity
        penalty = None
        if kl != "none":
            # Of the times, this kind looks at none.
            penalty = flow_kl(found, _reference(batch), *[at.times] * 3, trained, kind="velocity")
        total, count, metrics = nft_loss(
            found, old, at.latents, at.clean, at.times, advantages, trained, kl=penalty, **options
        )
        return total, (count, metrics)

    return loss


def make_dpo_loss(config: UnifiedConfig, sampler: FlowSampler, *, beta: float) -> LossFn:
    """Builds the preference loss of each group's best and worst image: `objectives.flow_dpo_loss`."""
    look = make_fresh_look(config, sampler)

    def loss(params, batch: DrawnBatch):
        pairs = preference_pairs(batch.rewards, valid=batch.trained)
        members = jnp.stack([pairs.winner, pairs.loser], axis=1)

        def of_pairs(values: Float[Array, "B G *E"]) -> Float[Array, "B 2 *E"]:
            return jax.vmap(lambda group, places: group[places])(values, members)

        # The other images of the group need not be run.
        thoughts = jax.tree.map(of_pairs, batch.conditions.thoughts)
        clean = of_pairs(_blanked(batch).latents)
        at, found = look(params, batch.conditions._replace(thoughts=thoughts), clean, batch.seeds)
        errors, ref_errors = (
            flow_matching_errors(velocity, at.clean, at.noise)
            for velocity in (found, of_pairs(_reference(batch)))
        )
        total, count, metrics = flow_dpo_loss(*errors.T, *ref_errors.T, pairs.mask, beta=beta)
        return total, (count, metrics)

    return loss


def make_imitation_loss(
    config: UnifiedConfig,
    sampler: FlowSampler,
    *,
    weights: Callable[..., Float[Array, "B G"]],
    looks: int = 1,
) -> LossFn:
    """Builds the flow matching loss on the policy's own images, weighed by what they earned.

    Args:
        config: the model.
        sampler: that of the rollout.
        weights: (rewards, valid=) -> weights, 0 where not valid.
        looks: as in `make_nft_loss`.
    """
    look = make_fresh_look(config, sampler, looks=looks)

    def loss(params, batch: DrawnBatch):
        at, found = look(params, batch.conditions, _blanked(batch).latents, batch.seeds)
        shares = weights(batch.rewards, valid=batch.trained)
        shares, trained = (jnp.repeat(x, looks, axis=1) for x in (shares, batch.trained))
        total, count = flow_matching_loss(found, at.clean, at.noise, trained, weights=shares)
        return total, (count, {})

    return loss


def make_rwr_loss(
    config: UnifiedConfig, sampler: FlowSampler, *, temperature: float, looks: int = 1
) -> LossFn:
    """Imitation weighed by `objectives.reward_weights`."""
    weights = functools.partial(reward_weights, temperature=temperature)
    return make_imitation_loss(config, sampler, weights=weights, looks=looks)


def make_best_of_loss(config: UnifiedConfig, sampler: FlowSampler, *, looks: int = 1) -> LossFn:
    """Imitation of each group's best image."""
    return make_imitation_loss(config, sampler, weights=best_of_group_weights, looks=looks)


IMAGE_LOSSES: Mapping[str, Callable[..., LossFn]] = MappingProxyType(
    {
        "grpo": make_grpo_loss,
        "nft": make_nft_loss,
        "dpo": make_dpo_loss,
        "rwr": make_rwr_loss,
        "best_of": make_best_of_loss,
    }
)


def make_policy_velocity(
    config: UnifiedConfig, sampler: FlowSampler, *, algorithm: str, looks: int = 1
) -> Callable[..., Array]:
    """Builds `velocity(params, conditions, rollout, seeds)`: of the reference, or of the policy that sampled.

    It is what `DrawnBatch` holds of either, where `algorithm` looks at images.
    """
    if algorithm == "grpo":
        score = make_image_scorer(config, sampler)
        return lambda params, conditions, rollout, seeds: score(params, conditions, rollout).velocity

    look = make_fresh_look(config, sampler, looks=looks)
    return lambda params, conditions, rollout, seeds: look(params, conditions, rollout.latents, seeds)[1]


def _blanked(batch: DrawnBatch) -> ImageRollout:
    """The rollout, with zeros for images that are left out.

    Masks come too late for them: run through the model, a NaN is in the gradient even at weight 0.
    """

    def blank(values):
        return jnp.where(batch.trained.reshape(batch.trained.shape + (1,) * (values.ndim - 2)), values, 0.0)

    rollout = batch.rollout
    return rollout._replace(latents=blank(rollout.latents), path=blank(rollout.path))


def _reference(batch: DrawnBatch) -> Array:
    if batch.ref_velocity is None:
        raise ValueError(
            "the loss measures against a reference: give the batch `ref_velocity`, as of make_policy_velocity"
        )
    return batch.ref_velocity
