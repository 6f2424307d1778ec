"""Stage 3: what did it help? Every arm draws, answers, and reads its own drawings; no other model judges."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.evaluation.accuracy import answer_accuracy, binomial_ci95
from mmrpt_jax.evaluation.geneval import drawing_scores, scene_drawing_prompts
from mmrpt_jax.evaluation.items import scene_cloze_items
from mmrpt_jax.evaluation.representations import effective_rank, gradient_cosine_by_group
from mmrpt_jax.evaluation.self_reading import (
    cycle_agreement,
    understanding_generation_gap,
    verdict_agreement,
)
from mmrpt_jax.scenes import WORLDS, ScenePrompt, render, scene_for, split_seed
from mmrpt_jax.stages.lvrpo.examiner import Examiner
from mmrpt_jax.stages.lvrpo.pretrain import imitation_batches
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import fetch

# Test items are the same for all arms and seeds, and so is the noise that drawings begin with.
_STREAM = NOISE = 0
# Twice as many as the model is wide, to compare arms by the rank of their states.
_STATES = 256
_HEADLINES = ("drawn", "diversity", "questions")


def measure(run: Run, examiner: Examiner, params: Any) -> dict[str, float]:
    """All numbers of one set of parameters.

    Returns:
        `drawn/<world>`: GenEval's strict accuracy, and by tag; `exact`, `soft`, `validity` and `diversity` likewise.
        `questions/<world>`: exact match of answers, and by kind. `cycle`, `verdicts`, `gap`: what it reads from its
        drawings of the first world; `cycle_true` from true pictures of the same prompts, which bounds `cycle`.
        `effective_rank` of states behind images, `gradient_cosine` of the two tasks by group of parameters.
    """
    row: dict[str, float] = {}
    for place, world in enumerate(run.config.evaluate.drawn_worlds):
        prompts = test_prompts(run, world)
        images = examiner.drawer.draw(params, [prompt.text for prompt in prompts], seed=NOISE)
        row |= _drawn(world, prompts, images)
        if place == 0:
            row |= _read_back(examiner, params, world, prompts, images, row[f"drawn/{world}"])
    for world in run.config.evaluate.question_worlds:
        row |= _answered(run, examiner, params, world)
    return row | inside(run, examiner, params)


def test_prompts(run: Run, world: str) -> list[ScenePrompt]:
    """The prompts of a world that every arm draws, one tag after the other in turn."""
    return scene_drawing_prompts(world, split="test", stream=_STREAM, count=run.config.evaluate.prompts)


def headline_columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns to show; the JSON file holds all of them."""
    worlds = [key for key in rows[0] if key.split("/")[0] in _HEADLINES and key.count("/") == 1]
    return ["arm", *(key for key in worlds if not key.endswith("_ci95")), "verdicts/agreement", "gap"]


def _drawn(
    world: str, prompts: Sequence[ScenePrompt], images: UInt8[np.ndarray, "N G h w 3"]
) -> dict[str, float]:
    """`drawn/...`; its interval counts a prompt once, since drawings of one prompt are alike."""
    scores = drawing_scores(prompts, images)
    row = {f"drawn/{world}": scores["strict"]}
    row[f"drawn/{world}_ci95"] = binomial_ci95(scores["strict"], len(prompts))
    row |= {f"drawn/{world}/{key.split('/')[1]}": share for key, share in scores.items() if "/" in key}
    row[f"exact/{world}"] = scores["strict_exact"]
    return row | {f"{name}/{world}": scores[name] for name in ("soft", "validity", "diversity")}


def _read_back(
    examiner: Examiner,
    params: Any,
    world: str,
    prompts: Sequence[ScenePrompt],
    images: UInt8[np.ndarray, "N G h w 3"],
    strict: float,
) -> dict[str, float]:
    seed = split_seed("test", _STREAM)
    pictures = [render(scene_for(prompt, WORLDS[world], seed, i)) for i, prompt in enumerate(prompts)]
    cycle = cycle_agreement(examiner.captioner, params, prompts, images)
    bound = cycle_agreement(examiner.captioner, params, prompts, np.stack(pictures)[:, None])
    verdicts = verdict_agreement(examiner.answerer, params, prompts, images)
    return {
        **{f"cycle/{name}": value for name, value in cycle.items()},
        **{f"cycle_true/{name}": value for name, value in bound.items()},
        **{f"verdicts/{name}": value for name, value in verdicts.items()},
        "gap": understanding_generation_gap(verdicts["agreement"], strict),
    }


def _answered(run: Run, examiner: Examiner, params: Any, world: str) -> dict[str, float]:
    count = run.config.evaluate.questions
    items = scene_cloze_items(world, split="test", stream=_STREAM, count=count)
    shares = answer_accuracy(examiner.answerer, params, items)
    kinds = {f"questions/{world}/{kind}": share for kind, share in shares.items() if kind != "all"}
    interval = binomial_ci95(shares["all"], count)
    return {f"questions/{world}": shares["all"], f"questions/{world}_ci95": interval, **kinds}


def inside(run: Run, examiner: Examiner, params: Any) -> dict[str, float]:
    """Do the tasks pull the same way, and do the states behind images stay many?"""
    batch = next(imitation_batches(run, examiner.gradients)(0))
    questions, drawings = (
        examiner.gradients[name](params, batch[name]) for name in ("questions", "drawings")
    )
    cosines = gradient_cosine_by_group(questions, drawings)
    return {
        "effective_rank": effective_rank(_states(run, examiner, params)),
        **{f"gradient_cosine/{group}": cosine for group, cosine in cosines.items()},
    }


def _states(run: Run, examiner: Examiner, params: Any) -> Float[np.ndarray, "N D"]:
    """What the model knows of test images just before it describes them."""
    source = QuestionSource(run.config.data.world, split="test", stream=_STREAM, size=_STATES)
    images, size = [source[index]["image"] for index in range(_STATES)], run.config.evaluate.batch_size
    # The last batch is filled up.
    images += images[:1] * (-_STATES % size)
    asked = [run.wording.caption_prompt()] * size
    parts = [images[start : start + size] for start in range(0, _STATES, size)]
    batches = (run.whole.place(run.processor.inputs(asked, run.views(part))) for part in parts)
    found = [examiner.states(params, *batch) for batch in batches]
    return np.concatenate(fetch(found))[:_STATES]
