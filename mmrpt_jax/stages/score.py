"""Stage 2: how much does each word of each caption need the image? Written once, as a sidecar of the data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.examples import load_image, stack_images
from mmrpt_jax.data.prompts import encode_branches
from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import open_sidecar, write_sidecar
from mmrpt_jax.dependency import auc, sentence_spans, tokens_to_segments, word_spans
from mmrpt_jax.stages.caption import caption_prompts
from mmrpt_jax.stages.run import Run, clear, is_complete, mark_complete
from mmrpt_jax.training.scoring import KINDS, make_dependency_scorer, select_layers

_AUC_RECORDS = 500
# Per record: the caption scored; per word: every kind of score and the blind log-probability; per sentence: every
# kind, as MMRPT pools it (over tokens); per image patch: mass received.
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
    counts = write_sidecar(directory / "records", "scores", {"train": rows}, fields=FIELDS)
    agreement = sentence_auc(run.train_source, open_sidecar(directory / "records", "train"))
    for kind, value in agreement.items():
        run.log(f"   sentences that need the image, found by {kind:<10} AUC {value:.3f}")
    mark_complete(directory, {"records": counts["train"], "layers": _layers(run), "sentence_auc": agreement})


def sentence_auc(source: RandomAccess[Any], scores: RandomAccess[Any]) -> dict[str, float]:
    """How well each kind of score tells the sentences that need the image from the others, where the data knows.

    Returns:
        Area under the ROC curve per kind (0.5 is chance); empty if the records carry no `needs_image`.
    """
    labels: list[bool] = []
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(min(len(source), _AUC_RECORDS)):
        needs = json.loads(source[index]["extra"] or "{}").get("needs_image")
        if not needs:
            return {}
        labels += needs[0]
        for kind in KINDS:
            found[kind] += scores[index][f"sentence_{kind}"].tolist()
    return {kind: auc(values, labels) for kind, values in found.items()}


def score_records(run: Run, params, source: RandomAccess[Any]) -> Iterator[dict[str, Any]]:
    """Yields one row of `FIELDS` per record, in order; the last batch is filled up with its last record."""
    cfg = run.config.score
    scorer = jax.jit(
        make_dependency_scorer(run.model, layers=_layers(run), heads=cfg.heads, query_shift=cfg.query_shift)
    )
    prompts = caption_prompts(run, cfg.batch_size)
    for start in range(0, len(source), cfg.batch_size):
        records = [source[min(i, len(source) - 1)] for i in range(start, start + cfg.batch_size)]
        texts = [escape_placeholders(record["captions"][0]) for record in records]
        images = stack_images([load_image(record["image"], *run.image_shape) for record in records])
        branches = encode_branches(
            run.tokenizer, [[text] for text in texts], lengths=run.config.data.caption_lengths
        )
        scores = jax.device_get(scorer(params, images, prompts, branches))
        for row in range(min(cfg.batch_size, len(source) - start)):
            tokens = {kind: getattr(scores, kind)[row, 0] for kind in (*KINDS, "blind_logprobs")}
            yield _row(run, records[row]["id"], texts[row], tokens, scores.received[row])


def _row(
    run: Run, record_id: str, text: str, tokens: dict[str, np.ndarray], received: np.ndarray
) -> dict[str, Any]:
    offsets = run.tokenizer.encode(text).offsets
    words, sentences = word_spans(text), sentence_spans(text)
    to_word, to_sentence = tokens_to_segments(offsets, words), tokens_to_segments(offsets, sentences)
    count = len(offsets)
    row: dict[str, Any] = {"id": record_id, "caption": text, "patch_received": received}
    for kind in KINDS:
        row[f"word_{kind}"] = _pool(tokens[kind][:count], to_word, len(words))
        row[f"sentence_{kind}"] = _pool(tokens[kind][:count], to_sentence, len(sentences))
    row["word_blind_logprob"] = np.bincount(
        np.maximum(to_word, 0), np.where(to_word >= 0, tokens["blind_logprobs"][:count], 0.0), len(words)
    )
    return row


def _pool(values: np.ndarray, segments: np.ndarray, count: int) -> np.ndarray:
    """Means over segments, on the host: `dependency.segment_pool` would compile once per caption length."""
    inside = segments >= 0
    total = np.bincount(segments[inside], values[inside], count)
    return total / np.maximum(np.bincount(segments[inside], minlength=count), 1)


def _layers(run: Run) -> list[int]:
    return select_layers(run.model.decoder.layers, tuple(run.config.score.layer_fractions))
