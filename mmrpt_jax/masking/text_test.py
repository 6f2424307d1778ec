import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.dependency.spans import sentence_spans, tokens_to_segments, word_spans
from mmrpt_jax.masking.text import (
    MaskedCaption,
    apply_mask,
    choose_spans,
    content_word_spans,
    random_spans,
    restore,
)

CAPTION = "This is an image. A small red circle is left of the blue square. Shapes have edges."
#          0    1  2  3    4 5 6     7   8      9  10   11 12 13   14     15 16    17   18   19
WORDS = [CAPTION[start:end] for start, end in word_spans(CAPTION)]
SENTENCES = tokens_to_segments(word_spans(CAPTION), sentence_spans(CAPTION))
SENTENCE_SCORES = [0.1, 0.8, 0.3]
SCORES = np.zeros(20)
SCORES[[6, 7, 8, 10, 13, 14, 16, 18]] = [0.5, 0.9, 0.8, 0.6, 0.7, 0.2, 0.95, 0.9]
FIXED = {"kind": "fixed", "value": 0.55}


def _texts(spans):
    return [" ".join(WORDS[first : last + 1]) for first, last in spans]


def _choose(**options):
    options = {"word_threshold": FIXED, "max_spans": 5} | options
    return _texts(choose_spans(WORDS, SCORES, SENTENCES, SENTENCE_SCORES, **options))


def test_sentence_first_then_neighbouring_words_above_the_threshold_merge():
    assert _choose() == ["red circle", "blue", "left"]


def test_only_the_best_spans_are_returned():
    assert _choose(max_spans=1) == ["red circle"]
    assert _choose(max_spans=0) == []


def test_word_granularity_skips_the_sentence_step():
    assert _choose(granularity="word") == ["Shapes", "edges", "red circle", "blue", "left"]


def test_sentence_granularity_hides_all_but_the_final_stop():
    everything = {"kind": "fixed", "value": 0.0}
    assert _choose(granularity="sentence") == ["A small red circle is left of the blue square"]
    assert _choose(granularity="sentence", sentence_threshold=everything) == [
        "A small red circle is left of the blue square",
        "Shapes have edges",
        "This is an image",
    ]


def test_long_runs_keep_their_best_window():
    low = {"kind": "fixed", "value": 0.4}
    assert _choose(word_threshold=low, max_words=3) == ["small red circle", "blue", "left"]
    assert _choose(word_threshold=low, max_words=2) == ["red circle", "blue", "left"]
    assert _choose(word_threshold=low, max_words=1) == ["red", "blue", "left"]


def test_word_threshold_is_taken_over_content_words_of_the_kept_sentences():
    # Median of small .5, red .9, circle .8, left .6, blue .7, square .2; zeros of stop-words do not count.
    assert _choose(word_threshold={"kind": "quantile", "quantile": 0.5}) == ["red circle", "blue"]


def test_phrases_do_not_cross_sentences():
    words, scores = ["red", "circle", "blue", "square"], [1.0, 1.0, 1.0, 1.0]
    spans = choose_spans(words, scores, [0, 0, 1, 1], [1.0, 1.0], max_spans=3, max_words=4)
    assert spans == [(0, 1), (2, 3)]


def test_ties_fall_to_the_earlier_span_or_to_chance():
    words, scores, sentences = ["red", ",", "blue", ",", "green"], [1.0] * 5, [0] * 5
    assert choose_spans(words, scores, sentences, [1.0]) == [(0, 0)]
    picks = {
        choose_spans(words, scores, sentences, [1.0], rng=np.random.default_rng(seed))[0]
        for seed in range(30)
    }
    assert picks == {(0, 0), (2, 2), (4, 4)}


def test_nothing_to_choose_gives_no_spans():
    assert choose_spans([], [], [], []) == []
    assert choose_spans(["it", "is", "."], [1.0, 1.0, 1.0], [0, 0, 0], [1.0]) == []


def test_choose_spans_rejects_bad_input():
    with pytest.raises(ValueError, match="2 words, 1 scores and 2 sentence indices"):
        choose_spans(["a", "b"], [0.1], [0, 0], [1.0])
    with pytest.raises(ValueError, match="granularity='phrase'"):
        choose_spans(["a"], [0.1], [0], [1.0], granularity="phrase")


@pytest.mark.parametrize("choose", [random_spans, content_word_spans])
def test_baselines_return_disjoint_spans_of_allowed_words(choose):
    banned = {"."} if choose is random_spans else {".", "This", "is", "an", "image", "A", "of", "the", "have"}
    for seed in range(40):
        spans = sorted(choose(WORDS, np.random.default_rng(seed), max_spans=3, max_words=2))
        assert 1 <= len(spans) <= 3
        assert all(0 <= last - first < 2 for first, last in spans)
        assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(spans))
        assert not banned & {word for first, last in spans for word in WORDS[first : last + 1]}


def test_random_spans_are_uniform_over_windows():
    rng = np.random.default_rng(0)
    counts = Counter(random_spans(["a", "red", "."], rng, max_words=2)[0] for _ in range(600))
    assert set(counts) == {(0, 0), (0, 1), (1, 1)}
    assert min(counts.values()) > 150


def test_random_spans_are_a_function_of_the_seed():
    first, second = (random_spans(WORDS, np.random.default_rng((3, 5)), max_spans=4) for _ in range(2))
    assert first == second


def test_baselines_without_words_are_empty():
    assert random_spans([".", ","], np.random.default_rng(0)) == []
    assert content_word_spans(["it", "is"], np.random.default_rng(0)) == []


def test_apply_mask_by_hand():
    text = "There's a  red circle, left."
    assert apply_mask(text, [(2, 3)]) == MaskedCaption("There's a  [MASK], left.", ("red circle",))
    assert apply_mask(text, [(2, 3)], context="left_only") == MaskedCaption(
        "There's a  [MASK]", ("red circle",)
    )
    several = apply_mask(text, [(5, 5), (2, 2)], mask_token="<m>")
    assert several == MaskedCaption("There's a  <m> circle, <m>.", ("red", "left"))
    assert apply_mask(text, [], context="left_only") == MaskedCaption(text, ())


def test_apply_mask_with_offsets_of_the_caller():
    offsets = [(0, 5), (6, 16)]
    assert apply_mask("there red circle", [(1, 1)], offsets=offsets).answers == ("red circle",)


@pytest.mark.parametrize("spans", [[(0, 1), (1, 2)], [(2, 1)], [(0, 9)], [(-1, 0)]])
def test_apply_mask_rejects_spans_that_overlap_or_lie_outside(spans):
    with pytest.raises(ValueError, match="overlap or lie outside a caption of 4 words"):
        apply_mask("a red circle.", spans)


@pytest.mark.parametrize(("text", "token"), [("[MASK] b", "[MASK]"), ("-b", "--")])
def test_captions_in_which_the_mask_token_would_be_ambiguous_are_refused(text, token):
    with pytest.raises(ValueError, match="holds the mask token"):
        apply_mask(text, [(0, 0)], mask_token=token, offsets=[(len(text) - 1, len(text))])


def test_apply_mask_rejects_unknown_contexts():
    with pytest.raises(ValueError, match="context='right'"):
        apply_mask("a", [(0, 0)], context="right")


def test_restore_needs_one_answer_per_mask():
    assert restore("a [MASK] on a [MASK].", ["cat", "mat"]) == "a cat on a mat."
    with pytest.raises(ValueError, match="1 mask tokens but 2 answers"):
        restore("a [MASK]", ["b", "c"])


@given(
    text=st.text(st.sampled_from(list("ab AB.,!'\n3é")) | st.characters(codec="utf-8"), max_size=60),
    seed=st.integers(0, 999),
    max_spans=st.integers(0, 4),
    max_words=st.integers(1, 4),
)
def test_restoring_the_answers_gives_the_caption_back(text, seed, max_spans, max_words):
    offsets = word_spans(text)
    words = [text[start:end] for start, end in offsets]
    spans = random_spans(words, np.random.default_rng(seed), max_spans=max_spans, max_words=max_words)
    both = apply_mask(text, spans)
    assert restore(*both) == text
    left = apply_mask(text, spans, context="left_only")
    assert left.answers == both.answers
    assert restore(*left) == (text[: offsets[max(spans)[1]][1]] if spans else text)
