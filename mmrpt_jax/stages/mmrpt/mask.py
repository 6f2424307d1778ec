"""Stage 3: cut out what needs the image. Written as a sidecar: masked captions and what they hide."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.data.examples import ANSWER_SEPARATOR
from mmrpt_jax.data.prompts import completion
from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import open_sidecar
from mmrpt_jax.data.tokenizer import MASK
from mmrpt_jax.dependency import sentence_spans, tokens_to_segments, word_spans
from mmrpt_jax.masking import (
    apply_mask,
    choose_spans,
    content_word_spans,
    keep_unsolved,
    random_spans,
    top_patch_mask,
)
from mmrpt_jax.stages.completion import clear, is_complete, mark_complete, write_rows
from mmrpt_jax.stages.mmrpt.leaks import BlindReader, make_blind_reader
from mmrpt_jax.stages.run import Run

# Per mask: what is shown, what is hidden, the sentence it was hidden from, where it stood; log p of the span without
# the image, given what `config.mask.blind_reads` says, and what the image adds to it per word in its caption (nats),
# both under the policy that scored.
FIELDS = {
    "masked": str,
    "answer": str,
    "sentence": str,
    "first_word": int,
    "last_word": int,
    "blind_logprob": float,
    "span_llr": float,
}
# Per record: the image patches that training prompts do not show.
PATCH_FIELDS = {"hidden_patches": int}
METHODS = ("dependency", "random", "content")
# Captions whose masks are read together.
_CHUNK = 512


def run_mask(run: Run, params: Any, scores: Path, directory: Path, method: str) -> None:
    """Writes the masks of every scored caption that has any.

    Args:
        run: the experiment.
        params: of the policy that scored.
        scores: folder of the score stage.
        directory: where to write.
        method: "dependency" is MMRPT; "random" and "content" are the baselines.

    Raises:
        ValueError: unknown method, or no caption kept a mask.
    """
    if is_complete(directory):
        return
    if method not in METHODS:
        raise ValueError(f"masks are chosen by one of {', '.join(METHODS)}, not {method!r}")
    counts: Counter[str] = Counter()
    blind = make_blind_reader(run, params) if run.config.mask.blind_reads == "prompt" else None
    rows = list(mask_rows(run, open_sidecar(scores / "records", "train"), method, counts, blind))
    if not rows:
        raise ValueError(
            f"no caption kept a mask ({dict(counts)}): lower config.mask thresholds or leak filter, or allow longer "
            "config.data.branch_lengths"
        )
    clear(directory)
    write_rows(directory / "records", "masks", rows, fields=FIELDS | PATCH_FIELDS)
    mark_complete(directory, {"method": method, **counts})


def mask_rows(
    run: Run,
    scores: RandomAccess[Any],
    method: str,
    counts: Counter[str],
    blind: BlindReader | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields a row of all fields per caption that keeps a mask; `counts` says what became of the others.

    Args:
        run: the experiment.
        scores: rows of the score stage.
        method: as in `run_mask`.
        counts: counted up.
        blind: reads masked captions; without it, spans are as likely as the words before them make them.
    """
    cfg = run.config.mask
    for start in range(0, len(scores), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(scores)))
        found = [_masks(run, scores[index], index, method, counts) for index in chunk]
        if blind is not None:
            _read(blind, [mask for _, masks in found for mask in masks])
        for row, masks in found:
            kept = _unsolved(masks, cfg.max_blind_probability)
            counts["leaked"] += len(masks) - len(kept)
            if kept:
                counts["captions_kept"] += 1
                yield row | {field: [mask[field] for mask in kept] for field in FIELDS}


def _masks(
    run: Run, row: dict[str, Any], index: int, method: str, counts: Counter[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A caption's own fields, and its masks that can be answered in a branch."""
    cfg, text = run.config.mask, row["caption"][0]
    rng = np.random.default_rng((run.config.seed, index))
    spans, size = _choose(cfg, text, row, method, rng), cfg.spans_per_prompt
    masks = [_hide(cfg, text, row, spans[i : i + size]) for i in range(0, len(spans), size)]
    short = [mask for mask in masks if _fits(run, mask)]
    counts["captions"] += 1
    counts["prompts"] += len(masks)
    counts["too_long"] += len(masks) - len(short)
    return {"id": row["id"], "hidden_patches": _hidden_patches(cfg, row, rng)}, short


def _read(blind: BlindReader, masks: Sequence[dict[str, Any]]) -> None:
    logprobs = blind([mask["masked"] for mask in masks], [mask["answer"] for mask in masks])
    for mask, logprob in zip(masks, logprobs, strict=True):
        mask["blind_logprob"] = float(logprob)


def _unsolved(masks: Sequence[dict[str, Any]], max_blind_probability: float) -> list[dict[str, Any]]:
    scores = np.array([mask["blind_logprob"] for mask in masks])
    keep = keep_unsolved(scores, max_blind=np.log(max_blind_probability))
    return list(itertools.compress(masks, keep))


def _hidden_patches(cfg, row: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Indices of the share of patches to hide: those that the caption looked at most, or any."""
    received = row["patch_received"]
    scores = rng.random(received.shape) if cfg.patch_choice == "random" else received
    return np.flatnonzero(np.asarray(top_patch_mask(scores, cfg.patch_share)))


def _fits(run: Run, mask: dict[str, Any]) -> bool:
    """Whether the completion that is asked for can be written within the longest branch."""
    thought = mask["sentence"] if run.config.fill.think == "sentence" else ""
    length = len(run.tokenizer.encode(completion(thought, mask["answer"])).ids)
    return length <= max(run.config.data.branch_lengths)


def _choose(
    cfg, text: str, row: dict[str, Any], method: str, rng: np.random.Generator
) -> list[tuple[int, int]]:
    words = [text[start:end] for start, end in word_spans(text)]
    limits = {"max_spans": cfg.max_spans, "max_words": cfg.max_words}
    if method == "random":
        return random_spans(words, rng, **limits)
    if method == "content":
        return content_word_spans(words, rng, **limits)
    return choose_spans(
        words,
        row[f"word_{cfg.word_score}"],
        tokens_to_segments(word_spans(text), sentence_spans(text)),
        row[f"sentence_{cfg.sentence_score}"],
        granularity=cfg.granularity,
        sentence_threshold=cfg.sentence_threshold.to_dict(),
        word_threshold=cfg.word_threshold.to_dict(),
        rng=rng,
        **limits,
    )


def _hide(cfg, text: str, row: dict[str, Any], spans: list[tuple[int, int]]) -> dict[str, Any]:
    offsets, sentences = word_spans(text), sentence_spans(text)
    masked = apply_mask(text, spans, mask_token=MASK, context=cfg.context, offsets=offsets)
    home = tokens_to_segments([offsets[first] for first, _ in sorted(spans)], sentences)
    hidden = np.concatenate([np.arange(first, last + 1) for first, last in spans])
    return {
        "masked": masked.masked_text,
        "answer": ANSWER_SEPARATOR.join(masked.answers),
        "sentence": " ".join(text[slice(*sentences[i])] for i in sorted(set(home.tolist()))),
        "first_word": min(first for first, _ in spans),
        "last_word": max(last for _, last in spans),
        "blind_logprob": float(row["word_blind_logprob"][hidden].sum()),
        "span_llr": float(row["word_llr"][hidden].mean()),
    }
