"""SigLIP 2 as the external encoder of a run: what a directory holds, behind the interface of the reward."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers
from jaxtyping import Array, Float, Int, UInt8

from mmrpt_jax.data.preprocessing import ImagePreprocessor
from mmrpt_jax.data.preprocessing.families import read_preprocessor
from mmrpt_jax.models.dual_encoder import DualEncoder, DualEncoderConfig
from mmrpt_jax.models.families import siglip
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.initialise import abstract_parameters
from mmrpt_jax.models.json_file import read_json_object
from mmrpt_jax.models.patches import normalise

# Images or texts at a time; one compilation for each.
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class SiglipEncoder:
    """A loaded encoder, an `ImageTextEncoder` and a `DenseEncoder`.

    Attributes:
        config: sizes.
        params: as `DualEncoder` has them.
        tokenizer: of the directory; on which side it pads is part of what the text tower has learned.
        preprocessor: likewise.
    """

    config: DualEncoderConfig
    params: Any
    tokenizer: transformers.PreTrainedTokenizerBase
    preprocessor: ImagePreprocessor

    def encode_images(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[np.ndarray, "N D"]:
        """Embeds images of any sizes, each resized as the checkpoint wants it."""
        return self._of_images(DualEncoder.encode_images, images)

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Embeds texts, in lower case and cut to `text_length` tokens, as SigLIP 2 was trained."""
        return self._of_texts(DualEncoder.encode_texts, texts)[0]

    def encode_patches(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Float[np.ndarray, "I D"]]:
        """Embeds the patches of images."""
        return list(self._of_images(DualEncoder.encode_patches, images))

    def encode_tokens(self, texts: Sequence[str]) -> list[Float[np.ndarray, "K D"]]:
        """Embeds the tokens of texts, without padding."""
        embedded, words = self._of_texts(DualEncoder.encode_tokens, texts)
        return [rows[mask] for rows, mask in zip(embedded, words, strict=True)]

    def _of_images(self, method: Callable[..., Any], images: Sequence[np.ndarray]) -> np.ndarray:
        numbers = (self.preprocessor.mean, self.preprocessor.std)
        patches = np.stack([self.preprocessor([image]).pixels for image in images])
        return _in_batches(
            lambda rows: _embed_images(self.config, method, numbers, self.params, rows), patches
        )

    def _of_texts(self, method: Callable[..., Any], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What `method` makes of the texts' ids, and which of these are no padding."""
        encoded = self.tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.config.text_length,
            return_attention_mask=True,
            return_tensors="np",
        )
        found = _in_batches(
            lambda rows: _embed_texts(self.config, method, self.params, rows), encoded["input_ids"]
        )
        return found, encoded["attention_mask"].astype(bool)


def load_siglip(directory: str | Path) -> SiglipEncoder:
    """Loads SigLIP or SigLIP 2 at fixed resolution from a Hugging Face directory; downloads nothing.

    Raises:
        OSError: a file is missing.
        ValueError: the checkpoint is another model's, or its weights are not what `config.json` says.
    """
    directory = Path(directory)
    config = siglip.model_config(read_json_object(directory / "config.json"))
    return SiglipEncoder(
        config,
        read_weights(
            directory, siglip.weight_table(config), abstract_parameters(config), ignored=siglip.IGNORED
        ),
        transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False),
        read_preprocessor(directory),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _embed_images(
    config: DualEncoderConfig,
    method: Callable[..., Any],
    numbers: tuple,
    params: Any,
    pixels: UInt8[Array, "B N pixels"],
) -> Float[Array, "B *N D"]:
    patches = normalise(pixels, *numbers)
    with jax.default_matmul_precision("float32"):
        return DualEncoder(config).apply({"params": params}, patches, method=method)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed_texts(
    config: DualEncoderConfig, method: Callable[..., Any], params: Any, ids: Int[Array, "B T"]
) -> Float[Array, "B *T D"]:
    with jax.default_matmul_precision("float32"):
        return DualEncoder(config).apply({"params": params}, ids, method=method)


def _in_batches(embed: Callable[[np.ndarray], Array], rows: np.ndarray) -> Float[np.ndarray, "N *T D"]:
    """Embeds rows a batch at a time, the last one filled up."""
    filling = [(0, -len(rows) % _BATCH)] + [(0, 0)] * (rows.ndim - 1)
    batches = np.split(np.pad(rows, filling), range(_BATCH, len(rows), _BATCH))
    return np.concatenate([embed(batch) for batch in batches])[: len(rows)]
