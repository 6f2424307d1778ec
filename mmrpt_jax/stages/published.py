"""A public checkpoint to begin with, as `config.init.hf` names it: its model, what it reads, its weights."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.data.checkpoint_processor import CheckpointProcessor
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.preprocessing.families import image_text, read_preprocessor
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor
from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.models.checkpoint_files import WEIGHTS
from mmrpt_jax.models.families.drawing import drawing_family_of
from mmrpt_jax.models.families.registry import Family, find_family
from mmrpt_jax.models.hub import resolve_checkpoint
from mmrpt_jax.models.import_weights import check_fit, read_weights
from mmrpt_jax.models.json_file import read_json_object
from mmrpt_jax.models.weight_table import Weight, flatten
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.published_unified import PublishedUnified

# Rows of an embedding.
_COMPARED = 256


@dataclasses.dataclass(frozen=True)
class Published:
    """A Hugging Face directory of a family that is known here.

    Attributes:
        folder: the directory.
        numbers: its `config.json`.
        family: what the family's checkpoints share.
        preprocessor: of its images.
        model: in float32 and without adapters.
    """

    folder: Path
    numbers: dict[str, Any]
    family: Family
    preprocessor: ImagePreprocessor
    model: VLMConfig
    # How its weights are written: in which files, and what stands beside them.
    max_shard_bytes: ClassVar[int] = 5 * 10**9
    weights_name: ClassVar[str] = WEIGHTS
    companions: ClassVar[tuple[str, ...]] = ()
    fixed_tensors: ClassVar[Mapping[str, np.ndarray]] = MappingProxyType({})

    def processor(self, data: ConfigDict) -> CheckpointProcessor:
        """What it reads, in the buckets of `config.data`."""
        text = image_text(self.numbers["model_type"])
        return CheckpointProcessor(
            load_checkpoint_tokenizer(self.folder, image_token=text.token),
            self.preprocessor,
            text,
            lengths=tuple(data.prompt_lengths),
            patch_counts=tuple(data.patch_counts),
        )

    @property
    def weight_table(self) -> list[Weight]:
        """What it calls our weights."""
        return self.family.weight_table(self.model)

    @property
    def module_table(self) -> list[Weight]:
        """What a model that `transformers` loads from it calls our weights."""
        return self.family.module_table(self.model)

    def weights(self, abstract: Any) -> Any:
        """Its weights, in the types and on the devices of `abstract`; raises as `read_weights`."""
        return read_weights(self.folder, self.weight_table, abstract, **self._naming)

    def check_weights(self) -> None:
        """Compares names and shapes with those of the model; raises as `read_weights`.

        Raises:
            ValueError: the model's output matrix is its embedding, and the checkpoint has another one.
        """
        leaves = flatten(abstract_parameters(self.model))
        stored, weights = check_fit(self.folder, self.weight_table, leaves, **self._naming)
        heads = [tensor for name, tensor in stored.items() if name.endswith("lm_head.weight")]
        if self.model.tied and heads:
            embedding = stored[weights["embedding"].theirs]
            # What is trained apart differs everywhere.
            if not np.array_equal(*(tensor.view()[:_COMPARED] for tensor in (heads[0], embedding))):
                raise ValueError(
                    f"{self.folder} has an output matrix beside its embedding, and its config.json says that they are "
                    "one: set tie_word_embeddings to false"
                )

    @property
    def _naming(self) -> dict[str, Any]:
        return {"ignored": self.family.ignored, "spellings": self.family.spellings}


def check_published(config: ConfigDict, model_of: Callable[[ConfigDict, int], Any]) -> None:
    """Checks that the checkpoint of `config.init.hf` can be read, where one is named.

    Args:
        config: with its `init` and `data`.
        model_of: the model that a config and a number of token ids describe.

    Raises:
        ConfigError: it cannot, or something else is named to begin with.
    """
    if not config.init.hf:
        return
    for name, path in config.init.items():
        if name != "hf" and path:
            raise ConfigError(
                f"config.init.{name} and config.init.hf both say where to begin: leave one empty"
            )
    if not config.data.patch_counts:
        raise ConfigError(
            "config.data.patch_counts is empty: say how many patches the images of a prompt may have, as in (256, 1024)"
        )
    try:
        published = open_published(config.init.hf)
        processor = published.processor(config.data)
        processor.prompts(["a prompt"])
        published.check_weights()
        model_of(config, processor.tokenizer.vocab_size)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.init.hf: {error}") from error
    token = processor.preprocessor.merge**2
    if odd := [count for count in config.data.patch_counts if count % token]:
        raise ConfigError(
            f"config.data.patch_counts: {odd[0]} is no multiple of {token}, the patches of a visual token"
        )


def open_published(name: str) -> Published | PublishedUnified:
    """Opens a local directory, or "hub:owner/name".

    Raises:
        FileNotFoundError: there is no such directory, or a file is missing in it.
        ValueError: it is of a family that is not known, or its files do not belong together.
    """
    folder = resolve_checkpoint(name)
    if kind := drawing_family_of(folder):
        return PublishedUnified(folder, kind)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: there is no config.json in it")
    numbers = read_json_object(path)
    family = find_family(numbers)
    try:
        model = family.model_config(numbers)
    except KeyError as error:
        raise ValueError(f"{path} does not say {error}, which a {numbers['model_type']} needs") from error
    images = read_preprocessor(folder)
    model = dataclasses.replace(model, vision=images.complete(model.vision))
    return Published(folder, numbers, family, images, model)
