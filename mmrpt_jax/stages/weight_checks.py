"""Do the weights that a run begins with belong to its model? Told from the headers of files, before any work."""

from collections.abc import Callable, Mapping

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open

from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.models.lora import without_adapters
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.checks import ConfigError


def check_weights(
    config: ConfigDict, field: str, model_of: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig]
) -> None:
    """Checks that the file of `config.init.<field>` holds the parameters of the model, where a file is named.

    How many token ids there are is known before anything runs only if `init.tokenizer` is named too.

    Args:
        config: with its `init`, whose files are there.
        field: names the weights.
        model_of: the model that a config and a number of token ids describe.

    Raises:
        ConfigError: it does not; the message names a parameter and both shapes.
    """
    if config.init[field] and config.init.tokenizer:
        model = model_of(config, load_tokenizer(config.init.tokenizer).vocab_size)
        # Adapters are laid beside weights that come without them.
        params = without_adapters(abstract_parameters(model))
        shapes = {name: leaf.shape for name, leaf in flatten_dict(params, sep=".").items()}
        check_shapes(f"init.{field}", config.init[field], shapes)


def check_shapes(field: str, path: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Checks the shapes of a safetensors file, by name, without reading its numbers.

    Raises:
        ConfigError: one is another or not there, or there are more; the message tells the first and counts the others.
    """
    try:
        with safe_open(path, "numpy") as file:
            # A single number may be kept with an axis or without one.
            stored = {name: tuple(file.get_slice(name).get_shape()) or (1,) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ConfigError(f"config.{field}: {path} is no safetensors file: {error}") from None
    problems = [
        f"{name} is {stored[name]} in {path}, and {shape} in the model that the config describes"
        for name, shape in wanted.items()
        if stored.get(name, shape) != shape
    ]
    problems += [
        f"{path} lacks {name} of shape {wanted[name]}" for name in sorted(wanted.keys() - stored.keys())
    ]
    problems += [
        f"{path} has {name} of shape {stored[name]}, which the config describes no place for"
        for name in sorted(stored.keys() - wanted.keys())
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"config.{field}: {problems[0]}{more}")
