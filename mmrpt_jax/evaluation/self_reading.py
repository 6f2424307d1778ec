"""What does the model itself read from its drawings? Its captions against the prompts, its verdicts against pixels."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.evaluation.evaluator import Evaluator
from mmrpt_jax.rewards import exact_match_score, parse_completion
from mmrpt_jax.scenes import SHAPES, Question, Scene, ScenePrompt, clause_agreement, clauses_of_caption, read
from mmrpt_jax.scenes.questions import ask_presence
from mmrpt_jax.scenes.references import Reference, untag

Images = UInt8[np.ndarray, "N G h w 3"]


def cycle_agreement(
    captioner: Evaluator, params, prompts: Sequence[ScenePrompt], images: Images
) -> dict[str, float]:
    """From prompt to drawing to caption: clauses of the most likely caption against those of the prompt.

    A caption may truly say more than was asked for (a colour that the prompt left open), which costs precision, or
    leave something out, which costs recall: even of true pictures of the prompts (`scenes.scene_for`) the numbers stay
    below 1, and theirs are what those of drawings compare with. A caption without a clause agrees in nothing.

    Args:
        captioner: with room for a whole caption (`max_tokens`).
        params: the policy.
        prompts: N of them.
        images: G drawings of each prompt.

    Returns:
        `precision`, `recall` and `f1` of `scenes.clause_agreement`, in [0, 1], means over images.
    """
    pairs = [(prompt, image) for prompt, group in zip(prompts, images, strict=True) for image in group]
    captions = captioner.generate(
        params, [[image] for _, image in pairs], [captioner.wording.caption_prompt()] * len(pairs)
    )
    agreements = [
        clause_agreement(clauses_of_caption(caption), prompt.clauses)
        for caption, (prompt, _) in zip(captions, pairs, strict=True)
    ]
    means = np.mean(agreements, axis=0)
    return {"precision": float(means[0]), "recall": float(means[1]), "f1": float(means[2])}


def verdict_agreement(
    evaluator: Evaluator, params, prompts: Sequence[ScenePrompt], images: Images
) -> dict[str, float]:
    """Asks yes/no questions about each drawing; right is what the pixel verifier reads from the drawing itself.

    So a bad drawing that is known to be bad counts as much as a good one known to be good. What the verifier does not
    recognise is not there. Replies are expected inside `<think></think><answer>…</answer>`.

    Args:
        evaluator: with room for an answer.
        params: the policy.
        prompts: N of them; `presence_questions` says what is asked.
        images: G drawings of each prompt, of a size that `scenes.read` takes.

    Returns:
        Shares of all questions, in [0, 1]. `agreement`: the model and the verifier say the same. `yes_share`: the model
        says yes. `present`: the verifier does, and so who always says yes agrees. `parsed`: well-formed completions.
    """
    seen, asked = [], []
    for prompt, group in zip(prompts, images, strict=True):
        for image in group:
            questions = list(presence_questions(prompt, read(image)))
            seen += [[image]] * len(questions)
            asked += questions
    texts = evaluator.generate(params, seen, [evaluator.wording.question_prompt(q.question) for q in asked])
    replies = [parse_completion(text) for text in texts]
    agreed = [exact_match_score(reply.answer, q.reply) for reply, q in zip(replies, asked, strict=True)]
    return {
        "agreement": float(np.mean(agreed)),
        "yes_share": float(np.mean([exact_match_score(reply.answer, "yes") for reply in replies])),
        "present": float(np.mean([question.reply == "yes" for question in asked])),
        "parsed": float(np.mean([reply.well_formed for reply in replies])),
    }


def presence_questions(prompt: ScenePrompt, scene: Scene) -> Iterator[Question]:
    """Whether `scene` has what `prompt` includes, each in its colour, and as many shapes that it does not name.

    The latter are the next in the circle of shapes, so that all have their turn; there may be fewer.
    """
    wanted = [Reference(shape=clause.shape, color=clause.color) for clause in prompt.clauses.include]
    start, named = SHAPES.index(wanted[0].shape), {thing.shape for thing in wanted}
    others = [shape for shape in (*SHAPES[start:], *SHAPES[:start]) if shape not in named]
    for thing in (*wanted, *(Reference(shape=shape) for shape in others[: len(wanted)])):
        present = any(thing.matches(obj) for obj in scene.objects)
        yield ask_presence(untag(thing.noun_phrase), present=present)


def understanding_generation_gap(agreement: float, strict: float) -> float:
    """`agreement` of `verdict_agreement` − `strict` of `drawing_scores`, in [-1, 1].

    This definition is ours. Above 0 the model judges its drawings better than it draws. Chance is about 1/2 for the
    one and near 0 for the other, so 0 is no balance point: compare gaps of models on the same prompts, not with 0.
    """
    return agreement - strict
