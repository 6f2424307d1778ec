"""Stage 2: how much does each word of each caption need the image? Written once, as a sidecar of the data."""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mmrpt_jax.data.damage import usable
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.prompts import encode_branches
from mmrpt_jax.data.records import RandomAccess, Record
from mmrpt_jax.data.sidecar import open_sidecar
from mmrpt_jax.dependency import auc, segment_pool, sentence_spans, tokens_to_segments, word_spans
from mmrpt_jax.models import PromptTokens
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.completion import clear, is_complete, mark_complete, write_rows
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import fetch
from mmrpt_jax.training.scoring import KINDS, TokenDependency, make_dependency_scorer, select_layers

_AUC_RECORDS = 500
# Per record: the caption scored; per word: every kind of score and the blind log-probability; per sentence: every
# kind, as MMRPT pools it (over tokens); per visual token: mass received.
FIELDS = {
    "caption": str,
    **{f"word_{kind}": float for kind in KINDS},
    "word_blind_logprob": float,
    **{f"sentence_{kind}": float for kind in KINDS},
    "patch_received": float,
}


def run_score(run: Run, params, directory: Path) -> None:
    """Scores the first caption of every training record with the policy `params`."""
    if is_complete(directory):
        return
    clear(directory)
    rows = score_records(run, params, run.train_source)
    count = write_rows(directory / "records", "scores", rows, fields=FIELDS)
    agreement = sentence_auc(run.train_source, open_sidecar(directory / "records", "train"))
    for kind, value in agreement.items():
        run.log(f"   sentences that need the image, found by {kind:<10} AUC {value:.3f}")
    mark_complete(directory, {"records": count, "layers": _layers(run), "sentence_auc": agreement})


def sentence_auc(source: RandomAccess[Any], scores: RandomAccess[Any]) -> dict[str, float]:
    """How well each kind of score tells the sentences that need the image from the others, where the data knows.

    Returns:
        Area under the ROC curve per kind (0.5 is chance); empty if the records carry no `needs_image`.
    """
    labels: list[bool] = []
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    position = 0
    for index in range(min(len(source), _AUC_RECORDS)):
        record = source[index]
        if position == len(scores) or scores[position]["id"] != record["id"]:
            continue  # of damaged images, and of none, there are no scores
        needs = json.loads(record["extra"] or "{}").get("needs_image")
        if not needs:
            return {}
        labels += needs[0]
        for kind in KINDS:
            found[kind] += scores[position][f"sentence_{kind}"].tolist()
        position += 1
    return {kind: auc(values, labels) for kind, values in found.items()}


def score_records(run: Run, params, source: RandomAccess[Any]) -> Iterator[dict[str, Any]]:
    """Yields a row of `FIELDS` per record whose images can be seen; the last batch is filled up with its last record.

    Raises:
        ConfigError: no record has an image.
    """
    cfg = run.config.score
    options = {"heads": cfg.heads, "top_k": cfg.top_k, "query_shift": cfg.query_shift}
    scorer = jax.jit(make_dependency_scorer(run.vlm, layers=_layers(run), **options))
    seen = _seen(run, source)
    while batch := list(itertools.islice(seen, cfg.batch_size)):
        count = len(batch)
        batch += batch[-1:] * (cfg.batch_size - count)
        records, views = zip(*batch, strict=True)
        texts = [escape_placeholders(record["captions"][0]) for record in records]
        inputs = run.processor.inputs(run.caption_prompts(views), views)
        branches = encode_branches(
            run.tokenizer, [[text] for text in texts], lengths=run.config.data.caption_lengths
        )
        scores = fetch(scorer(params, *run.whole.place((*inputs, branches))))
        columns = _pooled(run, texts, inputs[1], scores)
        for row in range(count):
            fields = {field: values[row] for field, values in columns.items()}
            yield {"id": records[row]["id"], "caption": texts[row]} | fields


def _seen(run: Run, source: RandomAccess[Any]) -> Iterator[tuple[Record, Any]]:
    """Records with what the model sees of them, in order.

    What is damaged has no scores, and so no masks; nor has what has no image, which no word can need.
    """

    def see(record: Record) -> tuple[Record, Any]:
        images = record["images"]
        return record, run.processor.view(*map(decode_image, images)) if images else None

    seen = imageless = 0
    for _, (record, view) in usable(source, see, run.damage.note):
        if view is None:
            imageless += 1
        else:
            seen += 1
            yield record, view
    if not seen:
        raise ConfigError(
            f"of {len(source)} records none has an image that words could need: config.stages can only be ('caption',)"
        )
    if imageless:
        run.log(f"   left out of scores and masks: {imageless} of {len(source)} records, which have no image")


def _pooled(
    run: Run, texts: Sequence[str], prompts: PromptTokens, scores: TokenDependency
) -> dict[str, list[np.ndarray]]:
    """Every field but the caption, row by row: token scores pooled over the words and over the sentences."""
    received = zip(scores.received, prompts.image_slots.sum(axis=1), strict=True)
    columns: dict[str, list[np.ndarray]] = {"patch_received": [row[:count] for row, count in received]}
    offsets = [run.tokenizer.encode(text).offsets for text in texts]
    for unit, spans_of in (("word", word_spans), ("sentence", sentence_spans)):
        spans = [spans_of(text) for text in texts]
        counts = [len(found) for found in spans]
        segments = np.full((len(texts), scores.llr.shape[-1]), -1, np.int32)
        for row, (tokens, found) in enumerate(zip(offsets, spans, strict=True)):
            segments[row, : len(tokens)] = tokens_to_segments(tokens, found)
        for kind in KINDS:
            columns[f"{unit}_{kind}"] = _per_unit(getattr(scores, kind), segments, counts, "mean")
        if unit == "word":
            columns["word_blind_logprob"] = _per_unit(scores.blind_logprobs, segments, counts, "sum")
    return columns


def _per_unit(
    tokens: Float[Array, "B 1 T"], segments: Int[np.ndarray, "B T"], counts: Sequence[int], reduce: str
) -> list[np.ndarray]:
    pooled = np.asarray(_pool(tokens[:, 0], segments, reduce=reduce))
    return [row[:count] for row, count in zip(pooled, counts, strict=True)]


@functools.partial(jax.jit, static_argnames="reduce")
def _pool(values: Float[Array, "B T"], segments: Int[Array, "B T"], *, reduce: str) -> Float[Array, "B T"]:
    """A caption has no more units than tokens, so that one program serves all captions of a length."""
    one = functools.partial(segment_pool, num_segments=values.shape[-1], reduce=reduce)
    return jax.vmap(one)(values, segments)


def _layers(run: Run) -> list[int]:
    return select_layers(run.vlm.decoder.layers, tuple(run.config.score.layer_fractions))
