import jax
import pytest

from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.evaluation.representations import effective_rank
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.stages.lvrpo import evaluate
from mmrpt_jax.stages.lvrpo.evaluate import inside
from mmrpt_jax.stages.lvrpo.examiner import open_examiner
from mmrpt_jax.stages.lvrpo.examples_test import make_run, one_device, tiny_config
from mmrpt_jax.training.compilations import compilations


@pytest.fixture
def run(tmp_path):
    config = tiny_config()
    config.evaluate = {"samples": 1, "steps": 1, "guidance": 1.0, "batch_size": 24, "caption_tokens": 8}
    return make_run(tmp_path, config=config, mesh=one_device())


def test_a_second_arm_compiles_nothing(run, monkeypatch):
    # No multiple of the batch's 24.
    monkeypatch.setattr(evaluate, "_STATES", 40)
    arm = random_parameters(run.model)
    other = jax.tree.map(lambda leaf: 0.5 * leaf, arm)
    examiner = open_examiner(run)
    first = inside(run, examiner, arm)
    compiled = compilations()
    second = inside(run, examiner, other)
    assert compilations() == compiled
    assert first.keys() == second.keys() >= {"effective_rank", "gradient_cosine/decoder/attention"}
    assert 1.0 < first["effective_rank"] < 16 and first["effective_rank"] != second["effective_rank"]
    # All at once, in one batch that is not filled up.
    source = QuestionSource("biased", split="test", size=40)
    views = run.views(source[index]["image"] for index in range(40))
    states = examiner.states(arm, *run.processor.inputs([run.wording.caption] * 40, views))
    assert first["effective_rank"] == pytest.approx(effective_rank(states), rel=1e-4)
