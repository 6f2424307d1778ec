"""Which model the flags choose, and what titles say of it."""

import jax
import pytest

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.sizes import SIZES, add_size, of_model, sized_model
from mmrpt_jax.models import abstract_parameters


def options(*flags, default="small"):
    parser = benchmark_parser("it", "", repeats=2)
    add_size(parser, default=default)
    return parser.parse_args(flags)


def test_flags_choose_the_model():
    assert (options().size, options().dtype) == ("small", "float32")
    assert of_model(options("--size=qwen2_5_vl_3b", "--dtype=bfloat16")) == " of qwen2_5_vl_3b in bfloat16"
    assert of_model(options(default=None)) == " in float32"
    assert of_model(benchmark_parser("it", "", repeats=2).parse_args([])) == ""


@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_had_in_bfloat16(size):
    leaves = jax.tree.leaves(abstract_parameters(sized_model(size, "bfloat16")))
    assert {leaf.dtype.name for leaf in leaves} == {"bfloat16"}


def test_the_small_model_is_as_large_as_it_says():
    model = sized_model()
    assert (model.decoder.layers, model.decoder.width, model.vocab_size) == (8, 256, 8192)
    assert (model.vision.transformer.layers, model.vision.transformer.width) == (4, 128)


def test_a_column_without_values_is_left_out(capsys):
    rows = [{"a": 1, "b": None, "c": 2}, {"a": 3, "b": None}]
    parser = benchmark_parser("it", "", repeats=2)
    assert run_benchmark(parser, lambda options: rows, ("a", "b", "c"), lambda options: "", []) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["a", "c"]
