from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from mmrpt_jax.rewards import score
from mmrpt_jax.stages.mmrpt.rewards import computes_gain, configured_rewards, gain_column
from mmrpt_jax.training.processes import Share


def config_of(rewards, of="answer"):
    rl = {
        "rewards": rewards,
        "visual_gain": {"of": of, "cap": 3.0},
        "semantic_encoder": "",
        "reward_timeout": 0,
    }
    return ConfigDict({"rl": rl, "data": {"branch_lengths": (4, 8)}})


def test_weights_of_zero_are_not_computed():
    weights = {"exact_match": 1.0, "format": 0.1, "semantic": 0.0, "visual_gain": 0.0, "length": -0.5}
    rewards = configured_rewards(SimpleNamespace(config=config_of(weights)))
    assert {name: weight for name, (_, weight) in rewards.items()} == {
        "exact_match": 1.0,
        "format": 0.1,
        "length": -0.5,
    }


def test_a_configured_mix_by_hand():
    run = SimpleNamespace(config=config_of({"exact_match": 1.0, "format": 0.1}))
    completions = ["<think></think><answer>red</answer>", "<think></think><answer>blue</answer>", "red"]
    table = score(
        configured_rewards(run), prompts=["?"] * 3, completions=completions, columns={"answer": ["red"] * 3}
    )
    assert table.total.tolist() == pytest.approx([1.1, 0.1, 0.0])


@pytest.mark.parametrize(
    ("rewards", "of", "computed"),
    [
        ({"visual_gain": 1.0}, "answer", True),
        ({"grounded_match": 1.0}, "truth", True),
        ({"visual_gain": 1.0}, "span", False),
        ({"grounded_match": 1.0}, "surprise", False),
        ({"visual_gain": 0.0, "exact_match": 1.0}, "answer", False),
    ],
)
def test_forward_passes_for_the_gain(rewards, of, computed):
    assert computes_gain(config_of(rewards, of)) is computed


@pytest.mark.parametrize(("of", "judge"), [("truth", "policy"), ("answer", "reference")])
def test_who_judges_the_gain(monkeypatch, of, judge):
    def make(model, tokenizer, **options):
        assert options == {"of": of, "lengths": (4, 8), "cap": 3.0, "share": share}
        return lambda params, batch, completions: [params, *completions]

    monkeypatch.setattr("mmrpt_jax.stages.mmrpt.rewards.make_visual_gain", make)
    config, share = config_of({"visual_gain": 1.0}, of), Share()
    run = SimpleNamespace(config=config, vlm=None, tokenizer=None, share=share)
    assert gain_column(run, "reference")("policy", None, ["a"]) == {"visual_gain": [judge, "a"]}
    run.config.rl.rewards.visual_gain = 0.0
    assert gain_column(run, "reference")("policy", None, ["a"]) == {}
