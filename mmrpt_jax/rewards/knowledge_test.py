import pytest

from mmrpt_jax.rewards.knowledge import (
    KNOWLEDGE_REWARD,
    knowledge_consistency,
    knowledge_score,
    questions_of_clauses,
)
from mmrpt_jax.scenes.captions_test import holds
from mmrpt_jax.scenes.clauses import TAGS, Clause, Clauses
from mmrpt_jax.scenes.prompts import prompt_at, scene_for
from mmrpt_jax.scenes.questions import KINDS, question_at
from mmrpt_jax.scenes.questions_test import pattern
from mmrpt_jax.scenes.world import WORLDS

UNBIASED = WORLDS["unbiased"]


def asked(clauses, **options):
    return [(q.kind, q.question, q.reply) for q in questions_of_clauses(clauses, **options)]


def test_questions_about_a_color():
    clauses = Clauses((Clause("circle", color="red"),))
    assert asked(clauses) == [
        ("yes_no", "is there a circle ?", "yes"),
        ("count", "how many circles are there ?", "one"),
        ("color", "what color is the circle ?", "red"),
        ("yes_no", "is there a square ?", "no"),
    ]
    assert asked(clauses, complete=False) == [
        ("yes_no", "is there a circle ?", "yes"),
        ("color", "what color is the circle ?", "red"),
    ]


def test_questions_about_a_number():
    clauses = Clauses((Clause("cross", 4),), exclude=(Clause("cross", 5),))
    assert asked(clauses, complete=False) == [
        ("yes_no", "is there a cross ?", "yes"),
        ("count", "how many crosses are there ?", "four"),
    ]
    assert asked(clauses)[2:] == [("yes_no", "is there a circle ?", "no")]
    (count,) = [q for q in questions_of_clauses(clauses) if q.kind == "count"]
    assert count.candidates == ("zero", "one", "two", "three", "four")
    colored = Clauses((Clause("circle", 2, "orange"),))
    assert asked(colored, complete=False) == [("yes_no", "is there an orange circle ?", "yes")]


def test_questions_about_a_relation():
    clauses = Clauses((Clause("square"), Clause("circle", relation=("above", 0))))
    assert asked(clauses, complete=False) == [
        ("yes_no", "is there a square ?", "yes"),
        ("yes_no", "is there a circle ?", "yes"),
        ("relation", "is the circle above or below the square ?", "above"),
    ]
    absent = [question for _, question, reply in asked(clauses) if reply == "no"]
    assert absent == ["is there a triangle ?", "is there a cross ?"]


def test_questions_about_exclusions():
    clauses = Clauses((Clause("circle"),), exclude=(Clause("cross", color="red"),))
    assert asked(clauses, complete=False)[1:] == [("yes_no", "is there a red cross ?", "no")]


@pytest.mark.parametrize("tag", TAGS)
def test_expected_answers_are_true_of_the_prompts_scene(tag):
    for i in range(30):
        prompt = prompt_at(UNBIASED, tag, 2, i)
        scene = scene_for(prompt, UNBIASED, 2, i)
        questions = questions_of_clauses(prompt.clauses)
        assert len({question.question for question in questions}) == len(questions)
        for question in questions:
            assert holds(question.statement, scene), (prompt, question)
            wrong = [c for c in question.candidates if c != question.answer]
            assert not any(holds(question.cloze.replace("[MASK]", c), scene) for c in wrong)
        yes_no = [question.reply for question in questions if question.kind == "yes_no"]
        assert yes_no.count("yes") == yes_no.count("no")


def test_phrasing_is_that_of_the_questions_about_scenes():
    known = {
        pattern(f"{question.question} {question.statement}")
        for kind in KINDS
        for _, question in (question_at(UNBIASED, kind, 3, i) for i in range(200))
    }
    for tag in TAGS:
        for i in range(20):
            for question in questions_of_clauses(prompt_at(UNBIASED, tag, 2, i).clauses):
                assert pattern(f"{question.question} {question.statement}") in known


def test_share_of_right_answers():
    questions = questions_of_clauses(Clauses((Clause("circle", color="red"),)))
    assert knowledge_score(questions, ["yes", "one", "red", "no"]) == 1.0
    assert knowledge_score(questions, ["Yes.", " One", "the red", "No!"]) == 1.0
    assert knowledge_score(questions, ["a", "one", "red", "no"]) == 1.0
    assert knowledge_score(questions, ["yes", "two", "blue", "yes"]) == 0.25
    assert knowledge_score(questions, ["", "", "", ""]) == 0.0
    with pytest.raises(ValueError, match="got 1 for 4"):
        knowledge_score(questions, ["yes"])
    with pytest.raises(ValueError, match="got 0 for 0"):
        knowledge_score([], [])


def test_the_reward_reads_clauses_and_answers():
    clauses = [Clauses((Clause("circle"),)), Clauses(), Clauses((Clause("circle"),))]
    answers = [["yes", "one", "no"], [], ["yes", "yes", "yes"]]
    batch = {"prompts": [""] * 3, "completions": [""] * 3, "clauses": clauses, "answers": answers}
    assert knowledge_consistency(**batch) == pytest.approx([1.0, None, 1 / 3])
    assert (KNOWLEDGE_REWARD.kind, KNOWLEDGE_REWARD.tasks) == ("self", ("generation",))
