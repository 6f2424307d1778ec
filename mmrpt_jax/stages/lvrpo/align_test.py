"""Every arm takes a step or two; what is compiled for one is found by the next."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.lora import adapter_only, without_adapters
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.rewards import REWARDS
from mmrpt_jax.stages.lvrpo import align as module
from mmrpt_jax.stages.lvrpo.align import align, image_sampler, prompt_batches
from mmrpt_jax.stages.lvrpo.arms import ARMS
from mmrpt_jax.stages.lvrpo.examples_test import make_run, one_device, tiny_config
from mmrpt_jax.stages.lvrpo.pretrain_test import Written, assert_equal, differ
from mmrpt_jax.training.image_policy import IMAGE_LOSSES

DRAWS, UNDERSTANDS = ("generation", "latents"), ("decoder", "embedding", "vision")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs that two arms share are compiled for the first of them."""

    def keep(folder, seconds):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
        # The folder is looked up once, when something is first compiled.
        compilation_cache.reset_cache()

    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    keep(str(tmp_path_factory.mktemp("compiled")), 0.1)
    yield
    keep(*before)


@pytest.fixture(scope="module")
def reference():
    """An untrained model: it answers anything, and draws noise."""
    run = make_run(None, mesh=one_device())
    places = jax.tree.map(lambda x: x.sharding, abstract_parameters(run.model, run.mesh))
    return jax.device_put(random_parameters(run.model), places)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory, reference):
    """(arm, steps, updates, tasks, algorithm) -> what was learned from, metrics and parameters.

    An untrained model says nothing that earns a reward: here it is paid for saying little.
    """

    def brevity(completions, **columns):
        return [-float(len(text)) for text in completions]

    def train(name, *, steps=1, updates=1, tasks=None, algorithm="grpo"):
        config = tiny_config()
        config.understanding.rewards = {"brevity": 1.0}
        config.generation.algorithm = algorithm
        config.align.updates_per_rollout = updates
        run = make_run(tmp_path_factory.mktemp(name), config=config, writer=Written(), mesh=one_device())
        arm = ARMS[name] if tasks is None else dataclasses.replace(ARMS[name], tasks=tasks)
        seen = []

        def watched(collect, *given, **options):
            def collecting(*given):
                learned, metrics = collect(*given)
                seen.append(jax.device_get(learned))
                return learned, metrics

            return make_step(collecting, *given, **options)

        make_step = module.make_reinforcement_step
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(REWARDS, "brevity", brevity)
            patched.setattr(module, "make_reinforcement_step", watched)
            params = align(run, reference, arm, steps=steps, name=name, directory=run.workdir)
        return SimpleNamespace(learned=seen, metrics=run.writer.steps[name], params=jax.device_get(params))

    return functools.cache(train)


def answers_of(learned):
    """What was said, [B][G]."""
    tokenizer, branches = make_run(None, mesh=one_device()).tokenizer, learned.branches
    return [
        [tokenizer.decode(row[keep]) for row, keep in zip(*group, strict=True)]
        for group in zip(branches.ids, branches.valid, strict=True)
    ]


def assert_learned(found, reference, *, learns, rests):
    for name in learns:
        assert differ(found.params[name], reference[name]), name
    for name in rests:
        assert_equal(found.params[name], reference[name])


def test_the_method_answers_and_draws_in_one_update(aligned, reference):
    before = jax.tree.map(np.array, jax.device_get(reference))
    found = aligned("lvrpo", steps=2)
    assert list(found.metrics) == [1, 2]
    assert_learned(found, reference, learns=DRAWS + UNDERSTANDS, rests=())
    # The policy began as the reference, which is none the wiser.
    assert_equal(jax.device_get(reference), before)
    for values in found.metrics.values():
        assert values["loss"] == pytest.approx(
            values["understanding/loss"] + values["generation/loss"], abs=1e-6
        )
        assert "gradient_cosine/generation:understanding" in values
        assert values["generation/reward"] == values["generation/reward/prompt_likelihood"]
        assert values["understanding/reward"] == values["understanding/reward/brevity"]


def test_the_first_update_is_on_policy(aligned):
    found = aligned("lvrpo", steps=2)
    for task in ("understanding", "generation"):
        first, second = (found.metrics[step] for step in (1, 2))
        assert first[f"{task}/ratio"] == pytest.approx(1.0, abs=1e-5)
        assert first[f"{task}/clip_fraction"] == 0.0
        assert first[f"{task}/sampler_gap"] < 1e-5
        # So is every other that follows a rollout of its own.
        assert second[f"{task}/sampler_gap"] < 1e-5 and second[f"{task}/clip_fraction"] == 0.0
    # The KL is to the reference, not to the policy that drew.
    assert found.metrics[1]["generation/kl"] == pytest.approx(0.0, abs=1e-8)
    assert found.metrics[2]["generation/kl"] > 1e-6


def test_groups_are_compared_by_hand(aligned):
    (learned, _) = aligned("lvrpo", steps=2).learned
    rewards = np.float64(learned["generation"].rewards)
    expected = rewards - rewards.mean(1, keepdims=True)
    expected /= rewards.std(1, ddof=1, keepdims=True) + 1e-6
    np.testing.assert_allclose(learned["generation"].advantages, expected, rtol=1e-3)
    assert learned["generation"].trained.all() and (learned["generation"].rewards.std(1) > 0).all()
    # Of four prompts two are learned from; four images in two steps with noise.
    assert learned["generation"].rollout.path.shape == (2, 4, 3, 4, 3072)
    assert learned["generation"].ref_velocity.shape == (2, 4, 2, 4, 3072)
    assert learned["understanding"].branches.ids.shape == (2, 4, 8)


def test_who_only_answers_leaves_alone_what_draws(aligned, reference):
    found = aligned("understanding")
    assert_learned(found, reference, learns=UNDERSTANDS, rests=DRAWS)
    assert all(learned.keys() == {"understanding"} for learned in found.learned)
    assert not [name for name in found.metrics[1] if "generation" in name]


def test_who_only_draws_looks_at_nothing(aligned, reference):
    found = aligned("generation")
    assert_learned(
        found, reference, learns=("generation", "latents", "decoder", "embedding"), rests=("vision",)
    )
    assert found.learned[0].keys() == {"generation"}
    assert not [name for name in found.metrics[1] if "understanding" in name]


def test_the_best_of_each_group_is_imitated(aligned, reference):
    found = aligned("best_of", tasks=("generation",))
    (drawings,) = [learned["generation"] for learned in found.learned]
    best = drawings.rewards == drawings.rewards.max(1, keepdims=True)
    # Four of a group, one of which counts.
    np.testing.assert_array_equal(drawings.advantages, 4.0 * best)
    assert_learned(found, reference, learns=DRAWS, rests=("vision",))
    # Flow matching's error, not a ratio.
    assert found.metrics[1]["generation/loss"] > 0 and "generation/ratio" not in found.metrics[1]


def test_the_shortest_of_answers_is_imitated_where_that_is_the_best(aligned, reference):
    found = aligned("best_of", tasks=("understanding",))
    (answers,) = [learned["understanding"] for learned in found.learned]
    lengths = np.array([[len(text) for text in group] for group in answers_of(answers)])
    best = lengths == lengths.min(1, keepdims=True)
    # Those that are as short share the credit of the group's four.
    np.testing.assert_allclose(answers.advantages, 4.0 * best / best.sum(1, keepdims=True), rtol=1e-6)
    assert_learned(found, reference, learns=UNDERSTANDS, rests=DRAWS)


def test_shuffled_credit_goes_to_others_of_the_group(aligned):
    mixed = aligned("shuffled", tasks=("generation",)).learned[0]["generation"]
    rewards = np.float64(mixed.rewards)
    earned = rewards - rewards.mean(1, keepdims=True)
    earned /= rewards.std(1, ddof=1, keepdims=True) + 1e-6
    np.testing.assert_allclose(np.sort(mixed.advantages, axis=1), np.sort(earned, axis=1), rtol=1e-3)
    assert np.abs(mixed.advantages - earned).max() > 0.1


def test_where_nobody_earns_anything_nothing_is_learned(aligned, reference):
    """Noise shows nothing that a prompt asks for."""
    found = aligned("strict_only", tasks=("generation",))
    values = found.metrics[1]
    assert values["generation/reward/instruction_strict"] == values["generation/reward"] == 0.0
    assert values["generation/zero_variance_share"] == 1.0
    assert values["loss"] == values["gradient_norm"] == 0.0
    assert not found.learned[0]["generation"].trained.any()
    assert_learned(found, reference, learns=(), rests=DRAWS + UNDERSTANDS)


def test_an_arm_may_count_one_reward_alone(aligned):
    found = aligned("likelihood_only", tasks=("generation",))
    rewards = {name for name in found.metrics[1] if name.startswith("generation/reward/")}
    assert rewards == {"generation/reward/prompt_likelihood"}


# The arms above learn with "grpo" and "best_of".
@pytest.mark.parametrize("algorithm", sorted(IMAGE_LOSSES.keys() - {"grpo", "best_of"}))
def test_every_loss_of_images_takes_a_step(aligned, reference, algorithm):
    found = aligned("generation", algorithm=algorithm)
    values = found.metrics[1]
    assert np.isfinite(list(values.values())).all() and values["gradient_norm"] > 0
    assert_learned(found, reference, learns=DRAWS, rests=("vision",))
    needs = {"nft", "dpo"}
    assert (found.learned[0]["generation"].ref_velocity is not None) == (algorithm in needs)
    # While the policy is the reference, nothing parts them, and of a pair either is as likely: ln 2.
    if algorithm == "nft":
        assert values["generation/kl"] == pytest.approx(0.0, abs=1e-8)
    if algorithm == "dpo":
        assert values["generation/loss"] == pytest.approx(np.log(2), abs=1e-4)


def test_nft_remembers_who_drew_where_it_updates_twice(aligned):
    found = aligned("generation", algorithm="nft", updates=2)
    (drawings,) = [learned["generation"] for learned in found.learned]
    # The reference drew, in one rollout for both updates.
    np.testing.assert_array_equal(drawings.behaviour_velocity, drawings.ref_velocity)
    # Metrics are the second update's, whose policy is no longer the one that drew.
    values = found.metrics[1]
    assert values["generation/velocity_change"] == pytest.approx(values["generation/kl"], rel=1e-5)
    assert values["generation/kl"] > 1e-6
    # Nothing is remembered for a single update, before which the policy is the one that drew.
    once = aligned("generation", algorithm="nft")
    assert once.learned[0]["generation"].behaviour_velocity is None
    assert once.metrics[1]["generation/velocity_change"] == 0.0


def test_adapters_learn_over_a_base_that_policy_and_reference_share(tmp_path):
    config = tiny_config()
    # Of a prompt's only layer, drawings see the keys.
    config.train.lora = {"rank": 2, "alpha": 4.0, "targets": ("decoder/layers/(key|mlp)",)}
    run = make_run(tmp_path, config=config, writer=Written(), mesh=one_device())
    places = jax.tree.map(lambda x: x.sharding, abstract_parameters(run.model, run.mesh))
    reference = jax.device_put(random_parameters(run.model), places)
    arm = dataclasses.replace(ARMS["lvrpo"], tasks=("generation",))
    params = align(run, reference, arm, steps=1, name="lvrpo", directory=tmp_path)
    # One copy of the base, and two of the adapters.
    assert_same_arrays(without_adapters(params), without_adapters(reference))
    for stack in ("decoder", "generation"):
        assert differ(adapter_only(params)[stack], adapter_only(reference)[stack])


def assert_same_arrays(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert all(a is b for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))


def test_the_sampler_is_the_configs():
    cfg = tiny_config().generation.sampler
    cfg.update(guidance=2.5, guidance_interval=(0.2, 0.8), renorm="none", reduce="sum", shift=3.0)
    sampler = image_sampler(cfg)
    assert (sampler.steps, sampler.shift, sampler.kind, sampler.window) == (3, 3.0, "flow_sde", (0, 2))
    assert (sampler.noise_level, sampler.reduce) == (0.7, "sum")
    assert (sampler.guidance.text, sampler.guidance.interval, sampler.guidance.renorm) == (
        2.5,
        (0.2, 0.8),
        "none",
    )
    # Without a window there is noise in all steps.
    cfg.window = ()
    assert image_sampler(cfg).noisy_steps == (0, 3)


def test_candidates_of_every_task_side_by_side(tmp_path):
    run = make_run(tmp_path, mesh=one_device())
    run.config.understanding.oversample = 3
    both = next(prompt_batches(run, ("understanding", "generation"))(0))
    assert {name: len(batch.texts) for name, batch in both.items()} == {"understanding": 6, "generation": 4}
    alone = next(prompt_batches(run, ("understanding",))(0))
    assert alone.keys() == {"understanding"}
    # A task is given the same, whoever else takes part.
    assert alone["understanding"].texts == both["understanding"].texts
