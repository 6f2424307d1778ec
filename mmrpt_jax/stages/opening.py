"""Where a run begins: its records, its model, what it reads, its autoencoder, before anything is trained."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.data.damage import ignore, usable
from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.data.processor import FixedSizeProcessor, Processor
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.records import RandomAccess, open_records
from mmrpt_jax.data.scene_source import SceneSource
from mmrpt_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.autoencoder import Autoencoder, PatchAutoencoder
from mmrpt_jax.models.families.flux import read_autoencoder
from mmrpt_jax.models.linear_autoencoder import (
    fit_linear_autoencoder,
    load_linear_autoencoder,
    save_linear_autoencoder,
)
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.stages.published import open_published
from mmrpt_jax.stages.published_unified import PublishedUnified
from mmrpt_jax.stages.trained import with_training
from mmrpt_jax.training.processes import agreed, by_writer

_TOKENIZER_CORPUS = 2000
# What a linear autoencoder is fitted to.
_PICTURES = 600


def open_source(config: ConfigDict, *, captions: int, size: int | None = None) -> RandomAccess[Any]:
    """The training records: scenes, or a converted dataset.

    Raises:
        ValueError: unknown kind, or no path.
    """
    data = config.data
    if data.kind == "scenes":
        size = data.records if size is None else size
        return SceneSource(data.world, split="train", stream=config.seed, size=size, captions=captions)
    if data.kind != "records":
        raise ValueError(f"config.data.kind is 'scenes' or 'records', not {data.kind!r}")
    if not data.path:
        raise ValueError("config.data.path must name a dataset made by `python -m data_prep.convert`")
    return open_records(data.path, data.split)


def model_config(config: ConfigDict, vocab_size: int) -> VLMConfig:
    """The model that a config describes, or that of the checkpoint it names, which has a vocabulary of its own.

    Raises:
        ValueError: that checkpoint draws, too.
    """
    if config.init.hf:
        published = open_published(config.init.hf)
        if isinstance(published, PublishedUnified):
            raise ValueError(f"the checkpoint in {published.folder} draws: it is lvrpo that trains it whole")
        return with_training(published.model, config)
    vision = config.model.vision.to_dict()
    transformer = TransformerConfig(rope=None, **vision.pop("transformer"))
    model = VLMConfig(
        vocab_size=vocab_size,
        decoder=TransformerConfig(**config.model.decoder.to_dict()),
        vision=VisionConfig(transformer=transformer, **vision),
    )
    return with_training(model, config)


def unified_config(config: ConfigDict, vocab_size: int) -> UnifiedConfig:
    """The model that also draws: `config.latent` says how many pixels a latent holds, and what draws.

    Or that of the checkpoint that the config names, of which `config.latent` says how large it draws.

    Raises:
        ValueError: that checkpoint does not draw, or not images of that size.
    """
    if config.init.hf:
        model = _drawing_checkpoint(config).unified(tuple(config.latent.image_size) or None)
        return dataclasses.replace(model, vlm=with_training(model.vlm, config))
    latent, vlm = config.latent, model_config(config, vocab_size)
    return UnifiedConfig(
        vlm=vlm,
        latent=LatentConfig(
            channels=3 * latent.downsample**2 if latent.autoencoder == "patch" else latent.channels,
            downsample=latent.downsample,
            height=vlm.vision.image_height // latent.downsample,
            width=vlm.vision.image_width // latent.downsample,
            pack=latent.pack,
            prediction=latent.prediction,
        ),
        experts=latent.experts,
    )


def _drawing_checkpoint(config: ConfigDict) -> PublishedUnified:
    published = open_published(config.init.hf)
    if not isinstance(published, PublishedUnified):
        raise ValueError(f"the checkpoint in {published.folder} does not draw")
    return published


def open_processor(config: ConfigDict, workdir: Path) -> Processor:
    """What the model reads: with its tokenizer, its images in the size or the patches that it takes."""
    if config.init.hf:
        return open_published(config.init.hf).processor(config.data)
    return fixed_processor(config, open_tokenizer(config, workdir))


def fixed_processor(config: ConfigDict, tokenizer: Tokenizer) -> FixedSizeProcessor:
    """What a model reads that a config describes: it takes images of one size."""
    vision = config.model.vision
    size = (vision.image_height, vision.image_width, vision.patch_size)
    return FixedSizeProcessor(tokenizer, *size, lengths=tuple(config.data.prompt_lengths))


def open_autoencoder(config: ConfigDict, workdir: Path) -> Autoencoder:
    """Between pictures and what is drawn of them.

    A linear one is the workdir's, else the given one, else fitted; one of convolutions is given, or the checkpoint's.
    """
    latent = config.latent
    if latent.autoencoder == "patch":
        return PatchAutoencoder(latent.downsample, shift=latent.shift, scale=latent.scale)
    if latent.autoencoder == "kl":
        path = config.init.autoencoder
        return read_autoencoder(Path(path)) if path else _drawing_checkpoint(config).autoencoder()
    path = workdir / "autoencoder.safetensors"
    if not agreed(path.exists()):
        by_writer(_keep_linear_autoencoder, config, path)
    return load_linear_autoencoder(path)


def _keep_linear_autoencoder(config: ConfigDict, path: Path) -> None:
    """Made once, by one process: a fit on another machine may have other signs."""
    latent = config.latent
    if config.init.autoencoder:
        coder = load_linear_autoencoder(config.init.autoencoder)
    else:
        coder = fit_linear_autoencoder(
            _pictures(config), downsample=latent.downsample, channels=latent.channels
        )
    save_linear_autoencoder(path, coder)


def _pictures(config: ConfigDict) -> np.ndarray:
    source = DrawingSource(config.data.world, split="train", stream=config.seed, size=_PICTURES)
    return np.stack([source[index]["image"] for index in range(_PICTURES)])


def open_tokenizer(config: ConfigDict, workdir: Path) -> Tokenizer:
    """The run's tokenizer: the one in the workdir, else the shipped one, else one trained on the data's captions."""
    path = workdir / "tokenizer.json"
    if not path.exists():
        if config.init.tokenizer:
            tokenizer = load_tokenizer(config.init.tokenizer)
        else:
            tokenizer = train_tokenizer(_corpus(config), vocab_size=config.tokenizer.vocab_size)
        tokenizer.save(path)
    return load_tokenizer(path)


def _corpus(config: ConfigDict) -> Iterator[str]:
    source, wording = open_source(config, captions=1, size=_TOKENIZER_CORPUS), Wording(**config.wording)
    first = range(min(len(source), _TOKENIZER_CORPUS))
    for _, captions in usable(source, lambda record: record["captions"], ignore, order=first):
        yield from captions
        # The instructions' words are as frequent as captions are.
        yield from (wording.caption_prompt(), wording.fill_prompt(""))
