import pytest

from experiments.benchmarks.common.shapes import Shape
from experiments.benchmarks.published_sizes import PUBLISHED
from experiments.benchmarks.tpu_compile import compare, configured
from mmrpt_jax.models import abstract_parameters, count_parameters

SHAPE = Shape(prompts=4, group=8, prompt_tokens=100, branch_tokens=20, patches=256)


@pytest.mark.parametrize(
    "name, count",
    # As the index of the published files counts them.
    [("qwen2_5_vl_3b", 3_754_622_976), ("qwen2_5_vl_7b", 8_292_166_656)],
)
def test_published_models_have_as_many_parameters_as_their_files(name, count):
    assert count_parameters(abstract_parameters(PUBLISHED[name]())) == count


def test_bagel_has_two_decoders_of_seven_billion():
    params = abstract_parameters(PUBLISHED["bagel_7b"]())
    assert count_parameters(params) == pytest.approx(14.6e9, rel=0.02)
    assert count_parameters(params["generation"]) == count_parameters(params["decoder"])


@pytest.mark.parametrize("model", ["qwen2_5_vl_7b", "bagel_7b"])
def test_copies_are_as_many_answers_with_a_prompt_each(model):
    sections = ("rl",) if model == "qwen2_5_vl_7b" else ("understanding", "generation")
    for shape, expected in ((SHAPE, (4, 8)), (SHAPE.copied(), (32, 1))):
        config, _ = configured(model, shape)
        assert [(config[s].prompts_per_step, config[s].group_size) for s in sections] == [expected] * len(
            sections
        )
        assert config.data.prompt_lengths == (100,)


def test_shared_prompts_as_parts_of_copied_ones():
    numbers = {"ms": 10.15, "TFLOP": 2.0, "GB moved": 3.0, "GiB peak": 4.0}
    common = {"slice": "v5e:2x2", "program": "update"}
    rows = [
        {**common, "prompts": "shared", **numbers},
        {**common, "prompts": "copied", "ms": 40.6, "TFLOP": 4.0, "GB moved": 3.0, "GiB peak": 8.0},
        {"slice": "v5e:2x2", "program": "score", "prompts": "shared", **numbers},
    ]
    assert compare(rows) == [
        # 4e12 FLOPs take 20.3 ms at 197e12 a second.
        "v5e:2x2 update, shared / copied: 0.25 ms, 0.50 TFLOP, 1.00 GB moved, 0.50 GiB peak, "
        "0.50 ms of products alone"
    ]
