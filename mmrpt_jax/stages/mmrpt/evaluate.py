"""Stage 5: what did it help? Every arm, on every world, with the right, a swapped and no image."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrpt_jax.data.damage import usable
from mmrpt_jax.data.examples import Pixels
from mmrpt_jax.data.records import MappedSource, Record, open_records
from mmrpt_jax.evaluation.accuracy import binomial_ci95, cloze_accuracy, fill_accuracy, question_accuracy
from mmrpt_jax.evaluation.evaluator import Evaluator
from mmrpt_jax.evaluation.items import (
    ClozeItem,
    FillItem,
    record_fill_item,
    scene_cloze_items,
    scene_fill_items,
)
from mmrpt_jax.evaluation.statements import majority_share, statement_accuracy, statement_groups
from mmrpt_jax.stages.mmrpt.finetune import finetune
from mmrpt_jax.stages.run import Run

# Test items are the same for all seeds of a study, so that arms and seeds are compared on the same questions.
_STREAM = 0
# Measures whose second part is a world or a condition; "fill" has both.
_PLAIN = ("cloze", "finetuned", "statements")


def measure(run: Run, evaluator: Evaluator, params, arm: str) -> dict[str, float]:
    """All numbers of the parameters of an arm.

    `fill/...` are generated answers, `cloze/...` compared likelihoods, `finetuned/...` answers after fine-tuning.
    """
    row: dict[str, float] = {}
    for name, items in _fill_sets(run).items():
        for condition in ("right", "swapped", "none"):
            shares = fill_accuracy(evaluator, params, items, condition)
            row |= _report(f"fill/{name}/{condition}", shares, len(items))
    for world, items in _cloze_sets(run).items():
        row |= _report(f"cloze/{world}", cloze_accuracy(evaluator, params, items), len(items))
    if run.config.finetune.steps:
        row |= _measure_finetuned(run, evaluator, params, arm)
    return row


def _measure_finetuned(run: Run, evaluator: Evaluator, params, arm: str) -> dict[str, float]:
    directory = run.workdir / "arms" / arm
    tuned, row = finetune(run, params, arm, directory / "finetune"), {}
    for world, items in _cloze_sets(run).items():
        row |= _report(f"finetuned/{world}", question_accuracy(evaluator, tuned, items), len(items))
    if run.config.data.kind == "records":
        groups = statement_groups(_test_records(run), functools.partial(_can_ask, run), run.damage.note)
        if not groups:
            return row
        blind = finetune(run, params, f"{arm}_blind", directory / "finetune_blind", blind=True)
        row["statements/majority"] = majority_share(groups)
        row["statements/seeing"] = statement_accuracy(evaluator, tuned, groups)
        row["statements/text_only"] = statement_accuracy(evaluator, blind, groups, "none")
    return row


def _report(name: str, shares: dict[str, float], count: int) -> dict[str, float]:
    kinds = {f"{name}/{kind}": value for kind, value in shares.items() if kind != "all"}
    return {name: shares["all"], f"{name}_ci95": binomial_ci95(shares["all"], count), **kinds}


def _cloze_sets(run: Run) -> dict[str, list[ClozeItem]]:
    cfg = run.config.evaluate
    worlds = cfg.worlds if run.config.data.kind == "scenes" else ()
    return {w: scene_cloze_items(w, split="test", stream=_STREAM, count=cfg.cloze_items) for w in worlds}


def _fill_sets(run: Run) -> dict[str, list[FillItem]]:
    cfg, context = run.config.evaluate, run.config.mask.context
    if run.config.data.kind == "scenes":
        options = {"split": "test", "stream": _STREAM, "count": cfg.fill_items, "context": context}
        return {world: scene_fill_items(world, **options) for world in cfg.worlds}
    source = _test_records(run)
    order = np.random.default_rng(_STREAM).permutation(len(source))
    options = {"seed": _STREAM, "context": context}
    numbered = MappedSource(order.tolist(), lambda _, index: (index, source[index]))

    def hide(pair: tuple[int, Record]) -> FillItem | None:
        return record_fill_item(pair[1], index=pair[0], **options)

    found = (item for _, item in usable(numbered, hide, run.damage.note) if item and _can_fill(run, item))
    items = list(itertools.islice(found, cfg.fill_items))
    if not items:
        run.log(f"   no hidden words are asked for: no record of {cfg.split} has an image and a word to hide")
    return {cfg.split: items} if items else {}


def _can_fill(run: Run, item: FillItem) -> bool:
    prompt = run.wording.fill_prompt(item.masked, len(item.images))
    return run.processor.fits(prompt, *(image.shape[:2] for image in item.images))


def _can_ask(run: Run, question: str, images: Sequence[Pixels]) -> bool:
    prompt = run.wording.question_prompt(question, len(images))
    return run.processor.fits(prompt, *(image.shape[:2] for image in images))


def _test_records(run: Run) -> MappedSource[Record]:
    return open_records(run.config.data.path, run.config.evaluate.split)


def headline_columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns to show; the JSON file holds all of them."""
    return ["arm", *(key for key in rows[0] if _is_headline(key))]


def _is_headline(key: str) -> bool:
    measure, *rest = key.split("/")
    return (measure == "fill" and rest[1:] == ["right"]) or (measure in _PLAIN and _is_name(rest))


def _is_name(rest: list[str]) -> bool:
    return len(rest) == 1 and not rest[0].endswith("_ci95")
