import jax
import numpy as np
import pytest

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.models.weights import save_weights
from mmrpt_jax.stages.lvrpo.examples_test import make_run, one_device, tiny_config
from mmrpt_jax.stages.lvrpo.pretrain import imitation_batches, imitation_tasks, run_pretrain


class Written:
    """Stands for the writer of metrics."""

    def __init__(self):
        self.steps = {}

    def rewind(self, stage, step):
        pass

    def write(self, stage, step, metrics):
        self.steps.setdefault(stage, {})[step] = metrics


def open_run(folder, *, experts="mot", **init):
    config = tiny_config()
    config.latent.experts = experts
    config.init.update(init)
    return make_run(folder, config=config, writer=Written(), mesh=one_device())


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def differ(a, b):
    """Whether any number of two trees differs."""
    return any(
        (np.asarray(x) != np.asarray(y)).any() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def parts(params, *names):
    return {name: params[name] for name in names}


# Where to begin.


@pytest.fixture(scope="module")
def understanding(tmp_path_factory):
    """A file of parameters that only understand, and what is in it."""
    folder = tmp_path_factory.mktemp("understanding")
    params = random_parameters(open_run(folder).vlm)
    save_weights(folder / "weights.safetensors", params)
    return str(folder / "weights.safetensors"), params


@pytest.mark.parametrize("experts", ["mot", "moe", "dense"])
def test_what_understands_is_taken_over_and_the_experts_are_copies_of_it(tmp_path, understanding, experts):
    path, given = understanding
    run = open_run(tmp_path, experts=experts, understanding=path)
    params = run.first_weights()
    assert_equal(parts(params, *given), given)
    decoder = given["decoder"]
    twins = {"mot": decoder, "moe": {"layers": {"mlp": decoder["layers"]["mlp"]}}, "dense": None}[experts]
    assert_equal(params.get("generation"), twins)
    # The way in and out of latents is new, and the head says zero.
    assert params.keys() == {*given, "latents"} | ({"generation"} if twins else set())
    assert not np.asarray(params["latents"]["outward"]["kernel"]).any()
    assert np.asarray(params["latents"]["inward"]["kernel"]).std() > 0
    # What is trained must have the shapes and places of the run's model.
    like = abstract_parameters(run.model, run.mesh)
    assert jax.tree.map(lambda x: (x.shape, x.sharding), params) == jax.tree.map(
        lambda x: (x.shape, x.sharding), like
    )


def test_weights_of_a_whole_model_are_taken_as_they_are(tmp_path):
    given = random_parameters(open_run(tmp_path).model)
    assert differ(given["generation"], given["decoder"])
    save_weights(tmp_path / "whole.safetensors", given)
    # They come before those of a part, which need not even exist.
    assert_equal(
        open_run(tmp_path, weights=str(tmp_path / "whole.safetensors"), understanding="no").first_weights(),
        given,
    )


def test_without_weights_the_seed_decides(tmp_path):
    first, again, other = open_run(tmp_path), open_run(tmp_path), open_run(tmp_path)
    other.config.seed = 4
    assert_equal(first.first_weights(), again.first_weights())
    params = first.first_weights()
    assert differ(params, other.first_weights())
    assert_equal(params["generation"], params["decoder"])


# What is imitated.


def test_a_stage_without_steps_leaves_the_base_where_it_begins(tmp_path, understanding):
    run = open_run(tmp_path, understanding=understanding[0])
    run.config.pretrain.steps = 0
    run_pretrain(run)
    assert_equal(run.base(), run.first_weights())
    # A stage that is complete is not run again.
    run.config.pretrain.steps = 1
    run_pretrain(run)
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["complete.json"] and not run.writer.steps


def test_tasks_are_learned_together_and_those_of_weight_zero_left_out(tmp_path):
    save_weights(tmp_path / "whole.safetensors", random_parameters(open_run(tmp_path).model))
    run = open_run(tmp_path, weights=str(tmp_path / "whole.safetensors"))
    run.config.pretrain.steps = 12
    run.config.pretrain.weights.update({"captions": 0.0, "questions": 0.5, "drawings": 2.0})
    run_pretrain(run)
    written = run.writer.steps["pretrain"]
    assert list(written) == list(range(1, 13))
    tasks = {name.split("/")[0] for name in written[1] if name.endswith("/loss")}
    assert tasks == {"questions", "drawings"}
    for values in written.values():
        total = 0.5 * values["questions/loss"] + 2 * values["drawings/loss"]
        assert values["loss"] == pytest.approx(total, rel=1e-5)
    # Every part of the model learns, and something is learned.
    before, after = run.first_weights(), run.weights(tmp_path / "base" / "weights.safetensors")
    assert all(differ(after[name], before[name]) for name in before)
    for task in tasks:
        losses = [written[step][f"{task}/loss"] for step in range(1, 13)]
        assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3]), (task, losses)


@pytest.mark.parametrize("suffix", ["", "_policy"])
def test_every_task_has_its_loss_and_its_batch(tmp_path, suffix):
    run = open_run(tmp_path)
    # There are no captions among what the policies are given.
    weights = {"drawings": 2.0, "questions": 0.5} | ({} if suffix else {"captions": 1.0})
    tasks, batch = (
        imitation_tasks(run.config, run.model, weights),
        next(imitation_batches(run, weights, suffix)(0)),
    )
    assert {name: task.weight for name, task in tasks.items()} == weights and batch.keys() == weights.keys()
    for name, task in tasks.items():
        total, (count, _) = jax.eval_shape(task.loss, abstract_parameters(run.model), batch[name])
        assert total.shape == count.shape == ()
