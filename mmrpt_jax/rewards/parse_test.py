import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.rewards.parse import Parsed, parse_completion, score_answers

MALFORMED = Parsed(think="", answer="", well_formed=False)


@pytest.mark.parametrize(
    ("text", "think", "answer"),
    [
        ("<think>look</think><answer>red</answer>", "look", "red"),
        (" \n<think> a\nb </think>\n <answer>\tred circle </answer>\n", "a\nb", "red circle"),
        ("<think></think><answer>red</answer>", "", "red"),
        ("<think>1 < 2 > <b></think><answer>a <i> b</answer>", "1 < 2 > <b>", "a <i> b"),
    ],
)
def test_well_formed(text, think, answer):
    assert parse_completion(text) == Parsed(think=think, answer=answer, well_formed=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        "<answer>red</answer>",
        "<think>look</think>",
        "<think>look</think>red",
        "<think>look</think><answer>red",
        "<think>look<answer>red</answer>",
        "look</think><answer>red</answer>",
        "<answer>red</answer><think>look</think>",
        "so <think>look</think><answer>red</answer>",
        "<think>look</think> so <answer>red</answer>",
        "<think>look</think><answer>red</answer>.",
        "<think>a</think><think>b</think><answer>red</answer>",
        "<think>look</think><answer>red</answer><answer>blue</answer>",
        "<think>a<think>b</think><answer>red</answer>",
        "<think>a</think><answer><answer>red</answer></answer>",
        "<think>a <answer>blue</answer></think><answer>red</answer>",
        "<think>look</think><answer> \n</answer>",
        "<THINK>look</THINK><ANSWER>red</ANSWER>",
    ],
)
def test_malformed(text):
    assert parse_completion(text) == MALFORMED


_PIECES = ["<think>", "</think>", "<answer>", "</answer>", "red", " "]


@given(st.lists(st.sampled_from(_PIECES), max_size=9))
def test_agrees_with_counting_tags(pieces):
    # Independent statement of the rule: the four tags, once each, in this order, and text only inside them.
    tags = [piece for piece in pieces if piece.startswith("<")]
    expected = tags == _PIECES[:4]
    if expected:
        open_think, close_think, open_answer, close_answer = (pieces.index(tag) for tag in tags)
        outside = pieces[:open_think] + pieces[close_think:open_answer] + pieces[close_answer:]
        expected = "red" not in outside and "red" in pieces[open_answer:close_answer]
    assert parse_completion("".join(pieces)).well_formed == expected


def test_a_long_malformed_completion_is_read_in_linear_time():
    assert not parse_completion("<think>" + "<answer>x</think>" * 20_000).well_formed


def test_score_answers():
    completions = ["<think></think><answer> red </answer>", "red", "red", "red"]
    scores = score_answers(
        completions, ["blue", "blue", None, " ?! "], lambda answer, truth: len(answer + truth)
    )
    assert scores == [7, 0.0, None, None]


def test_score_answers_needs_one_truth_per_completion():
    with pytest.raises(ValueError, match="shorter"):
        score_answers(["red", "blue"], ["red"], lambda answer, truth: 1.0)
