import pytest

from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.lvrpo.arms import ARMS, Arm
from mmrpt_jax.stages.lvrpo.budget import QUESTIONS, THINGS, arm_steps, budget_flops, step_flops
from mmrpt_jax.stages.opening import unified_config
from mmrpt_jax.training.compute import drawing_flops, forward_flops
from tests.miniature import miniature_lvrpo_config

POLICY = ARMS["lvrpo"]


@pytest.fixture
def config():
    config = miniature_lvrpo_config()
    config.generation.rewards.update(prompt_likelihood=0.0)
    config.understanding.oversample = 1
    return config


@pytest.fixture(scope="module")
def model() -> UnifiedConfig:
    return unified_config(miniature_lvrpo_config(), vocab_size=64)


def answers(model, prompts=8, group=2):
    return forward_flops(model.vlm, prompts=prompts, group=group, prompt_tokens=40, branch_tokens=8)


def drawings(model, images=2, looks=3):
    return drawing_flops(model, prompts=8, prompt_tokens=20, images=images, looks=looks)


def test_a_step_of_both_tasks(config, model):
    # Rollouts are one pass, updates three; images take three steps to draw and are learned from in two.
    expected = (1 + 3) * answers(model) + drawings(model) + 3 * drawings(model, looks=2)
    assert step_flops(config, model, POLICY) == pytest.approx(expected)
    one = step_flops(config, model, ARMS["understanding"]), step_flops(config, model, ARMS["generation"])
    assert sum(one) == pytest.approx(expected) and one[0] == pytest.approx(4 * answers(model))


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        # Candidates are drawn, not learned from.
        ({"oversample": 3}, lambda m: 3 * drawings(m) + 3 * drawings(m, looks=2)),
        # The reference looks once at what is learned from.
        ({"losses.grpo.kl": "exact"}, lambda m: drawings(m) + 4 * drawings(m, looks=2)),
        # All steps of an SDE have noise where there is no window.
        ({"sampler.window": ()}, lambda m: drawings(m) + 3 * drawings(m, looks=3)),
        # Guidance looks twice, and learns from one of the two.
        ({"sampler.guidance": 2.0}, lambda m: 2 * drawings(m) + 4 * drawings(m, looks=2)),
        # At fresh noise images are looked at once, by dpo the best and the worst of each group, by the reference too.
        ({"algorithm": "rwr"}, lambda m: drawings(m) + 3 * drawings(m, looks=1)),
        ({"algorithm": "dpo"}, lambda m: drawings(m) + 4 * drawings(m, images=2, looks=1)),
        # The judge reads every image behind a caption's prompt.
        (
            {"rewards.prompt_likelihood": 1.0},
            lambda m: (
                drawings(m)
                + 3 * drawings(m, looks=2)
                + forward_flops(m.vlm, prompts=16, group=1, prompt_tokens=40, branch_tokens=20)
            ),
        ),
        (
            {"rewards.knowledge": 1.0},
            lambda m: drawings(m) + 3 * drawings(m, looks=2) + answers(m, prompts=16 * QUESTIONS, group=1),
        ),
        # Two answers to each question, in the 48 tokens that a caption takes.
        (
            {"rewards.yes_probability": 1.0},
            lambda m: (
                drawings(m)
                + 3 * drawings(m, looks=2)
                + forward_flops(m.vlm, prompts=16 * THINGS, group=2, prompt_tokens=40, branch_tokens=48)
            ),
        ),
    ],
)
def test_what_drawing_spends(config, model, changes, passes):
    config.generation.update_from_flattened_dict(changes)
    assert step_flops(config, model, ARMS["generation"]) == pytest.approx(passes(model))


def test_equal_compute(config, model):
    assert budget_flops(config, model) == 3 * step_flops(config, model, POLICY)
    assert arm_steps(config, model, POLICY) == 3
    assert arm_steps(config, model, ARMS["base"]) == 0
    imitation = 3 * answers(model, group=1) + 3 * drawings(model, images=1, looks=1)
    assert step_flops(config, model, ARMS["sft"]) == pytest.approx(imitation)
    assert arm_steps(config, model, ARMS["sft"]) == round(budget_flops(config, model) / imitation)


@pytest.mark.parametrize(
    ("weights", "step"),
    [
        ({"drawings": 0.0}, lambda m: 3 * answers(m, group=1)),
        ({"questions": 0.0}, lambda m: 3 * drawings(m, images=1, looks=1)),
    ],
)
def test_what_is_not_imitated_is_not_charged(config, model, weights, step):
    config.sft.weights.update(weights)
    assert step_flops(config, model, ARMS["sft"]) == pytest.approx(step(model))


def test_two_updates_per_rollout_cost_two(config, model):
    config.align.updates_per_rollout = 2
    expected = 7 * answers(model)
    assert step_flops(config, model, Arm("policy", tasks=("understanding",))) == pytest.approx(expected)
