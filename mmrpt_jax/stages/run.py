"""What every stage needs: the config, the folder it writes to, the model, the tokenizer, the data."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.data.damage import Damage, Note, ignore
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.examples import AUGMENTATIONS, Pixels, SeeImages
from mmrpt_jax.data.fitting import describe, keep_captions
from mmrpt_jax.data.images import image_size
from mmrpt_jax.data.pipeline import make_dataset, make_iterator
from mmrpt_jax.data.processor import Processor
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.records import RandomAccess, Record
from mmrpt_jax.data.tokenizer import EOS, MASK, Tokenizer
from mmrpt_jax.evaluation.evaluator import Evaluator
from mmrpt_jax.models import VLMConfig, abstract_parameters, initialise
from mmrpt_jax.models.autoencoder import Autoencoder
from mmrpt_jax.models.lora import adapter_only, without_adapters
from mmrpt_jax.models.paths import overlay, split
from mmrpt_jax.models.unified import copy_experts
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.weights import load_weights, save_weights
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.opening import open_autoencoder, open_source
from mmrpt_jax.stages.published import open_published
from mmrpt_jax.stages.trained import what_trains
from mmrpt_jax.training.metrics import MetricWriter
from mmrpt_jax.training.processes import (
    Share,
    Whole,
    agreed,
    by_writer,
    demand_same,
    fetch_to_writer,
    is_writer,
)
from mmrpt_jax.training.stopping import NEVER, StoppedError, StopRequest

# Orders in which a run reads data.
STREAMS = ("caption", "supervised", "policy", "infill", "caption_control", "infill_control", "finetune")
DRAWING_STREAMS = ("question", "drawing", "question_policy", "drawing_policy")


@dataclasses.dataclass(frozen=True)
class Run:
    """One experiment in one folder; without a writer nothing is trained, only looked at."""

    config: ConfigDict
    workdir: Path
    processor: Processor
    model: VLMConfig | UnifiedConfig
    writer: MetricWriter | None
    mesh: Mesh
    stop: StopRequest = NEVER

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
    def see(self) -> SeeImages:
        """What the model sees of the encoded images of a training record."""
        return SeeImages(self.processor.view, AUGMENTATIONS[self.config.data.augment])

    def views(self, images: Iterable[Pixels]) -> list[Any]:
        """What the model sees of prompts of one image each."""
        return [self.processor.view(image) for image in images]

    def caption_prompts(self, views: Iterable[Any]) -> list[str]:
        """Prompts behind which captions stand, with room for the images of their views."""
        return [self.wording.caption_prompt(self.processor.count_images(view)) for view in views]

    def fill_prompts(self, masked: Iterable[str], views: Iterable[Any]) -> list[str]:
        """Prompts that ask for the hidden spans of masked captions, with room for the images of their views."""
        counts = map(self.processor.count_images, views)
        return [self.wording.fill_prompt(*prompt) for prompt in zip(masked, counts, strict=True)]

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

        def misfit(record: Record, caption: str) -> str | None:
            text, sizes = escape_placeholders(caption), [image_size(image) for image in record["images"]]
            if not self.processor.fits(self.wording.caption_prompt(len(sizes)), *sizes):
                return "captions of images that config.data.patch_counts or config.data.prompt_lengths do not hold"
            # The longest prompt made of a caption shows all of it but one word, and a blank.
            masked = self.wording.fill_prompt(f"{text} {MASK}", len(sizes))
            short = len(self.tokenizer.encode(f"{text}{EOS}").ids) <= longest
            fits = short and self.processor.fits(masked, *sizes)
            return None if fits else "captions too long for config.data's lengths"

        try:
            kept, left = keep_captions(open_source(self.config, captions=1), misfit, self.damage.note)
        except ValueError as error:
            raise ConfigError(f"{self.config.data.path}: {error}") from error
        demand_same(len(kept), "numbers of usable captions")
        if left:
            self.log(f"   left out: {describe(left)}")
        return kept

    @property
    def logging(self) -> dict[str, Any]:
        """Where `training.loop.train` reports, how often it reports and saves, and what ends it early."""
        config = self.config
        return {
            "writer": self.writer,
            "log_every": config.log_every,
            "save_every": config.save_every,
            "max_skipped": config.train.max_skipped,
            "stop": self.stop,
            "log": self.log,
        }

    def evaluator(
        self, *, batch_size: int, max_tokens: int | None = None, batches: Whole | None = None
    ) -> Evaluator:
        """A compiled evaluator of what understands; it says up to `max_tokens`, by default as much as an answer.

        All processes ask it the same, unless `batches` are of `self.share`.
        """
        data = self.config.data
        return Evaluator(
            self.vlm,
            self.processor,
            self.wording,
            batch_size=batch_size,
            text_lengths=tuple(data.caption_lengths),
            max_tokens=max_tokens or max(data.branch_lengths),
            batches=batches or self.whole,
        )

    @property
    def trains(self) -> Callable[[str], bool] | None:
        """Path -> whether a parameter trains; None if all do."""
        return what_trains(self.config)

    def save(self, path: Path, params: Any) -> None:
        """Writes what trains of the parameters, in the types that they have; the rest is where the run began."""
        trained = params if self.trains is None else split(params, self.trains)[0]
        by_writer(save_weights, path, fetch_to_writer(trained))

    def weights(self, path: Path) -> Any:
        """Parameters of which `save` wrote what trains, placed on the mesh."""
        abstract = abstract_parameters(self.model, self.mesh)
        if self.trains is None:
            return load_weights(path, abstract)
        trained = load_weights(path, split(abstract, self.trains)[0])
        return overlay(split(self.first_weights(), self.trains)[1], trained)

    def base(self) -> Any:
        """Parameters that every arm begins with: what the first stage trained, or where the run began."""
        path = self.workdir / "base" / "weights.safetensors"
        return self.weights(path) if agreed(path.exists()) else self.first_weights()

    def arm(self, name: str) -> Any:
        """Parameters of an arm that is finished; one that is not trained is the base."""
        path = self.workdir / "arms" / name / "weights.safetensors"
        return self.weights(path) if agreed(path.exists()) else self.base()

    def first_weights(self) -> Any:
        """The weights that `config.init` names, with fresh adapters beside them; fresh ones if it names none.

        A model that draws may be given the part that understands: its experts that draw begin as copies of that.
        """
        init = self.config.init
        if init.hf:
            return self._adapted(open_published(init.hf).weights(self._plain(self.model)))
        if init.weights:
            return self._adapted(load_weights(init.weights, self._plain(self.model)))
        fresh = initialise(self.model, self.key("init"), self.mesh)
        if not init.get("understanding"):
            return fresh
        understanding = load_weights(init.understanding, self._plain(self.vlm))
        return self._adapted(copy_experts(fresh | understanding, self.model.experts))

    def _plain(self, model: VLMConfig | UnifiedConfig) -> Any:
        """Abstract parameters of weights that come from elsewhere, which have no adapters."""
        return without_adapters(abstract_parameters(model, self.mesh))

    def _adapted(self, params: Any) -> Any:
        """Plain weights with fresh adapters beside them, which add nothing yet; `params` where there are to be none."""
        if not self.config.train.lora.rank:
            return params
        adapters = initialise(self.model, self.key("adapters"), self.mesh, part=adapter_only)
        return overlay(params, adapters)

    @property
    def whole(self) -> Whole:
        """Batches of which every process has all rows; they are split over their leading (prompt) axis."""
        return Whole(self.mesh)

    @property
    def share(self) -> Share:
        """Batches of which every process has its own rows."""
        return Share(self.mesh)

    def batches(
        self,
        source: RandomAccess[Any],
        transform: Any,
        build: Callable[[dict], Any],
        *,
        stream: str,
        batch_size: int,
    ) -> Callable[[int], Iterator[Any]]:
        """`batches` in the order of one of the run's streams; `build` is given the own rows of each batch."""
        rows = self.share.rows(batch_size)
        seed, note = self.data_seed(stream), self.damage.note
        return batches(source, transform, build, seed=seed, batch_size=batch_size, note=note, rows=rows)

    def key(self, name: str) -> jax.Array:
        """A PRNG key of this run, one stream per name."""
        return jax.random.fold_in(jax.random.key(self.config.seed), _hash(name))

    def data_seed(self, stream: str) -> int:
        """The seed of one of the run's data orders; no two streams of any two runs share one."""
        first, streams = (0, STREAMS) if stream in STREAMS else (2**30, DRAWING_STREAMS)
        return first + self.config.seed * len(streams) + streams.index(stream)

    @functools.cached_property
    def damage(self) -> Damage:
        """Records that this run could not use."""
        return Damage()

    def timed(self, name: str, stage: Callable[[], Any]) -> None:
        """Runs a stage, and tells the user its name and how long it took.

        Raises:
            StoppedError: the run was asked to stop.
        """
        # Of several processes, none is interrupted elsewhere than between steps and stages.
        if self.stop.heard():
            raise StoppedError("stopped; the same command goes on from the last stage that is complete")
        self.log(f"── {name}")
        start = time.monotonic()
        try:
            stage()
        finally:
            if told := self.damage.tell():
                # Every process tells of its own.
                print(
                    f"   {told}; training took the next ones in their places, other stages went without",
                    flush=True,
                )
        self.log(f"   {time.monotonic() - start:.1f} s")

    def log(self, text: str) -> None:
        """Tells the user, once."""
        if is_writer():
            print(text, flush=True)


def batches(
    source: RandomAccess[Any],
    transform: Any,
    build: Callable[[dict], Any],
    *,
    seed: int,
    batch_size: int,
    note: Note = ignore,
    rows: Sequence[int] | None = None,
) -> Callable[[int], Iterator[Any]]:
    """Returns `open(step)`, an iterator of built batches that begins with the batch of `step`.

    `build` is given the `rows` of each batch of `batch_size`, or all of it. Records that cannot be used are noted, and
    replaced by the next ones.
    """
    dataset = make_dataset(
        source, seed=seed, batch_size=batch_size, transform=transform, note=note, rows=rows
    )

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
