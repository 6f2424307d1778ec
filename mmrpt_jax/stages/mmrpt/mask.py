"""Stage 3: cut out what needs the image. Written as a sidecar: masked captions and what they hide."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.data.examples import ANSWER_SEPARATOR
from mmrpt_jax.data.prompts import completion
from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import open_sidecar, write_sidecar
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
from mmrpt_jax.stages.run import Run, clear, is_complete, mark_complete

# Per mask: what is shown, what is hidden, the sentence it was hidden from, where it stood; log p of the span given the
# words before it and no image, and what the image adds to it per word (nats), both under the policy that scored.
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


def run_mask(run: Run, scores: Path, directory: Path, method: str) -> None:
    """Writes the masks of every scored caption that has any.

    Args:
        run: the experiment.
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
    rows = list(mask_rows(run, open_sidecar(scores / "records", "train"), method, counts))
    if not rows:
        raise ValueError(
            f"no caption kept a mask ({dict(counts)}): lower config.mask thresholds or leak filter, or allow longer "
            "config.data.branch_lengths"
        )
    clear(directory)
    write_sidecar(directory / "records", "masks", {"train": rows}, fields=FIELDS | PATCH_FIELDS)
    mark_complete(directory, {"method": method, **counts})


def mask_rows(
    run: Run, scores: RandomAccess[Any], method: str, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yields a row of all fields per caption that keeps a mask; `counts` says what became of the others."""
    cfg = run.config.mask
    for index in range(len(scores)):
        row = scores[index]
        counts["captions"] += 1
        text, rng = row["caption"][0], np.random.default_rng((run.config.seed, index))
        spans = _choose(cfg, text, row, method, rng)
        size = cfg.spans_per_prompt
        masks = [_hide(cfg, text, row, spans[i : i + size]) for i in range(0, len(spans), size)]
        short = [mask for mask in masks if _fits(run, mask)]
        blind = np.array([mask["blind_logprob"] for mask in short])
        unsolved = keep_unsolved(blind, max_blind=np.log(cfg.max_blind_probability))
        kept = [mask for mask, keep in zip(short, unsolved, strict=True) if keep]
        counts["prompts"] += len(masks)
        counts["too_long"] += len(masks) - len(short)
        counts["leaked"] += len(short) - len(kept)
        if kept:
            counts["captions_kept"] += 1
            columns = {field: [mask[field] for mask in kept] for field in FIELDS}
            yield {"id": row["id"], "hidden_patches": _hidden_patches(cfg, row, rng)} | columns


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
