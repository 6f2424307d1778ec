"""What an experiment compiles, traced: two independent counts of its floating-point operations agree."""

import functools

import jax
import pytest

from experiments.configs import lvrpo_scenes, mmrpt_scenes
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.methods import method_of
from mmrpt_jax.stages.topology.flops import count_flops

NAMES = {
    mmrpt_scenes: ("score", "imitate", "rollout", "gain", "reference", "update", "answer"),
    lvrpo_scenes: (
        "sft",
        "answers",
        "answers_reference",
        "drawings",
        "drawings_reference",
        "update",
        "answer",
        "draw",
    ),
}


@functools.cache
def programs_of(module):
    """With everything that a program is compiled for."""
    config = module.get_config()
    if config.method == "mmrpt":
        config.fill.warmup_steps = 1
        config.rl.loss.update(kl="k3", kl_coefficient=0.1)
        config.rl.rewards.visual_gain = 1.0
        config.rl.visual_gain.of = "truth"
    else:
        config.understanding.loss.update(kl="k3", kl_coefficient=0.1)
    method = method_of(config)
    return method.programs(config, method.model(config, config.tokenizer.vocab_size), make_mesh())


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__.split(".")[-1])
def test_the_programs_there_are(module):
    assert tuple(programs_of(module)) == NAMES[module]


@pytest.mark.parametrize(
    "module, name", [(module, name) for module, names in NAMES.items() for name in names]
)
def test_flops_by_formula_are_those_of_the_traced_function(module, name):
    program = programs_of(module)[name]
    traced = jax.jit(program.run).trace(*program.arguments)
    # The formula leaves out what is neither attention, projection nor head, and the scores that a backward pass
    # computes anew: one product of attention's six.
    assert count_flops(traced.jaxpr.jaxpr, trips=program.trips) == pytest.approx(program.flops, rel=0.04)
