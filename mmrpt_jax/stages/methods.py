"""The methods there are, and what a launch needs of each."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.models import UnifiedConfig, VLMConfig
from mmrpt_jax.stages.checks import one_of
from mmrpt_jax.stages.lvrpo import evaluate as lvrpo_evaluate
from mmrpt_jax.stages.lvrpo import pipeline as lvrpo_pipeline
from mmrpt_jax.stages.lvrpo import plan as lvrpo_plan
from mmrpt_jax.stages.lvrpo import programs as lvrpo_programs
from mmrpt_jax.stages.lvrpo import validate as lvrpo_validate
from mmrpt_jax.stages.mmrpt import evaluate as mmrpt_evaluate
from mmrpt_jax.stages.mmrpt import pipeline as mmrpt_pipeline
from mmrpt_jax.stages.mmrpt import plan as mmrpt_plan
from mmrpt_jax.stages.mmrpt import programs as mmrpt_programs
from mmrpt_jax.stages.mmrpt import validate as mmrpt_validate
from mmrpt_jax.stages.opening import model_config, unified_config
from mmrpt_jax.stages.topology.program import Program
from mmrpt_jax.training.stopping import StopRequest


class Method(NamedTuple):
    """One method, end to end.

    Attributes:
        check: raises `ConfigError` on the first thing that is wrong with a config, for the devices that it is given.
        describe: says what a config would do.
        programs: what a config, its model and a mesh compile.
        run: runs it in a folder until it is done, or asked to stop.
        model: the model that a config and a number of token ids describe.
        headline_columns: which columns of its rows to show.
    """

    check: Callable[..., None]
    describe: Callable[[ConfigDict], str]
    programs: Callable[[ConfigDict, Any, Mesh], Mapping[str, Program]]
    run: Callable[[ConfigDict, str, StopRequest], None]
    model: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig]
    headline_columns: Callable[[Sequence[dict[str, Any]]], list[str]]


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mmrpt": Method(
            mmrpt_validate.check_config,
            mmrpt_plan.describe_plan,
            mmrpt_programs.programs,
            mmrpt_pipeline.run_experiment,
            model_config,
            mmrpt_evaluate.headline_columns,
        ),
        "lvrpo": Method(
            lvrpo_validate.check_config,
            lvrpo_plan.describe_plan,
            lvrpo_programs.programs,
            lvrpo_pipeline.run_experiment,
            unified_config,
            lvrpo_evaluate.headline_columns,
        ),
    }
)


def method_of(config: ConfigDict) -> Method:
    """The method that a config names.

    Raises:
        ConfigError: there is no such method.
    """
    one_of("method", config.get("method"), METHODS)
    return METHODS[config.method]
