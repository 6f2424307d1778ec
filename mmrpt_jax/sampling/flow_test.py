import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from jax.sharding import NamedSharding, PartitionSpec
from scipy.stats import norm

from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_test import CONFIG, make_inputs
from mmrpt_jax.models.vlm import VLM, PromptTokens
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.objectives import timesteps
from mmrpt_jax.sampling.field import Conditions, make_field
from mmrpt_jax.sampling.flow import FlowSampler, integrate, make_image_rollout, make_image_scorer
from mmrpt_jax.sampling.guidance import UNGUIDED, Guidance

B, G, I, F = 8, 3, CONFIG.latent.num_tokens, CONFIG.latent.features
# Four steps at t = 1, 0.9, 0.75, 0.5. Noise in the middle two, of which the first is guided.
GUIDANCE = Guidance(text=3.0, image=1.5, interval=(0.8, 1.0))
SAMPLER = FlowSampler(steps=4, shift=3.0, window=(1, 3), guidance=GUIDANCE)
TIMES = np.array([1.0, 0.9, 0.75, 0.5, 0.0])

behind = jax.jit(
    lambda params, latents, times, *prompt: velocity(
        CONFIG, params, encode_prompt(CONFIG, params, *prompt), latents, times
    )
)


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def conditions():
    """Eight prompts; two of them alike but for the noise."""
    images, prompt, *_ = make_inputs()
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (B, *images.shape[1:]), np.uint8)
    images[7] = images[5]
    prompt = jax.tree.map(lambda x: np.tile(x, (B // 2, 1)), prompt)
    ids, slots = np.full((B, 9), 2), np.broadcast_to(np.arange(9) > 0, (B, 9))
    textless = PromptTokens(ids, ids > 0, slots)
    imageless = PromptTokens(prompt.ids[:, :2], np.ones((B, 2), bool), np.zeros((B, 2), bool))
    return Conditions(prompt, images, None, textless, imageless)


@pytest.fixture(scope="module")
def sampler():
    return jax.jit(make_image_rollout(CONFIG, SAMPLER, group_size=G))


@pytest.fixture(scope="module")
def rollout(sampler, params, conditions):
    return jax.device_get(sampler(params, conditions, jax.random.key(0)))


@pytest.fixture(scope="module")
def scores(params, conditions, rollout):
    return jax.jit(make_image_scorer(CONFIG, SAMPLER))(params, conditions, rollout)


def moments(x, v, t, next_t, level):
    """Mean and standard deviation of a step, as Flow-GRPO writes them."""
    dt = next_t - t
    mean = x * (1 + level**2 / (2 * t) * dt) + v * (1 + level**2 * (1 - t) / (2 * t)) * dt
    return mean, level * np.sqrt(-dt)


def guided(params, conditions, latents, time):
    """The policy's velocity at one time, from three prompts by hand."""
    times = np.full(latents.shape[:2], time, np.float32)
    prompts = (conditions.prompt, conditions.images), (conditions.textless, conditions.images)
    plain, textless = (np.asarray(behind(params, latents, times, i, p)) for p, i in prompts)
    imageless = np.asarray(behind(params, latents, times, None, conditions.imageless))
    if not 0.8 < time <= 1.0:
        return plain
    mixed = textless + 3.0 * (plain - textless)
    mixed = imageless + 1.5 * (mixed - imageless)
    length = [np.sqrt((v**2).sum((-2, -1), keepdims=True)) for v in (plain, mixed)]
    return mixed * np.clip(length[0] / (length[1] + 1e-8), 0.0, 1.0)


def test_shapes_times_and_levels(rollout):
    assert rollout.latents.shape == (B, G, I, F)
    assert rollout.path.shape == (B, G, 3, I, F)
    assert rollout.logprobs.shape == (B, G, 2)
    np.testing.assert_allclose(rollout.times, np.broadcast_to(TIMES[1:4], (B, 3)), rtol=1e-6)
    levels = 0.7 * np.sqrt(TIMES[1:3] / (1 - TIMES[1:3]))
    np.testing.assert_allclose(rollout.noise_levels, np.broadcast_to(levels, (B, 2)), rtol=1e-5)


def test_log_densities_are_those_of_normals(params, conditions, rollout):
    drawn = []
    for k in range(2):
        x, following = rollout.path[:, :, k], rollout.path[:, :, k + 1]
        v = guided(params, conditions, x, TIMES[k + 1])
        mean, std = moments(x, v, TIMES[k + 1], TIMES[k + 2], rollout.noise_levels[0, k])
        expected = norm.logpdf(following, mean, std).mean((-2, -1))
        np.testing.assert_allclose(rollout.logprobs[..., k], expected, rtol=1e-4, atol=1e-4)
        drawn.append((following - mean) / std)
    drawn = np.concatenate(drawn).ravel()
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
    assert abs(drawn.std() - 1.0) < 4 / np.sqrt(2 * drawn.size)


def test_scored_log_densities_equal_sampled_ones(params, conditions, rollout, scores):
    np.testing.assert_allclose(scores.logprobs, rollout.logprobs, atol=1e-5)
    assert np.std(rollout.logprobs) > 1e-2
    for k in range(2):
        expected = guided(params, conditions, rollout.path[:, :, k], TIMES[k + 1])
        np.testing.assert_allclose(scores.velocity[:, :, k], expected, rtol=1e-4, atol=1e-4)


def test_steps_outside_of_the_window_are_eulers(params, conditions, rollout):
    x = rollout.path[:, :, -1]
    for t, following in itertools.pairwise(TIMES[3:]):
        x = x + (following - t) * guided(params, conditions, x, t)
    np.testing.assert_allclose(rollout.latents, x, rtol=1e-4, atol=1e-4)


def test_a_rollout_is_a_function_of_its_key(sampler, params, conditions, rollout):
    jax.tree.map(np.testing.assert_array_equal, sampler(params, conditions, jax.random.key(0)), rollout)
    other = sampler(params, conditions, jax.random.key(1))
    assert np.abs(other.latents - rollout.latents).mean() > 0.1


def test_members_of_a_group_differ_and_so_do_equal_prompts(rollout):
    assert np.abs(rollout.latents[:, 0] - rollout.latents[:, 1]).mean() > 0.1
    assert np.abs(rollout.latents[5] - rollout.latents[7]).mean() > 0.1


def test_rows_do_not_depend_on_their_batch_mates(sampler, params, conditions, rollout):
    mates = jax.tree.map(lambda x: np.concatenate([x[:3], x[3:][::-1]]), conditions)
    mixed = sampler(params, mates, jax.random.key(0))
    np.testing.assert_allclose(mixed.latents[:3], rollout.latents[:3], rtol=1e-5, atol=1e-5)
    assert np.abs(mixed.latents[3:5] - rollout.latents[3:5]).mean() > 0.1


def test_eight_devices_draw_what_one_does(sampler, params, conditions, rollout):
    mesh = make_mesh(data=8)
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    eight = sampler(whole, jax.device_put(conditions, batch_sharding(mesh)), jax.random.key(0))
    assert len(eight.latents.sharding.device_set) == 8
    np.testing.assert_allclose(eight.latents, rollout.latents, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(eight.logprobs, rollout.logprobs, rtol=1e-5, atol=1e-5)


def loops(jaxpr):
    """Every loop of a program as (trip count or None, shapes of all that goes into it), nested ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("scan", "while"):
            yield equation.params.get("length"), [v.aval.shape for v in equation.invars]
        is_program = lambda x: isinstance(x, ClosedJaxpr)  # noqa: E731
        for inner in filter(is_program, jax.tree.leaves(list(equation.params.values()), is_leaf=is_program)):
            yield from loops(inner.jaxpr)


def test_prompts_are_computed_once(monkeypatch, params, conditions):
    calls, encode = [], VLM.encode_prompt
    monkeypatch.setattr(VLM, "encode_prompt", lambda *args: calls.append(args[2]) or encode(*args))
    program = jax.make_jaxpr(make_image_rollout(CONFIG, SAMPLER, group_size=G))(
        params, conditions, jax.random.key(0)
    )
    # The prompt itself and the two that guidance steers away from.
    assert len(calls) == 3
    steps = [shapes for trips, shapes in loops(program.jaxpr) if trips == SAMPLER.steps]
    assert len(steps) == 1
    # The loop holds what draws, but neither words nor the vision tower, and no prompt once per image.
    assert params["latents"]["inward"]["kernel"].shape in steps[0]
    assert params["embedding"].shape not in steps[0]
    assert params["vision"]["positions"].shape not in steps[0]
    decoder = CONFIG.vlm.decoder
    kv = (decoder.layers, B, decoder.kv_heads, 12, decoder.head_dim)
    assert steps[0].count(kv) == 2


def test_the_window_moves_without_a_compilation(params, conditions):
    sampler = FlowSampler(steps=4, shift=3.0, kind="constant_sde", noise_level=0.4, window=(0, 2))
    run = jax.jit(make_image_rollout(CONFIG, sampler, group_size=2, same_noise=True))
    conditions = jax.tree.map(lambda x: x[:2], conditions._replace(textless=None, imageless=None))
    early, late = (run(params, conditions, jax.random.key(0), jnp.int32(start)) for start in (0, 2))
    assert run._cache_size() == 1
    np.testing.assert_allclose(early.times[0], TIMES[:3], rtol=1e-6)
    np.testing.assert_allclose(late.times[0], TIMES[2:], rtol=1e-6)
    np.testing.assert_allclose(late.noise_levels, 0.4, rtol=1e-6)
    np.testing.assert_array_equal(late.path[:, :, -1], late.latents)
    # All of a group begin with the same noise, and part where noise comes in.
    np.testing.assert_array_equal(early.path[:, 0, 0], early.path[:, 1, 0])
    np.testing.assert_array_equal(late.path[:, 0, 0], late.path[:, 1, 0])
    assert np.abs(early.path[:, 0, 1] - early.path[:, 1, 1]).mean() > 0.01
    assert np.abs(early.path[0, 0, 0] - early.path[1, 0, 0]).mean() > 0.1


def test_a_group_is_drawn_as_its_members_alone(params, conditions):
    rng = np.random.default_rng(4)
    start, noise = rng.normal(size=(2, G, I, F)), rng.normal(size=(3, 2, G, I, F))
    conditions = jax.tree.map(lambda x: x[:2], conditions)
    times = timesteps(steps=3, shift=2.0)

    @jax.jit
    def run(start, noise):
        field = make_field(CONFIG, params, conditions, UNGUIDED)
        draw = lambda step, mean, std: mean + std[..., None, None] * noise[step]  # noqa: E731
        return integrate(field, start, times, jnp.full(3, 0.5), draw, window=(0, 3))

    group = run(start.astype(np.float32), noise.astype(np.float32))
    for g in range(G):
        one = slice(g, g + 1)
        alone = run(start[:, one].astype(np.float32), noise[:, :, one].astype(np.float32))
        for found, expected in zip(group, alone, strict=True):
            np.testing.assert_allclose(found[:, one], expected, rtol=1e-4, atol=1e-4)


def test_images_behind_thoughts(params):
    """Sampled equals scored, and it matters which thought an image stands behind."""
    images, prompt, thoughts, *_ = make_inputs()
    conditions = Conditions(prompt, images, thoughts)
    sampler = FlowSampler(steps=2, kind="constant_sde", noise_level=0.5, reduce="sum")
    rollout = jax.jit(make_image_rollout(CONFIG, sampler, group_size=2))(
        params, conditions, jax.random.key(0)
    )
    score = jax.jit(make_image_scorer(CONFIG, sampler))
    scored = score(params, conditions, rollout).logprobs
    np.testing.assert_allclose(scored, rollout.logprobs, rtol=1e-4, atol=1e-4)
    swapped = conditions._replace(thoughts=jax.tree.map(lambda x: x[:, ::-1], thoughts))
    assert np.abs(score(params, swapped, rollout).logprobs - scored).min() > 1e-2
    with pytest.raises(ValueError, match="2 thoughts per prompt cannot stand before 3 images"):
        make_image_rollout(CONFIG, sampler, group_size=3)(params, conditions, jax.random.key(0))


def test_what_guidance_leaves_is_held_constant(params, conditions, rollout):
    """The head learns as if only the conditional velocity came from it: 3 · 1.5 times where guided, once elsewhere."""
    conditions, rollout = jax.tree.map(lambda x: x[:2], (conditions, rollout))
    sampler = dataclasses.replace(SAMPLER, guidance=dataclasses.replace(GUIDANCE, renorm="none"))
    probe = np.random.default_rng(5).normal(size=(2, G, 2, I, F)).astype(np.float32)

    def with_head(head):
        return params | {"latents": params["latents"] | {"outward": head}}

    def guided_loss(head):
        scores = make_image_scorer(CONFIG, sampler)(with_head(head), conditions, rollout)
        return jnp.sum(probe * scores.velocity)

    def plain_loss(head):
        states = rollout.path[:, :, :-1].reshape(2, -1, I, F)
        times = np.tile(TIMES[1:3], (2, G)).astype(np.float32)
        state = encode_prompt(CONFIG, params, conditions.images, conditions.prompt)
        weights = probe * np.array([4.5, 1.0], np.float32)[:, None, None]
        return jnp.sum(
            weights.reshape(states.shape) * velocity(CONFIG, with_head(head), state, states, times)
        )

    head = params["latents"]["outward"]
    found, expected = (jax.jit(jax.grad(loss))(head) for loss in (guided_loss, plain_loss))
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-3)
        assert np.abs(found[name]).max() > 1.0


def test_an_ode_has_no_densities(params, conditions):
    conditions = jax.tree.map(lambda x: x[:2], Conditions(conditions.prompt, conditions.images))
    sampler = FlowSampler(steps=3, kind="ode")
    found = jax.jit(make_image_rollout(CONFIG, sampler, group_size=2))(params, conditions, jax.random.key(0))
    assert found.logprobs.shape == (2, 2, 0)
    assert found.noise_levels.shape == (2, 0)
    x = found.path[:, :, 0]
    for t in (1.0, 2 / 3, 1 / 3):
        times = np.full((2, 2), t, np.float32)
        x = x - behind(params, x, times, conditions.images, conditions.prompt) / 3
    np.testing.assert_allclose(found.latents, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_an_ode_of_known_velocity_ends_at_the_data(shift):
    """Data at one point: the velocity (x − x₀) / t leads there in any number of steps."""
    target = np.random.default_rng(6).normal(size=(1, 1, 2, 3)).astype(np.float32)
    noise = np.random.default_rng(7).normal(size=(2, 3, 2, 3)).astype(np.float32)
    times = timesteps(steps=5, shift=shift)
    final, path, _ = integrate(
        lambda x, t: (x - target) / t[..., None, None],
        noise,
        times,
        jnp.zeros(5),
        lambda step, mean, std: mean,
        window=(0, 5),
    )
    np.testing.assert_allclose(final, np.broadcast_to(target, noise.shape), atol=1e-6)
    t = np.asarray(times)[:, None, None]
    expected = (1 - t) * target[:, :, None] + t * noise[:, :, None]
    np.testing.assert_allclose(path, expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "noise_level"), [("ode", 0.0), ("flow_sde", 0.7), ("constant_sde", 0.3)])
def test_samplers_of_known_velocity_have_the_spread_that_follows(kind, noise_level):
    """Data N(0.5, 0.3²) in one dimension, where every step is linear: mean and variance by recursion."""
    sampler = FlowSampler(steps=10, shift=3.0, kind=kind, noise_level=noise_level)
    times = np.asarray(timesteps(steps=10, shift=3.0), float)
    levels = np.asarray(sampler.levels(jnp.asarray(times, jnp.float32), 0), float)
    mean, variance = 0.0, 1.0
    for t, following, level in zip(times, times[1:], levels, strict=False):
        # v(x) = slope·(x − (1 − t)·0.5) − 0.5
        slope = (t - (1 - t) * 0.09) / ((1 - t) ** 2 * 0.09 + t**2)
        at = lambda x, t=t, f=following, s=level, a=slope: moments(x, a * (x - (1 - t) * 0.5) - 0.5, t, f, s)  # noqa: E731
        variance = (at(1.0)[0] - at(0.0)[0]) ** 2 * variance + at(0.0)[1] ** 2
        mean = at(mean)[0]

    def field(x, t):
        t = t[..., None, None]
        slope = (t - (1 - t) * 0.09) / ((1 - t) ** 2 * 0.09 + t**2)
        return slope * (x - (1 - t) * 0.5) - 0.5

    rng, count = np.random.default_rng(8), 40_000
    noise = rng.normal(size=(11, 1, 1, count, 1)).astype(np.float32)
    final, *_ = integrate(
        field,
        noise[10],
        jnp.asarray(times, jnp.float32),
        jnp.asarray(levels, jnp.float32),
        lambda step, mean, std: mean + std[..., None, None] * jnp.asarray(noise)[step],
        window=(0, 0),
    )
    assert float(jnp.mean(final)) == pytest.approx(mean, abs=4 * np.sqrt(variance / count))
    assert float(jnp.std(final)) == pytest.approx(np.sqrt(variance), rel=4 / np.sqrt(2 * count))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cps"}, "sampler kind is 'cps'; it must be 'ode', 'flow_sde' or 'constant_sde'"),
        ({"window": (2, 5)}, r"window \(2, 5\) must begin before it ends, within steps 0 to 4"),
        ({"window": (-1, 2)}, r"window \(-1, 2\) must begin before it ends, within steps 0 to 4"),
        ({"window": (2, 2)}, r"window \(2, 2\) must begin before it ends"),
        ({"kind": "ode", "window": (0, 2)}, r"window \(0, 2\) asks for noise, and an ode has none"),
    ],
)
def test_impossible_samplers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlowSampler(steps=4, **options)


def test_guidance_without_its_prompts_is_refused(params, conditions):
    key = jax.random.key(0)
    with pytest.raises(
        ValueError, match=r"text guidance of 3\.0 needs `textless`, the prompt without its text"
    ):
        make_image_rollout(CONFIG, SAMPLER, group_size=G)(params, conditions._replace(textless=None), key)
    with pytest.raises(
        ValueError, match=r"image guidance of 1\.5 needs `imageless`, the prompt without its im"
    ):
        make_image_rollout(CONFIG, SAMPLER, group_size=G)(params, conditions._replace(imageless=None), key)
