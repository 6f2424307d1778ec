"""MMRPT in miniature with adapters: what learns, what rests, what the reference is, and stopping half-way."""

import jax
import pytest
from safetensors.numpy import load_file

from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models import initialise
from mmrpt_jax.models.weights import save_weights
from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.mmrpt import reinforce
from mmrpt_jax.stages.mmrpt.pipeline import run_experiment
from mmrpt_jax.stages.opening import model_config
from tests.end_to_end_test import untimed

ARM = "arms/mmrpt/weights.safetensors"


@pytest.fixture(scope="module")
def adapted_config(config, tmp_path_factory):
    """One arm, warm-up and reinforcement, on given weights; adapters in decoder and tower, and one side frozen."""
    config, path = (
        config.copy_and_resolve_references(),
        tmp_path_factory.mktemp("base") / "weights.safetensors",
    )
    vocabulary = load_tokenizer(config.init.tokenizer).vocab_size
    base = initialise(model_config(config, vocabulary), jax.random.key(0))
    save_weights(path, base)
    config.init.weights = str(path)
    config.stages, config.arms = ("caption", "score", "mask", "rl"), ("mmrpt",)
    config.caption.steps = config.overlays = 0
    config.fill.learning_rate_warmup = config.rl.learning_rate_warmup = 0
    # Untrained, it earns nothing: it learns to be less sure, and is held to its reference.
    config.rl.steps = 3
    config.rl.loss.update(kl="k3", kl_coefficient=0.1, entropy_coefficient=0.1)
    config.train.lora.update(rank=2, alpha=4.0, targets=("decoder", "vision/.*/query"))
    config.train.frozen = ("decoder/.*/mlp",)
    return config


@pytest.fixture(scope="module")
def adapted_run(adapted_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    run_experiment(adapted_config, str(folder))
    return folder


def test_adapters_learn_and_everything_else_rests(adapted_config, adapted_run):
    """What rests is not even written: it is where it came from."""
    learned = load_file(adapted_run / ARM)
    stacks = ("decoder.layers", "vision.stack.layers")
    assert {name.rpartition(".lora_")[0] for name in learned} == {
        *(f"{stacks[0]}.{name}" for name in ("query", "key", "value", "out")),
        f"{stacks[1]}.query",
    }
    # B begins as zero, so that nothing is added before something is learned.
    assert all(weights.any() for weights in learned.values())
    assert not (adapted_run / "base" / "weights.safetensors").exists()


def test_the_reference_is_the_policy_behind_its_warm_up(adapted_run):
    """Which the base without adapters is not."""
    warm = load_file(adapted_run / "arms/mmrpt/warmup/weights.safetensors")
    assert any(weights.any() for name, weights in warm.items() if name.endswith("lora_b"))
    lines = [line for line in read_jsonl(adapted_run / "metrics.jsonl") if line["stage"] == "mmrpt"]
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert lines[0]["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert lines[-1]["kl"] > 1e-9


def test_stopped_and_started_again_ends_bit_for_bit_the_same(
    adapted_config, adapted_run, tmp_path, monkeypatch
):
    make = reinforce.make_reinforcement_step

    def make_failing(*parts, **options):
        step = make(*parts, **options)

        def failing(state, batch):
            if int(state.step) == 2:
                raise KeyboardInterrupt
            return step(state, batch)

        return failing

    monkeypatch.setattr(reinforce, "make_reinforcement_step", make_failing)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(adapted_config, str(tmp_path))
    monkeypatch.undo()
    run_experiment(adapted_config, str(tmp_path))
    assert (tmp_path / ARM).read_bytes() == (adapted_run / ARM).read_bytes()
    assert untimed(tmp_path) == untimed(adapted_run)
