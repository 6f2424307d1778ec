import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.models.unified import encode_prompt, encode_thoughts, velocity
from mmrpt_jax.models.unified_test import CONFIG as LARGER
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.objectives import group_advantages
from mmrpt_jax.sampling import Conditions, FlowSampler, make_image_rollout
from mmrpt_jax.sampling.guidance import UNGUIDED, Guidance
from mmrpt_jax.training.accumulate import accumulate_gradients
from mmrpt_jax.training.image_policy import IMAGE_LOSSES, DrawnBatch, make_policy_velocity, noise_anew

# The least that draws behind a prompt: nearly all the time goes to compiling it.
DECODER = dataclasses.replace(LARGER.vlm.decoder, layers=1, rope=None, qk_norm=False, qkv_bias=False)
CONFIG = dataclasses.replace(LARGER, vlm=dataclasses.replace(LARGER.vlm, decoder=DECODER))
B, G, P, I, F = 8, 3, 6, CONFIG.latent.num_tokens, CONFIG.latent.features
# Four steps at t = 1, 0.9, 0.75, 0.5. Noise in the middle two, of which the first is guided.
SAMPLER = FlowSampler(steps=4, shift=3.0, window=(1, 3), guidance=Guidance(text=3.0, interval=(0.8, 1.0)))
PLAIN = dataclasses.replace(SAMPLER, guidance=UNGUIDED)
CONSTANT = FlowSampler(steps=2, shift=3.0, kind="constant_sde", noise_level=0.4)
CONSTANT_GUIDED = dataclasses.replace(CONSTANT, guidance=Guidance(text=3.0))
OPTIONS = {
    "grpo": {"clip_low": 0.1, "clip_high": 0.2, "max_advantage": 1.5, "kl": "exact", "kl_coefficient": 0.5},
    "nft": {"beta": 0.5, "max_advantage": 1.5, "kl": "velocity", "kl_coefficient": 0.3},
    "dpo": {"beta": 3.0},
    "rwr": {"temperature": 0.7},
    "best_of": {},
}
SEEDS = np.array([5, 9, 5, 7, 0, 1, 2, 3], np.int32)


@jax.jit
def see(params, prompt, thoughts, latents, times):
    state = encode_prompt(CONFIG, params, None, prompt)
    behind = None if thoughts is None else encode_thoughts(CONFIG, params, state, thoughts)
    return velocity(CONFIG, params, state, latents, times, behind)


@jax.jit
def pull_back(params, cotangent, *seen):
    return jax.vjp(lambda params: see(params, *seen), params)[1](cotangent)[0]


def policy(sampler, params, batch, latents, times):
    """The sampler's velocity [B G I F], guided by hand, and what turns a cotangent of it into gradients."""
    prompt, _, thoughts, textless, _ = batch.conditions
    scale, (low, high) = sampler.guidance.text, sampler.guidance.interval
    plain = see(params, prompt, thoughts, latents, times)
    other = see(params, textless, None, latents, times)

    def steer(plain):
        mixed = other + scale * (plain - other)
        length = [jnp.sqrt(jnp.sum(v**2, axis=(-2, -1), keepdims=True)) for v in (plain, mixed)]
        inside = (low < times) & (times <= high) & (scale > 1)
        return jnp.where(per_image(inside), mixed * jnp.minimum(length[0] / length[1], 1), plain)

    steered, pull = jax.vjp(steer, plain)

    def gradients(cotangent):
        return pull_back(params, *pull(np.float32(cotangent)), prompt, thoughts, latents, times)

    return np.asarray(steered, float), gradients


def policy_of(name, sampler, params, batch):
    """`policy` where an algorithm looks: at the steps [B G K I F], or at fresh noise [B G I F]."""
    if name != "grpo":
        return policy(sampler, params, batch, *fresh_noise(batch)[:2])
    path, times = batch.rollout.path, np.repeat(batch.rollout.times[:, None], G, axis=1)
    steps = [policy(sampler, params, batch, path[:, :, k], times[..., k]) for k in range(2)]

    def gradients(cotangent):
        return jax.tree.map(jnp.add, *(step[1](cotangent[:, :, k]) for k, step in enumerate(steps)))

    return np.stack([v for v, _ in steps], axis=2), gradients


def per_image(values):
    return values[..., None, None]


def fresh_noise(batch, shift=3.0):
    """(x_t, t, ε) of every image, [B G]; a group has one time and one noise, from its seed."""
    times, noise = [], []
    for seed in batch.seeds:
        for_time, for_noise = jax.random.split(jax.random.key(seed))
        t = 1 / (1 + np.exp(-np.asarray(jax.random.normal(for_time, (1,)), float)))
        times.append(np.repeat(shift * t / (1 + (shift - 1) * t), G))
        noise.append(np.repeat(np.asarray(jax.random.normal(for_noise, (1, I, F)), float), G, axis=0))
    t, noise = per_image(np.array(times)), np.array(noise)
    return np.float32((1 - t) * batch.rollout.latents + t * noise), np.float32(times), noise


# Each of these works out (means, cotangent of the mean loss) from a batch and the policy's velocity.


def weighted_means(weights, cotangent, **values):
    weights = weights / weights.sum()
    means = {name: float(np.sum(weights * value)) for name, value in values.items()}
    return means, per_image(weights) * cotangent


def steps_by_hand(rollout, v):
    """Log densities of the steps, their slopes in v, and (s, std, d mean / d v), as Flow-GRPO writes them."""
    rollout = jax.tree.map(np.float64, rollout)
    level, times = rollout.noise_levels[:, None], rollout.times[:, None]
    t, dt = times[..., :-1], np.diff(times)
    slope, std = (1 + level**2 * (1 - t) / (2 * t)) * dt, level * np.sqrt(-dt)
    mean = rollout.path[:, :, :-1] * per_image(1 + level**2 / (2 * t) * dt) + v * per_image(slope)
    error = rollout.path[:, :, 1:] - mean
    logprobs = norm.logpdf(error, 0, per_image(std)).mean((-2, -1))
    return logprobs, error * per_image(slope / std**2) / (I * F), (level, std, slope)


def grpo_by_hand(batch, v, *, clip_low, clip_high, max_advantage, kl, kl_coefficient, reduce="mean"):
    logprobs, slopes, (level, std, slope) = steps_by_hand(batch.rollout, v)
    ratio, change = np.exp(logprobs - batch.rollout.logprobs), v - batch.ref_velocity
    advantages = np.clip(batch.advantages, -max_advantage, max_advantage)[..., None]
    clipped = np.where(advantages > 0, ratio > 1 + clip_high, ratio < 1 - clip_low)
    loss = -np.minimum(ratio * advantages, np.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages)
    cotangent = per_image(np.where(clipped, 0, -ratio * advantages)) * slopes
    # Two normals of one deviation, whose means differ by slope · change.
    factors = {"exact": (slope / std) ** 2 / 2, "mean_only": (slope / level) ** 2 / 2, "velocity": slope**0}
    factor = factors[kl] * (I * F if reduce == "sum" else 1)
    penalty = factor * (change**2).mean((-2, -1))
    return weighted_means(
        np.broadcast_to(batch.trained[..., None], ratio.shape),
        cotangent + kl_coefficient * per_image(factor) * 2 * change / (I * F),
        loss=loss + kl_coefficient * penalty,
        ratio=ratio,
        clip_fraction=clipped,
        kl=penalty,
        sampler_gap=np.abs(logprobs - batch.rollout.logprobs),
    )


def nft_by_hand(batch, v, *, beta, max_advantage, kl, kl_coefficient):
    noised, times, _ = fresh_noise(batch)
    old, clean, t = batch.behaviour_velocity, batch.rollout.latents, per_image(times)
    optimality = 0.5 + 0.5 * np.clip(batch.advantages / max_advantage, -1, 1)
    loss, cotangent, errors = 0, 0, {}
    for name, sign, share in (("positive", 1, optimality), ("negative", -1, 1 - optimality)):
        error = noised - t * (old + sign * beta * (v - old)) - clean
        share = share / beta / np.abs(error).mean((-2, -1))
        errors[f"{name}_error"] = (error**2).mean((-2, -1))
        loss = loss + share * errors[f"{name}_error"]
        cotangent = cotangent - per_image(share) * 2 * error * sign * beta * t / (I * F)
    change = v - batch.ref_velocity
    penalty = (change**2).mean((-2, -1))
    return weighted_means(
        batch.trained,
        cotangent + kl_coefficient * 2 * change / (I * F),
        loss=loss + kl_coefficient * penalty,
        optimality=optimality,
        velocity_change=((v - old) ** 2).mean((-2, -1)),
        kl=penalty,
        **errors,
    )


def errors_by_hand(batch, v):
    """Squared errors of flow matching, [B G], and their slopes in v."""
    gap = v - (fresh_noise(batch)[2] - batch.rollout.latents)
    return (gap**2).mean((-2, -1)), 2 * gap / (I * F)


def scored_images(batch, b):
    return {g: batch.rewards[b, g] for g in range(G) if batch.trained[b, g]}


def dpo_by_hand(batch, v, *, beta):
    errors, slopes = errors_by_hand(batch, v)
    gained, margins, cotangent = errors_by_hand(batch, batch.ref_velocity)[0] - errors, [], np.zeros_like(v)
    for b in range(B):
        rewards = scored_images(batch, b)
        if len(set(rewards.values())) > 1:
            # Of several that tie, the first.
            best, worst = max(rewards, key=rewards.get), min(rewards, key=rewards.get)
            margins.append(gained[b, best] - gained[b, worst])
            pull = beta / (1 + np.exp(beta * margins[-1]))
            cotangent[b, best], cotangent[b, worst] = pull * slopes[b, best], -pull * slopes[b, worst]
    margins = np.array(margins)
    means = {"loss": np.log1p(np.exp(-beta * margins)), "margin": margins, "accuracy": margins > 0}
    return {name: value.mean() for name, value in means.items()}, cotangent / len(margins)


def rwr_by_hand(batch, v, *, temperature):
    weights = np.where(batch.trained, np.exp(batch.rewards / temperature), 0)
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    errors, slopes = errors_by_hand(batch, v)
    return weighted_means(weights, slopes, loss=errors)


def best_of_by_hand(batch, v):
    weights = np.zeros((B, G))
    for b in range(B):
        rewards = scored_images(batch, b)
        best = [g for g in rewards if rewards[g] == max(rewards.values())]
        weights[b, best] = 1 / max(len(best), 1)
    errors, slopes = errors_by_hand(batch, v)
    return weighted_means(weights, slopes, loss=errors)


BY_HAND = {
    "grpo": grpo_by_hand,
    "nft": nft_by_hand,
    "dpo": dpo_by_hand,
    "rwr": rwr_by_hand,
    "best_of": best_of_by_hand,
}


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def drawn(params):
    """Sampler -> groups that it drew, with rewards of all sorts and some images left out."""
    rng = np.random.default_rng(2)
    slots, place, lengths = np.zeros((B, P), bool), np.arange(P), rng.integers(2, P + 1, (B, 1))
    prompt = PromptTokens(rng.integers(3, 64, (B, P)), place < lengths, slots)
    textless = PromptTokens(np.full((B, P), 2), np.broadcast_to(place < 1, (B, P)), slots)
    conditions = Conditions(prompt, textless=textless)
    rewards, advantages = rng.normal(size=(2, B, G)).astype(np.float32)
    # Equal rewards, a tie for the best, the best left out, one image left, none left.
    rewards[0], rewards[1] = 0.5, (2.0, 2.0, -1.0)
    trained = np.ones((B, G), bool)
    trained[2, rewards[2].argmax()] = trained[3, 1:] = trained[4] = False

    @functools.cache
    def of(sampler):
        run = jax.jit(make_image_rollout(CONFIG, sampler, group_size=G))
        rollout = jax.device_get(run(params, conditions, jax.random.key(0)))
        return DrawnBatch(conditions, rollout, rewards, advantages, trained, SEEDS)

    return of


@pytest.fixture(scope="module")
def off_policy(params, drawn):
    """Algorithm -> its batch as if an older policy had drawn it, with a reference."""
    rng = np.random.default_rng(3)
    old, reference = (
        jax.tree.map(lambda x: x + rng.normal(0, 0.03, x.shape).astype(np.float32), params) for _ in range(2)
    )
    shift = rng.normal(0, 0.3, (B, G, 2)).astype(np.float32)

    @functools.cache
    def of(name):
        batch = drawn(SAMPLER)
        batch = batch._replace(rollout=batch.rollout._replace(logprobs=batch.rollout.logprobs + shift))
        velocities = {}
        if name == "nft":
            velocities["behaviour_velocity"] = np.float32(policy_of(name, SAMPLER, old, batch)[0])
        if name in ("grpo", "nft", "dpo"):
            velocities["ref_velocity"] = np.float32(policy_of(name, SAMPLER, reference, batch)[0])
        return batch._replace(**velocities)

    return of


@pytest.fixture(scope="module")
def learn(params):
    """(algorithm, batch) -> (gradients, metrics): on eight devices in two parts, or whole on one."""
    mesh = make_mesh(2, 2, 2)
    shardings = jax.tree.map(lambda x: x.sharding, abstract_parameters(CONFIG, mesh))

    @functools.cache
    def compiled(name, sampler, options, micro_batches):
        loss = IMAGE_LOSSES[name](CONFIG, sampler, **dict(options))
        return jax.jit(functools.partial(accumulate_gradients, loss, micro_batches=micro_batches))

    def run(name, batch, *, sampler=SAMPLER, options=None, parted=True):
        options = OPTIONS[name] if options is None else options
        given = params, batch
        if parted:
            given = jax.device_put(given, (shardings, batch_sharding(mesh)))
        return jax.device_get(compiled(name, sampler, tuple(options.items()), 2 if parted else 1)(*given))

    return run


@pytest.fixture(scope="module")
def learned(learn, off_policy):
    return functools.cache(lambda name: learn(name, off_policy(name)))


def assert_same(found, expected, rtol=1e-4):
    (gradients, metrics), (expected_gradients, expected_metrics) = found, expected
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_gradients))
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=rtol * size)
    jax.tree.map(close, gradients, expected_gradients)
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=rtol, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_loss_and_gradient_by_hand(name, params, off_policy, learned):
    batch = off_policy(name)
    v, gradients = policy_of(name, SAMPLER, params, batch)
    metrics, cotangent = BY_HAND[name](batch, v, **OPTIONS[name])
    assert_same(learned(name), (gradients(cotangent), metrics), rtol=1e-3)
    assert metrics.get("clip_fraction", 0.5) > 0.1


def test_neither_split_nor_devices_matter(off_policy, learn, learned):
    """Beyond what is by hand above, which knows of neither."""
    assert_same(learn("grpo", off_policy("grpo"), parted=False), learned("grpo"))


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_what_is_left_out_may_be_anything(name, off_policy, learn, learned):
    batch = off_policy(name)

    def spoil(values):
        return np.where(batch.trained.reshape(B, G, *[1] * (values.ndim - 2)), values, np.nan)

    def spoiled(values, fields):
        return values._replace(**{field: jax.tree.map(spoil, getattr(values, field)) for field in fields})

    wild = spoiled(batch, ("rewards", "advantages", "behaviour_velocity", "ref_velocity"))
    wild = wild._replace(rollout=spoiled(batch.rollout, ("latents", "path", "logprobs")))
    assert_same(learn(name, wild), learned(name), rtol=1e-6)
    # And if that is all there is, nothing is learned.
    batch = batch._replace(trained=np.zeros((B, G), bool))
    gradients, metrics = learn(name, wild._replace(trained=batch.trained))
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))
    assert {float(value) for value in metrics.values()} == {0.0}


@pytest.mark.parametrize("sampler", [PLAIN, SAMPLER, CONSTANT, CONSTANT_GUIDED])
def test_the_first_update_of_grpo_is_on_policy(sampler, params, drawn, learn):
    """Every ratio is 1, and the gradient is that of -Σ A · log p over the count."""
    batch, options = drawn(sampler), {}
    v, gradients = policy_of("grpo", sampler, params, batch)
    if sampler is SAMPLER:
        # The program is there already; of its KL, to the policy itself, nothing comes.
        options, batch = OPTIONS["grpo"], batch._replace(ref_velocity=np.float32(v))
    found, metrics = learn("grpo", batch, sampler=sampler, options=options, parted=False)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["sampler_gap"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clip_fraction"] == 0.0
    bound = options.get("max_advantage", 5.0)
    advantages = np.where(batch.trained, np.clip(batch.advantages, -bound, bound), 0)
    assert metrics["loss"] == pytest.approx(-advantages.sum() / batch.trained.sum(), abs=1e-6)
    _, slopes, _ = steps_by_hand(batch.rollout, v)
    expected = gradients(-advantages[..., None, None, None] * slopes / (2 * batch.trained.sum()))
    assert_same((found, {}), (expected, {}), rtol=1e-3)


def test_kinds_of_kl_by_hand(params, off_policy):
    batch = off_policy("grpo")
    v, _ = policy_of("grpo", SAMPLER, params, batch)
    kinds = [{"kl": "velocity"}, {"kl": "mean_only"}, {"kl": "exact", "reduce": "sum"}]
    losses = [IMAGE_LOSSES["grpo"](CONFIG, SAMPLER, **OPTIONS["grpo"] | kind) for kind in kinds]
    found = jax.jit(lambda: [loss(params, batch) for loss in losses])()
    for kind, (total, (count, metrics)) in zip(kinds, found, strict=True):
        expected, _ = grpo_by_hand(batch, v, **OPTIONS["grpo"] | kind)
        assert count == 2 * batch.trained.sum()
        assert total / count == pytest.approx(expected["loss"], rel=1e-4)
        assert metrics["kl"][0] / count == pytest.approx(expected["kl"], rel=1e-4)


def test_the_first_update_of_nft_takes_the_policy_for_the_older_one(params, off_policy, learn):
    batch = off_policy("nft")
    v, gradients = policy_of("nft", SAMPLER, params, batch)
    metrics, cotangent = nft_by_hand(batch._replace(behaviour_velocity=v), v, **OPTIONS["nft"])
    found = learn("nft", batch._replace(behaviour_velocity=None), parted=False)
    assert_same(found, (gradients(cotangent), metrics), rtol=1e-3)


def test_images_of_a_pair_keep_their_thoughts(params, off_policy):
    batch, rng = off_policy("dpo"), np.random.default_rng(4)
    thoughts = BranchTokens(rng.integers(3, 64, (B, G, 2)), np.ones((B, G, 2), bool))
    batch = batch._replace(conditions=batch.conditions._replace(thoughts=thoughts))
    v, _ = policy_of("dpo", PLAIN, params, batch)
    expected, _ = dpo_by_hand(batch, v, beta=3.0)
    total, (count, _) = jax.jit(IMAGE_LOSSES["dpo"](CONFIG, PLAIN, beta=3.0))(params, batch)
    # Of eight groups one is left out, one has one image, one has equal rewards.
    assert count == 5
    assert total / count == pytest.approx(expected["loss"], rel=1e-4)


def test_groups_of_equal_rewards_teach_nothing(drawn, off_policy, learn):
    rewards = np.repeat(np.linspace(-1, 1, B, dtype=np.float32)[:, None], G, axis=1)
    equal = {"rewards": rewards, "advantages": np.asarray(group_advantages(rewards))}
    for gradients, _ in (
        learn("grpo", drawn(PLAIN)._replace(**equal), sampler=PLAIN, options={}, parted=False),
        learn("dpo", off_policy("dpo")._replace(**equal)),
    ):
        assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))


def test_noise_is_that_of_a_rows_seed(drawn):
    batch, noised_anew = drawn(PLAIN), jax.jit(noise_anew, static_argnames="shift")
    clean = batch.rollout.latents
    at = noised_anew(clean, batch.seeds, shift=3.0)
    for found, expected in zip(at, (*fresh_noise(batch)[:2], clean, fresh_noise(batch)[2]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Equal seeds, equal noise; neither other rows, nor the images, nor the size of the group have a say.
    assert len(np.unique(at.times)) == len(np.unique(at.noise[..., 0, 0])) == len(np.unique(SEEDS))
    alone = noised_anew(np.zeros_like(clean[3:4, :1]), batch.seeds[3:4], shift=3.0)
    np.testing.assert_array_equal(alone.noise[0, 0], at.noise[3, 0])
    np.testing.assert_array_equal(alone.times[0, 0], at.times[3, 0])


def test_every_look_has_a_time_and_a_noise_that_a_group_shares(drawn):
    batch = drawn(PLAIN)
    clean = batch.rollout.latents
    at = noise_anew(clean, batch.seeds, shift=3.0, looks=2)
    assert at.latents.shape == (B, 2 * G, I, F)
    for look in range(2):
        images = jax.tree.map(lambda x, look=look: x[:, look::2], at)
        np.testing.assert_array_equal(images.clean, clean)
        np.testing.assert_array_equal(images.noise, np.repeat(images.noise[:, :1], G, axis=1))
        np.testing.assert_array_equal(images.times, np.repeat(images.times[:, :1], G, axis=1))
        t = per_image(images.times)
        np.testing.assert_allclose(images.latents, (1 - t) * clean + t * images.noise, atol=1e-6)
    assert not np.any(at.times[:, 0] == at.times[:, 1])


@pytest.mark.parametrize("name", ["grpo", "nft"])
def test_velocities_of_a_reference(name, params, off_policy):
    batch = off_policy(name)
    velocity_of = jax.jit(make_policy_velocity(CONFIG, SAMPLER, algorithm=name))
    found = velocity_of(params, batch.conditions, batch.rollout, batch.seeds)
    np.testing.assert_allclose(found, policy_of(name, SAMPLER, params, batch)[0], rtol=1e-4, atol=1e-4)


def test_what_cannot_be_learned_from_is_refused(params, off_policy):
    for options in ({"kind": "ode"}, {"noise_level": 0.0}):
        with pytest.raises(ValueError, match="grpo learns from densities, which only steps with noise have"):
            IMAGE_LOSSES["grpo"](CONFIG, FlowSampler(steps=2, **options))
    with pytest.raises(ValueError, match=r"kl of nft is 'exact'; .* it must be 'none' or 'velocity'"):
        IMAGE_LOSSES["nft"](CONFIG, SAMPLER, kl="exact")
    for name in ("grpo", "nft", "dpo"):
        loss = IMAGE_LOSSES[name](CONFIG, SAMPLER, **OPTIONS[name])
        with pytest.raises(ValueError, match="give the batch `ref_velocity`, as of make_policy_velocity"):
            jax.eval_shape(loss, params, off_policy(name)._replace(ref_velocity=None))
