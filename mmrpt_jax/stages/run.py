"""What every stage needs: the config, the folder it writes to, the model, the tokenizer, the data."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.examples import AUGMENTATIONS, Pixels, SeeImage
from mmrpt_jax.data.fitting import keep_captions
from mmrpt_jax.data.images import image_size
from mmrpt_jax.data.pipeline import make_dataset, make_iterator
from mmrpt_jax.data.processor import FixedSizeProcessor, Processor
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.records import RandomAccess, Record, open_records
from mmrpt_jax.data.scene_source import SceneSource
from mmrpt_jax.data.tokenizer import EOS, MASK, Tokenizer, load_tokenizer, train_tokenizer
from mmrpt_jax.evaluation.evaluator import Evaluator
from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig, abstract_parameters, initialise
from mmrpt_jax.models.autoencoder import Autoencoder, PatchAutoencoder
from mmrpt_jax.models.config import LatentConfig, UnifiedConfig
from mmrpt_jax.models.linear_autoencoder import (
    fit_linear_autoencoder,
    load_linear_autoencoder,
    save_linear_autoencoder,
)
from mmrpt_jax.models.lora import adapter_only, without_adapters
from mmrpt_jax.models.paths import overlay
from mmrpt_jax.models.sharding import batch_sharding
from mmrpt_jax.models.weights import load_weights
from mmrpt_jax.stages.trained import what_trains, with_training
from mmrpt_jax.training.metrics import MetricWriter

# Orders in which a run reads data.
STREAMS = ("caption", "supervised", "policy", "infill", "caption_control", "infill_control", "finetune")
DRAWING_STREAMS = ("question", "drawing", "question_policy", "drawing_policy")
_TOKENIZER_CORPUS = 2000
# What a linear autoencoder is fitted to.
_PICTURES = 600


@dataclasses.dataclass(frozen=True)
class Run:
    """One experiment in one folder; without a writer nothing is trained, only looked at."""

    config: ConfigDict
    workdir: Path
    processor: Processor
    model: VLMConfig | UnifiedConfig
    writer: MetricWriter | None
    mesh: Mesh

    @property
    def vlm(self) -> VLMConfig:
        """What understands; all of the model, if it does not draw."""
        return self.model.vlm if isinstance(self.model, UnifiedConfig) else self.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.processor.tokenizer

    @functools.cached_property
    def wording(self) -> Wording:
        """How prompts are worded."""
        return Wording(**self.config.wording.to_dict())

    @property
    def see(self) -> SeeImage:
        """What the model sees of an encoded training image."""
        return SeeImage(self.processor.view, AUGMENTATIONS[self.config.data.augment])

    def views(self, images: Iterable[Pixels]) -> list[Any]:
        """What the model sees of prompts of one image each."""
        return [self.processor.view(image) for image in images]

    @functools.cached_property
    def coder(self) -> Autoencoder:
        """The autoencoder of what is drawn."""
        return open_autoencoder(self.config, self.workdir)

    @functools.cached_property
    def train_source(self) -> RandomAccess[Any]:
        """Records that the masked captions are made of."""
        return self.source(captions=1)

    def source(self, *, captions: int, size: int | None = None) -> RandomAccess[Any]:
        """Training records with captions that fit; `captions` per scene and `size` scenes, where they are scenes."""
        if self.config.data.kind == "scenes":
            return open_source(self.config, captions=captions, size=size)
        return self._records

    @functools.cached_property
    def _records(self) -> RandomAccess[Any]:
        longest = max(self.config.data.caption_lengths)

        def fits(record: Record, caption: str) -> bool:
            text = escape_placeholders(caption)
            # The longest prompt made of a caption shows all of it but one word, and a blank.
            masked = self.wording.fill_prompt(f"{text} {MASK}")
            short = len(self.tokenizer.encode(f"{text}{EOS}").ids) <= longest
            return short and self.processor.fits(masked, *image_size(record["image"]))

        kept, captions, records = keep_captions(open_source(self.config, captions=1), fits)
        if captions or records:
            self.log(
                f"   left out: {captions} captions too long for config.data's lengths, "
                f"{records} records with no caption to use"
            )
        return kept

    @property
    def logging(self) -> dict[str, Any]:
        """Where `training.loop.train` reports and how often it reports and saves."""
        config = self.config
        return {
            "writer": self.writer,
            "log_every": config.log_every,
            "save_every": config.save_every,
            "log": self.log,
        }

    def evaluator(self, *, batch_size: int, max_tokens: int | None = None) -> Evaluator:
        """A compiled evaluator of what understands; it says up to `max_tokens`, by default as much as an answer."""
        data = self.config.data
        return Evaluator(
            self.vlm,
            self.processor,
            self.wording,
            batch_size=batch_size,
            text_lengths=tuple(data.caption_lengths),
            max_tokens=max_tokens or max(data.branch_lengths),
            place=self.place,
        )

    @property
    def trains(self) -> Callable[[str], bool] | None:
        """Path -> whether a parameter trains; None if all do."""
        return what_trains(self.config)

    def weights(self, path: Path) -> Any:
        """Parameters from a file of this run, placed on the mesh."""
        return load_weights(path, abstract_parameters(self.model, self.mesh))

    def base_weights(self, path: Path, model: VLMConfig | UnifiedConfig | None = None) -> Any:
        """Weights that come from elsewhere, without adapters, placed on the mesh; of `model`, by default the run's."""
        plain = without_adapters(abstract_parameters(model or self.model, self.mesh))
        return load_weights(path, plain)

    def with_adapters(self, params: Any) -> Any:
        """Plain weights with fresh adapters beside them, which add nothing yet; `params` where there are to be none."""
        if not self.config.train.lora.rank:
            return params
        adapters = initialise(self.model, self.key("adapters"), self.mesh, part=adapter_only)
        return overlay(params, adapters)

    def place(self, batch: Any) -> Any:
        """Puts arrays on the mesh, split over their leading (prompt) axis."""
        return jax.device_put(batch, batch_sharding(self.mesh))

    def key(self, name: str) -> jax.Array:
        """A PRNG key of this run, one stream per name."""
        return jax.random.fold_in(jax.random.key(self.config.seed), _hash(name))

    def data_seed(self, stream: str) -> int:
        """The seed of one of the run's data orders; no two streams of any two runs share one."""
        first, streams = (0, STREAMS) if stream in STREAMS else (2**30, DRAWING_STREAMS)
        return first + self.config.seed * len(streams) + streams.index(stream)

    def timed(self, name: str, stage: Callable[[], Any]) -> None:
        """Runs a stage, and tells the user its name and how long it took."""
        self.log(f"── {name}")
        start = time.monotonic()
        stage()
        self.log(f"   {time.monotonic() - start:.1f} s")

    def log(self, text: str) -> None:
        """Tells the user."""
        print(text, flush=True)


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
    """The model that a config describes."""
    vision = config.model.vision.to_dict()
    transformer = TransformerConfig(rope=None, **vision.pop("transformer"))
    model = VLMConfig(
        vocab_size=vocab_size,
        decoder=TransformerConfig(**config.model.decoder.to_dict()),
        vision=VisionConfig(transformer=transformer, **vision),
    )
    return with_training(model, config)


def unified_config(config: ConfigDict, vocab_size: int) -> UnifiedConfig:
    """The model that also draws: `config.latent` says how many pixels a latent holds, and what draws."""
    latent, vlm = config.latent, model_config(config, vocab_size)
    return UnifiedConfig(
        vlm=vlm,
        latent=LatentConfig(
            channels=latent.channels if latent.autoencoder == "linear" else 3 * latent.downsample**2,
            downsample=latent.downsample,
            height=vlm.vision.image_height // latent.downsample,
            width=vlm.vision.image_width // latent.downsample,
            pack=latent.pack,
            prediction=latent.prediction,
        ),
        experts=latent.experts,
    )


def fixed_processor(config: ConfigDict, tokenizer: Tokenizer, model: VLMConfig) -> FixedSizeProcessor:
    """What a model reads that takes images of one size."""
    vision = model.vision
    size = (vision.image_height, vision.image_width, vision.patch_size)
    return FixedSizeProcessor(tokenizer, *size, lengths=tuple(config.data.prompt_lengths))


def open_autoencoder(config: ConfigDict, workdir: Path) -> Autoencoder:
    """Between pictures and what is drawn of them; a linear one is the workdir's, else the given one, else fitted."""
    latent = config.latent
    if latent.autoencoder == "patch":
        return PatchAutoencoder(latent.downsample, shift=latent.shift, scale=latent.scale)
    path = workdir / "autoencoder.safetensors"
    if not path.exists():
        if config.init.autoencoder:
            coder = load_linear_autoencoder(config.init.autoencoder)
        else:
            coder = fit_linear_autoencoder(
                _pictures(config), downsample=latent.downsample, channels=latent.channels
            )
        save_linear_autoencoder(path, coder)
    return load_linear_autoencoder(path)


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
    for index in range(min(len(source), _TOKENIZER_CORPUS)):
        yield from source[index]["captions"]
        # The instructions' words are as frequent as captions are.
        yield from (wording.caption, wording.fill_prompt(""))


def batches(
    source: RandomAccess[Any], transform: Any, build: Callable[[dict], Any], *, seed: int, batch_size: int
) -> Callable[[int], Iterator[Any]]:
    """Returns `open(step)`, an iterator of built batches that begins with the batch of `step`."""
    dataset = make_dataset(source, seed=seed, batch_size=batch_size, transform=transform)

    def open_at(step: int) -> Iterator[Any]:
        for batch in make_iterator(dataset, start_step=step):
            yield build(batch)

    return open_at


def side_by_side(
    streams: Mapping[str, Callable[[int], Iterator[Any]]],
) -> Callable[[int], Iterator[dict[str, Any]]]:
    """Returns `open(step)`, an iterator of one batch of every stream, by name."""

    def open_at(step: int) -> Iterator[dict[str, Any]]:
        opened = {name: stream(step) for name, stream in streams.items()}
        while True:
            yield {name: next(batch) for name, batch in opened.items()}

    return open_at


def _hash(name: str) -> int:
    """A 31-bit number that is the same in every process (FNV-1a)."""
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value >> 1
