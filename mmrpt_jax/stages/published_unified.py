"""A public checkpoint that draws, too, and the autoencoder beside it; it is used like a `published.Published`."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.data.checkpoint_processor import CheckpointProcessor
from mmrpt_jax.data.checkpoint_tokenizer import CheckpointTokenizer, load_checkpoint_tokenizer
from mmrpt_jax.data.preprocessing.families import DRAWING_CONVENTIONS
from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.models.autoencoder import Autoencoder
from mmrpt_jax.models.checkpoint_files import open_checkpoint
from mmrpt_jax.models.families.drawing import DRAWING_FAMILIES, DrawingFamily
from mmrpt_jax.models.import_weights import check_fit, read_weights
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.weight_table import Weight, flatten


@dataclasses.dataclass(frozen=True)
class PublishedUnified:
    """A directory of a family that draws.

    Attributes:
        folder: the directory.
        kind: name of the family in `DRAWING_FAMILIES`.
    """

    folder: Path
    kind: str

    # Its own code opens one file.
    max_shard_bytes: ClassVar[int] = sys.maxsize

    @property
    def weights_name(self) -> str:
        """Of the file with the model's weights."""
        return self._family.weights_name

    @property
    def companions(self) -> tuple[str, ...]:
        """Files of weights beside the model's: the autoencoder."""
        return (self._family.autoencoder,)

    @property
    def fixed_tensors(self) -> dict[str, np.ndarray]:
        """Tensors that are no weights, without which its own code does not load the file."""
        return self._family.fixed_tables(self.unified(), self._shapes())

    @property
    def model(self) -> VLMConfig:
        """What understands, in float32 and without adapters."""
        return self.unified().vlm

    def unified(self, image_size: tuple[int, int] | None = None) -> UnifiedConfig:
        """The whole model, likewise, to draw images of this height and width in pixels; None: of the largest square.

        Raises:
            ValueError: it cannot draw images of that size, or the files contradict each other.
        """
        numbers, shapes = self._family.read_config(self.folder), self._shapes()
        marks = tuple(self._id(mark) for mark in self._family.image_marks)
        try:
            return self._family.model_config(numbers, shapes, image_marks=marks, image_size=image_size)
        except KeyError as error:
            raise ValueError(f"the files in {self.folder} do not say {error}") from error

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in open_checkpoint(self._weights_file).items()}

    def processor(self, data: ConfigDict) -> CheckpointProcessor:
        """What it reads, in the buckets of `config.data`."""
        known, vision = DRAWING_CONVENTIONS[self.kind], self.model.vision
        return CheckpointProcessor(
            self._tokenizer,
            known.understanding(vision.patch_size, min(vision.image_height, vision.image_width)),
            known.text,
            lengths=tuple(data.prompt_lengths),
            patch_counts=tuple(data.patch_counts),
        )

    @property
    def weight_table(self) -> list[Weight]:
        """What it calls our weights."""
        return self._family.weight_table(self.unified())

    @property
    def module_table(self) -> list[Weight]:
        """What its own code calls our weights, which is the same."""
        return self.weight_table

    def weights(self, abstract: Any) -> Any:
        """Its weights, in the types and on the devices of `abstract`, which may be what understands alone.

        Raises as `read_weights`.
        """
        table = self.weight_table
        unused = [w.theirs.replace("{layer}", "*") for w in table if w.ours.split("/")[0] not in abstract]
        return read_weights(self._weights_file, table, abstract, ignored=[*self._family.ignored, *unused])

    def check_weights(self) -> None:
        """Compares names and shapes with those of the model, without reading a number; raises as `read_weights`."""
        leaves = flatten(abstract_parameters(self.unified()))
        check_fit(self._weights_file, self.weight_table, leaves, ignored=self._family.ignored)

    def autoencoder(self) -> Autoencoder:
        """Between pictures and the latents that it draws; raises as `read_weights`."""
        return self._family.read_autoencoder(self.folder / self._family.autoencoder)

    @property
    def _family(self) -> DrawingFamily:
        return DRAWING_FAMILIES[self.kind]

    @property
    def _weights_file(self) -> Path:
        return self._family.weights_file(self.folder)

    @functools.cached_property
    def _tokenizer(self) -> CheckpointTokenizer:
        known = DRAWING_CONVENTIONS[self.kind]
        return load_checkpoint_tokenizer(
            self.folder, image_token=known.text.token, chat_template=known.template
        )

    def _id(self, mark: str) -> int:
        ids = self._tokenizer.encode(mark).ids
        if len(ids) != 1:
            raise ValueError(
                f"the tokenizer in {self.folder} has no {mark}, which stands beside drawn images: is it the model's?"
            )
        return ids[0]
