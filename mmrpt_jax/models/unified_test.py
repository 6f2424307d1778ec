import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.latents import LatentTokens
from mmrpt_jax.models.paths import overlay
from mmrpt_jax.models.unified import (
    copy_experts,
    encode_prompt,
    encode_thoughts,
    velocity,
)
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptTokens
from mmrpt_jax.models.vlm_test import CONFIG as PLAIN
from mmrpt_jax.models.vlm_test import IMAGE, TEXT, random_parameters

# Everything that BAGEL has: biases, norms of queries and keys, images that see themselves.
DECODER = dataclasses.replace(PLAIN.decoder, qk_norm=True, qkv_bias=True)
VLM_CONFIG = dataclasses.replace(
    PLAIN, decoder=DECODER, image_attention="bidirectional", image_positions="shared"
)
CONFIG = UnifiedConfig(VLM_CONFIG, LatentConfig(channels=2, downsample=4, height=4, width=4))
LAYOUTS = ("dense", "moe", "mot")
B, G, P, R, I, F = 2, 2, 12, 3, CONFIG.latent.num_tokens, CONFIG.latent.features

flow = jax.jit(velocity, static_argnums=0)
run_prompt = jax.jit(encode_prompt, static_argnums=0)
run_thoughts = jax.jit(encode_thoughts, static_argnums=0)


def make_inputs():
    """Two prompts with two images each, two thoughts behind each, a noisy image behind each thought."""
    rng = np.random.default_rng(1)
    rows = [
        [TEXT, *[IMAGE] * 8, TEXT, TEXT, None],
        [*[IMAGE] * 4, TEXT, *[IMAGE] * 4, None, None, None],
    ]
    slots, valid = np.array([[x is IMAGE for x in row] for row in rows]), np.array(rows) != None  # noqa: E711
    images = rng.integers(0, 256, (B, 2, 16, 16, 3), np.uint8)
    prompt = PromptTokens(rng.integers(3, 64, (B, P)), valid, slots)
    lengths = np.array([[3, 1], [2, 3]])
    thoughts = BranchTokens(rng.integers(3, 64, (B, G, R)), np.arange(R) < lengths[..., None])
    latents = rng.normal(size=(B, G, I, F)).astype(np.float32)
    return images, prompt, thoughts, latents, rng.random((B, G)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def parameters(experts):
    """Random everywhere; visual tokens know their own patch only, so that each can be changed by itself."""
    params = random_parameters(dataclasses.replace(CONFIG, experts=experts))
    kernel = params["vision"]["stack"]["layers"]["out"]["kernel"]
    kernel[:] = 0
    return params


@pytest.fixture(scope="module")
def params():
    return {experts: parameters(experts) for experts in LAYOUTS}


def bagel_mask(splits):
    """allowed[query, key] in one packed sample; a split is (length, "causal" | "full" | "noise")."""
    split = np.repeat(np.arange(len(splits)), [length for length, _ in splits])
    mode = np.array([splits[i][1] for i in split])
    query, key = np.indices((len(split), len(split)))
    same = split[query] == split[key]
    return ((query >= key) | (same & (mode[key] != "causal"))) & ((mode[key] != "noise") | same)


def splits_of(prompt, b):
    """The prompt's splits: each image is one, text between them another."""
    splits, i, slots = [], 0, prompt.image_slots[b]
    while prompt.valid[b, i : i + 1].any():
        length = 4 if slots[i] else 1
        splits.append((length, "full" if slots[i] else "causal"))
        i += length
    return splits


# One sample, packed: tokens [T D], rotary positions [T], which are drawn [T], allowed [T T].


def packed_prompt(config, params, inputs, b):
    images, prompt, *_ = inputs
    splits = splits_of(prompt, b)
    length = sum(n for n, _ in splits)
    x = np.float64(params["embedding"])[prompt.ids[b, :length]] * np.sqrt(DECODER.width)
    encode = lambda m, pixels: m.vision(pixels[None]).features  # noqa: E731
    visual = VLM(config.vlm).apply({"params": params}, images[b], method=encode)
    x[prompt.image_slots[b, :length]] = np.asarray(visual).reshape(-1, DECODER.width)
    positions = np.repeat(np.arange(len(splits)), [n for n, _ in splits])
    return x, positions, splits


def packed_latents(config, params, inputs, b, g):
    *_, latents, times = inputs
    module = LatentTokens(config.latent, DECODER.width)
    embed = lambda *args: module.apply({"params": params["latents"]}, *args, method=LatentTokens.embed)  # noqa: E731
    return np.float64(embed(latents[b : b + 1, g : g + 1], times[b : b + 1, g : g + 1]))[0, 0]


def dense_stack(params, x, positions, drawn, allowed):
    """The decoder on one packed sample in float64, each token with the weights of its expert."""
    stacks = [params["decoder"], overlay(params["decoder"], params.get("generation", {}))]
    stacks = [jax.tree.map(np.float64, stack) for stack in stacks]

    def routed(function, *arrays):
        """function(weights, ...) with each token's own weights."""
        results = [function(weights, *arrays) for weights in layers]
        return np.where(drawn.reshape(-1, *[1] * (results[0].ndim - 1)), results[1], results[0])

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + DECODER.norm_eps) * scale

    def rotated(x):
        half = x.shape[-1] // 2
        angles = positions[:, None, None] * DECODER.rope.theta ** (-np.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate(
            [a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1
        )

    def heads(weights, x, name):
        normed = norm(x, weights["attention_norm"]["scale"])
        y = (normed @ weights[name]["kernel"] + weights[name]["bias"]).reshape(len(x), -1, DECODER.head_dim)
        return y if name == "value" else rotated(norm(y, weights[f"{name}_norm"]["scale"]))

    def gated(weights, x):
        mlp, normed = weights["mlp"], norm(x, weights["mlp_norm"]["scale"])
        gate = normed @ mlp["gate"]["kernel"]
        return (gate / (1 + np.exp(-gate)) * (normed @ mlp["up"]["kernel"])) @ mlp["down"]["kernel"]

    for layer in range(DECODER.layers):
        layers = [jax.tree.map(lambda leaf, i=layer: leaf[i], stack["layers"]) for stack in stacks]
        query, key, value = (routed(heads, x, name) for name in ("query", "key", "value"))
        key, value = (np.repeat(y, DECODER.heads // DECODER.kv_heads, axis=1) for y in (key, value))
        scores = np.einsum("qnh,knh->nqk", query, key) / np.sqrt(DECODER.head_dim)
        weights = np.exp(scores - scores.max()) * allowed
        weights /= weights.sum(-1, keepdims=True)
        seen = np.einsum("nqk,knh->qnh", weights, value).reshape(len(x), -1)
        x = x + routed(lambda w, y: y @ w["out"]["kernel"], seen)
        x = x + routed(gated, x)
    layers = stacks
    return routed(lambda w, y: norm(y, w["final_norm"]["scale"]), x)


def packed_velocity(config, params, inputs, b, *, think):
    """Velocities of the images of prompt b, all of them in one packed sample; behind a thought, one by one."""
    x, positions, splits = packed_prompt(config, params, inputs, b)
    head, found = params["latents"]["outward"], []
    for images in [[g] for g in range(G)] if think else [range(G)]:
        text = inputs[2].ids[b, images[0], inputs[2].valid[b, images[0]]] if think else []
        words = np.float64(params["embedding"])[text] * np.sqrt(DECODER.width) if think else x[:0]
        noise = [packed_latents(config, params, inputs, b, g) for g in images]
        tokens = np.concatenate([x, words, *noise])
        drawn = np.arange(len(tokens)) >= len(x) + len(words)
        place = positions[-1] + 1 + np.arange(len(words) + 1)
        where = np.concatenate([positions, place[:-1], np.full(I * len(images), place[-1])])
        allowed = bagel_mask([*splits, *[(1, "causal")] * len(words), *[(I, "noise")] * len(images)])
        hidden = dense_stack(params, tokens, where, drawn, allowed)[drawn]
        found.append((hidden @ head["kernel"] + head["bias"]).reshape(len(images), I, F))
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("experts", "think"), [("dense", False), ("moe", False), ("mot", False), ("mot", True)]
)
def test_branches_draw_as_packed_samples(experts, think, params, inputs):
    params, (images, prompt, thoughts, latents, times) = params[experts], inputs
    state = run_prompt(CONFIG, params, images, prompt)
    thought = run_thoughts(CONFIG, params, state, thoughts) if think else None
    found = flow(CONFIG, params, state, latents, times, thought)
    assert found.dtype == jnp.float32
    for b in range(B):
        expected = packed_velocity(CONFIG, params, inputs, b, think=think)
        np.testing.assert_allclose(found[b], expected, rtol=1e-4, atol=1e-4)


def test_who_sees_whom(params, inputs):
    """Every token is changed in turn, and what moves is what BAGEL's mask says, exactly."""
    params, inputs = params["mot"], jax.tree.map(lambda x: x[:1], inputs)
    length = int(inputs[1].valid.sum())

    def outputs(images, prompt, thoughts, latents, times):
        """Behind the first layer's attention for what is encoded, behind both for what is drawn; a row per token."""
        state = run_prompt(CONFIG, params, images, prompt)
        thought = run_thoughts(CONFIG, params, state, thoughts)
        drawn = flow(CONFIG, params, state, latents, times, thought)
        encoded = state.keys[1, 0].swapaxes(0, 1), *thought.keys[1, 0].transpose(1, 2, 0, 3)
        return [np.asarray(x).reshape(len(x), -1) for x in (*encoded, *drawn[0])]

    def change(name, place):
        images, prompt, thoughts, latents, times = jax.tree.map(np.copy, inputs)
        if name == "prompt" and prompt.image_slots[0, place]:
            image, patch = divmod(int(prompt.image_slots[0, :place].sum()), 4)
            row, column = divmod(patch, 2)
            images[0, image, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] ^= 128
        elif name == "prompt":
            prompt.ids[0, place] ^= 1
        elif name[0] == "thought":
            thoughts.ids[0, name[1], place] ^= 1
        else:
            latents[0, name[1], place] += 1.0
        return images, prompt, thoughts, latents, times

    blocks = ["prompt", ("thought", 0), ("thought", 1), ("noise", 0), ("noise", 1)]
    sizes = dict(zip(blocks, (P, R, R, I, I), strict=True))
    before = outputs(*inputs)
    moved = {
        (changed, place): np.concatenate(
            [(x != y).any(-1) for x, y in zip(before, outputs(*change(changed, place)), strict=True)]
        )
        for changed in blocks
        for place in range(sizes[changed])
    }

    expected = {source: np.zeros(sum(sizes.values()), bool) for source in moved}
    starts = dict(zip(blocks, np.cumsum([0, P, R, R, I]), strict=True))
    for g in range(G):
        words = int(inputs[2].valid[0, g].sum())
        sample = [("prompt", i) for i in range(length)]
        sample += [(("thought", g), i) for i in range(words)] + [(("noise", g), i) for i in range(I)]
        allowed = bagel_mask([*splits_of(inputs[1], 0), *[(1, "causal")] * words, (I, "noise")])
        for (query, key), sees in np.ndenumerate(allowed):
            block, place = sample[query]
            expected[sample[key]][starts[block] + place] |= sees
    # Padding sees what it sees; it is not asked. Nobody sees padding.
    asked = np.concatenate([inputs[1].valid[0], *inputs[2].valid[0], np.ones(G * I, bool)])
    for source, found in moved.items():
        np.testing.assert_array_equal(found[asked], expected[source][asked], err_msg=str(source))


def test_copied_experts_equal_one_dense_decoder(params, inputs):
    images, prompt, _, latents, times = inputs
    dense = params["dense"]
    assert "generation" not in dense
    state = run_prompt(CONFIG, dense, images, prompt)
    expected = flow(CONFIG, dense, state, latents, times)
    for experts in ("moe", "mot"):
        found = flow(CONFIG, copy_experts(dense, experts), state, latents, times)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        assert np.abs(flow(CONFIG, params[experts], state, latents, times) - expected).max() > 0.1


def test_copies_replace_the_experts_that_were_there(params):
    twins = copy_experts(params["mot"], "moe")
    assert jax.tree.structure(twins) == jax.tree.structure(params["moe"])
    mlp, twin = (tree["layers"]["mlp"]["up"]["kernel"] for tree in (twins["decoder"], twins["generation"]))
    np.testing.assert_array_equal(twin, mlp)
    assert twin is not mlp
    assert copy_experts(params["mot"], "dense").keys() == params["dense"].keys()
    with pytest.raises(ValueError, match="experts is 'soft'; it must be one of 'dense', 'moe', 'mot'"):
        copy_experts(params["dense"], "soft")
    with pytest.raises(ValueError, match="experts is 'soft'; it must be one of 'dense', 'moe', 'mot'"):
        dataclasses.replace(CONFIG, experts="soft")


def moved(tree):
    """Names of the leaves that are not 0."""
    leaves = jax.tree.leaves_with_path(tree)
    return {".".join(part.key for part in path) for path, leaf in leaves if np.abs(leaf).max() > 1e-6}


def in_stack(names):
    return {name for name in names if name.startswith("decoder.")}


@pytest.mark.parametrize("experts", LAYOUTS)
def test_drawing_learns_with_its_own_experts(experts, params, inputs):
    """Which weights move the flow behind a prompt that is already computed."""
    params, (images, prompt, _, latents, times) = params[experts], inputs
    state = run_prompt(CONFIG, params, images, prompt)
    loss = lambda params: jnp.sum(velocity(CONFIG, params, state, latents, times) ** 2)  # noqa: E731
    stack = in_stack(moved(params))
    separate = {"dense": set(), "moe": {name for name in stack if ".mlp." in name}, "mot": stack}[experts]
    own = {name.replace("decoder.", "generation.") for name in separate}
    ways = {f"latents.{name}" for name in moved(params["latents"])}
    assert moved(jax.jit(jax.grad(loss))(params)) == (stack - separate) | own | ways


def test_reading_leaves_the_drawing_experts_alone(params, inputs):
    params, (images, prompt, branches, *_) = params["mot"], inputs

    def loss(params):
        scores = forward(CONFIG.vlm, params, images, prompt, branches)
        return jnp.sum(jnp.where(branches.valid, scores.logprobs, 0.0))

    found = moved(jax.jit(jax.grad(loss))(params))
    assert in_stack(found) == in_stack(moved(params))
    assert not any(name.startswith(("generation.", "latents.")) for name in found)


def test_time_and_thoughts_matter(params, inputs):
    images, prompt, thoughts, latents, times = inputs
    state = run_prompt(CONFIG, params["mot"], images, prompt)
    plain = flow(CONFIG, params["mot"], state, latents, times)
    assert np.abs(flow(CONFIG, params["mot"], state, latents, 1.0 - times) - plain).max() > 1e-2
    thought = run_thoughts(CONFIG, params["mot"], state, thoughts)
    np.testing.assert_array_equal(thought.length, [[3, 1], [2, 3]])
    assert np.abs(flow(CONFIG, params["mot"], state, latents, times, thought) - plain).max() > 1e-2
