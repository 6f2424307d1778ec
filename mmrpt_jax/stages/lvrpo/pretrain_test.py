import itertools

import jax
import numpy as np
import pytest

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.models.weights import save_weights
from mmrpt_jax.stages.lvrpo.examples_test import make_run, one_device, tiny_config
from mmrpt_jax.stages.lvrpo.pretrain import begin, imitate, run_pretrain


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
    params = begin(run)
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
        begin(open_run(tmp_path, weights=str(tmp_path / "whole.safetensors"), understanding="no")), given
    )


def test_without_weights_the_seed_decides(tmp_path):
    first, again, other = open_run(tmp_path), open_run(tmp_path), open_run(tmp_path)
    other.config.seed = 4
    assert_equal(begin(first), begin(again))
    params = begin(first)
    assert differ(params, begin(other))
    assert_equal(params["generation"], params["decoder"])


# What is imitated.


def train(run, **options):
    given = random_parameters(run.model)
    placed = jax.device_put(
        given, jax.tree.map(lambda x: x.sharding, abstract_parameters(run.model, run.mesh))
    )
    params = imitate(run, placed, run.config.pretrain, stage="s", directory=run.workdir, **options)
    return given, jax.device_get(params), run.writer.steps["s"]


def test_all_three_tasks_in_one_update(tmp_path):
    run = open_run(tmp_path)
    run.config.pretrain.weights.update({"captions": 1.0, "questions": 0.5, "drawings": 2.0})
    given, params, written = train(run, steps=12)
    assert sorted(written) == list(range(1, 13))
    for values in written.values():
        total = values["captions/loss"] + 0.5 * values["questions/loss"] + 2 * values["drawings/loss"]
        assert values["loss"] == pytest.approx(total, rel=1e-5)
    pairs = {frozenset(name.split("/")[1].split(":")) for name in written[1] if "cosine" in name}
    assert pairs == {frozenset(pair) for pair in itertools.combinations(run.config.pretrain.weights, 2)}
    # Every part of the model learns, and something is learned.
    assert all(differ(params[name], given[name]) for name in given)
    for task in ("captions", "questions", "drawings"):
        first, last = (
            np.mean([written[step][f"{task}/loss"] for step in steps]) for steps in ((1, 2), (11, 12))
        )
        assert last < 0.9 * first, task


# The stage.


def test_a_stage_without_steps_writes_where_it_begins(tmp_path, understanding):
    run = open_run(tmp_path, understanding=understanding[0])
    run.config.pretrain.steps = 0
    run_pretrain(run)
    path = tmp_path / "base" / "weights.safetensors"
    assert_equal(run.weights(path), begin(run))
    # A stage that is complete is not run again.
    path.write_bytes(b"kept")
    run_pretrain(run)
    assert path.read_bytes() == b"kept" and not run.writer.steps


def test_tasks_of_weight_zero_are_left_out(tmp_path):
    save_weights(tmp_path / "whole.safetensors", random_parameters(open_run(tmp_path).model))
    run = open_run(tmp_path, weights=str(tmp_path / "whole.safetensors"))
    run.config.pretrain.weights.update({"captions": 0.0, "questions": 0.0})
    run_pretrain(run)
    written = run.writer.steps["pretrain"]
    assert list(written) == [1, 2]
    assert {name.split("/")[0] for name in written[1] if "/" in name} == {"drawings"}
    # Whoever only draws looks at nothing; the rest of the model has learned.
    before, after = begin(run), run.weights(tmp_path / "base" / "weights.safetensors")
    assert_equal(after["vision"], before["vision"])
    assert all(
        differ(after[name], before[name]) for name in ("generation", "latents", "decoder", "embedding")
    )
