"""Groups of images: G branches of latents, carried from noise to data behind one computed prompt."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.objectives import (
    constant_level,
    flow_sde_level,
    flow_transition,
    sample_transition,
    timesteps,
    transition_logprobs,
)
from mmrpt_jax.sampling.field import Conditions, Field, make_field
from mmrpt_jax.sampling.guidance import UNGUIDED, Guidance

# (step, mean, std) -> the next latents
Draw = Callable[[Int[Array, ""], Float[Array, "B G I C"], Float[Array, "B G"]], Float[Array, "B G I C"]]


@dataclasses.dataclass(frozen=True)
class FlowSampler:
    """What makes a flow a policy: sampler and scorer must be built from the same one.

    Attributes:
        steps: from noise to data.
        shift: of the times towards the noise, as in `objectives.timesteps`.
        kind: "ode" adds no noise, "flow_sde" noise of level a·√(t/(1−t)) (Flow-GRPO), "constant_sde" of one level
            (DanceGRPO).
        noise_level: a, or the one level, ≥ 0.
        window: (start, stop); noise only in the steps start ≤ i < stop, which have a density, and Euler's steps
            elsewhere (MixGRPO, Flow-GRPO-Fast). None means all steps of an SDE.
        reduce: log densities are the "mean" or the "sum" over the dimensions of an image.
        guidance: part of the policy, in sampling as in scoring.
    """

    steps: int
    shift: float = 1.0
    kind: str = "flow_sde"
    noise_level: float = 0.7
    window: tuple[int, int] | None = None
    reduce: str = "mean"
    guidance: Guidance = UNGUIDED

    def __post_init__(self):
        if self.kind not in ("ode", "flow_sde", "constant_sde"):
            raise ValueError(f"sampler kind is {self.kind!r}; it must be 'ode', 'flow_sde' or 'constant_sde'")
        if self.kind == "ode":
            if self.window is not None:
                raise ValueError(f"window {self.window} asks for noise, and an ode has none: leave it out")
        elif self.window is not None and not 0 <= self.window[0] < self.window[1] <= self.steps:
            raise ValueError(
                f"window {self.window} must begin before it ends, within steps 0 to {self.steps}"
            )

    @property
    def noisy_steps(self) -> tuple[int, int]:
        """(start, K): the first step with noise, and how many there are."""
        start, stop = self.window or (0, 0 if self.kind == "ode" else self.steps)
        return start, stop - start

    def levels(self, times: Float[Array, " S"], start: Int[Array, ""] | int) -> Float[Array, " S-1"]:
        """Noise level of each step, 0 outside the window that begins at `start`."""
        step = jnp.arange(self.steps)
        if self.kind == "flow_sde":
            levels = flow_sde_level(times[:-1], second_time=times[1], scale=self.noise_level)
        else:
            levels = constant_level(times[:-1], level=self.noise_level)
        return jnp.where((step >= start) & (step < start + self.noisy_steps[1]), levels, 0.0)


class ImageRollout(NamedTuple):
    """Drawn groups. K steps have noise, and with it a density.

    Attributes:
        latents: [B G I C] of the finished images, packed.
        path: [B G K+1 I C] latents before the K steps, and behind the last.
        times: [B K+1] of the path, in [0, 1].
        noise_levels: [B K], > 0.
        logprobs: [B G K] log densities of the steps under the policy that drew them, nats, of either sign.
    """

    latents: Float[Array, "B G I C"]
    path: Float[Array, "B G K+1 I C"]
    times: Float[Array, "B K+1"]
    noise_levels: Float[Array, "B K"]
    logprobs: Float[Array, "B G K"]


class FlowScores(NamedTuple):
    """A policy's view of drawn steps: log densities [B G K], nats, and velocities [B G K I C] for `flow_kl`."""

    logprobs: Float[Array, "B G K"]
    velocity: Float[Array, "B G K I C"]


def make_image_rollout(
    config: UnifiedConfig, sampler: FlowSampler, *, group_size: int, same_noise: bool = False
) -> Callable[..., ImageRollout]:
    """Builds `rollout(params, conditions, key, window_start=None) -> ImageRollout`, to be jitted by the caller.

    Prompts are computed once per group; a step forwards latents only. Row b draws the noise that `key` has for row
    b, step by step: its images depend neither on the other rows nor on the mesh. `window_start` moves the window
    to other steps, of which it takes as many, without another compilation.

    Args:
        config: the model.
        sampler: the policy.
        group_size: G.
        same_noise: whether the images of a group begin with the same noise; noise on the way is always their own.
    """
    latent = config.latent
    first, noisy = sampler.noisy_steps

    def rollout(
        params, conditions: Conditions, key, window_start: Int[Array, ""] | None = None
    ) -> ImageRollout:
        thoughts = conditions.thoughts
        if thoughts is not None and thoughts.ids.shape[1] != group_size:
            raise ValueError(
                f"{thoughts.ids.shape[1]} thoughts per prompt cannot stand before {group_size} images"
            )
        field = make_field(config, params, conditions, sampler.guidance)
        batch = conditions.prompt.ids.shape[0]
        times = timesteps(steps=sampler.steps, shift=sampler.shift)
        start = first if window_start is None else jnp.clip(window_start, 0, sampler.steps - noisy)
        levels = sampler.levels(times, start)

        def draw(step, mean, std):
            return sample_transition(jax.random.fold_in(key, step + 1), mean, std) if noisy else mean

        shape = (batch, 1 if same_noise else group_size, latent.num_tokens, latent.features)
        noise = jax.random.normal(jax.random.fold_in(key, 0), shape)
        noise = jnp.broadcast_to(noise, (batch, group_size, *shape[2:]))
        drawn = integrate(field, noise, times, levels, draw, window=(start, noisy), reduce=sampler.reduce)

        def per_row(values, count):
            return jnp.broadcast_to(jax.lax.dynamic_slice_in_dim(values, start, count), (batch, count))

        return ImageRollout(*drawn[:2], per_row(times, noisy + 1), per_row(levels, noisy), drawn[2])

    return rollout


def make_image_scorer(config: UnifiedConfig, sampler: FlowSampler) -> Callable[..., FlowScores]:
    """Builds `score(params, conditions, rollout) -> FlowScores`, differentiable in `params`.

    All K steps of all images run at once, as G·K branches behind each prompt. What guidance steers away from is held
    constant, as in Flow-GRPO.

    Args:
        config: the model.
        sampler: that of the rollout.
    """

    def score(params, conditions: Conditions, rollout: ImageRollout) -> FlowScores:
        states, times = rollout.path[:, :, :-1], rollout.times[:, None]
        batch, group, noisy = states.shape[:3]
        field = make_field(config, params, conditions, sampler.guidance, repeats=noisy)
        now = jnp.broadcast_to(times[..., :-1], (batch, group, noisy))
        flat = field(states.reshape(batch, group * noisy, *states.shape[3:]), now.reshape(batch, -1))
        found = flat.reshape(states.shape)
        mean, std = flow_transition(states, found, now, times[..., 1:], rollout.noise_levels[:, None])
        logprobs = transition_logprobs(rollout.path[:, :, 1:], mean, std, reduce=sampler.reduce)
        return FlowScores(logprobs, found)

    return score


def integrate(
    field: Field,
    latents: Float[Array, "B G I C"],
    times: Float[Array, " S"],
    levels: Float[Array, " S-1"],
    draw: Draw,
    *,
    window: tuple[Int[Array, ""] | int, int],
    reduce: str = "mean",
) -> tuple[Float[Array, "B G I C"], Float[Array, "B G K+1 I C"], Float[Array, "B G K"]]:
    """Steps through the flow, S − 1 times, in one loop.

    Args:
        field: the velocity.
        latents: where the flow begins.
        times: falling from 1 to 0.
        levels: noise level of each step; at 0 the step is Euler's.
        draw: makes the next latents out of a step's mean and standard deviation.
        window: (start, K), the steps that are kept.
        reduce: of the log densities.

    Returns:
        The last latents, the path through the window, and the log densities of its steps, nats; 0 where there is
        no noise.
    """
    start, kept = window
    batch, group = latents.shape[:2]

    def slot(step):
        # What stands outside of the window goes to a place behind the last, and is lost.
        return jnp.where((step >= start) & (step <= start + kept), step - start, kept + 1)

    def advance(step, carry):
        x, path, logprobs = carry
        path = path.at[slot(step)].set(x, mode="drop")
        found = field(x, jnp.full((batch, group), times[step]))
        mean, std = flow_transition(x, found, times[step], times[step + 1], levels[step])
        x = draw(step, mean, std)
        density = transition_logprobs(x, mean, std, reduce=reduce)
        return x, path, logprobs.at[slot(step)].set(density, mode="drop")

    # The window ends with latents, which have no density of their own: the last place of those is cut off again.
    path, logprobs = jnp.zeros((kept + 1, *latents.shape)), jnp.zeros((kept + 1, batch, group))
    x, path, logprobs = jax.lax.fori_loop(0, times.shape[0] - 1, advance, (latents, path, logprobs))
    path = path.at[slot(times.shape[0] - 1)].set(x, mode="drop")
    return x, jnp.moveaxis(path, 0, 2), jnp.moveaxis(logprobs[:kept], 0, 2)
