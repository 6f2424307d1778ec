import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.dependency.spans import segment_pool, sentence_spans, tokens_to_segments, word_spans

TEXTS = st.text(st.sampled_from(list("ab AB.!?…'\"()\n,3é。-")) | st.characters(codec="utf-8"), max_size=40)


def _cut(text, spans):
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's toy.", ["A", "dog's", "toy", "."]),
        ("there is a red circle .", ["there", "is", "a", "red", "circle", "."]),
        ("a well-lit room, 3.5 m", ["a", "well-lit", "room", ",", "3.5", "m"]),
        ('"Stop!" it’s 1,000', ['"', "Stop", "!", '"', "it’s", "1,000"]),
        ("un cafe\u0301 noir", ["un", "cafe\u0301", "noir"]),
        ("left/right", ["left", "/", "right"]),
        ("  ", []),
    ],
)
def test_word_spans(text, words):
    assert _cut(text, word_spans(text)) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A red dog. A cat!  Is it red?", ["A red dog.", "A cat!", "Is it red?"]),
        ("there is a red circle . it is small .", ["there is a red circle .", "it is small ."]),
        ("a dog. it runs", ["a dog.", "it runs"]),
        ("Dr. Smith sits at 3.5 m. He waits.", ["Dr. Smith sits at 3.5 m.", "He waits."]),
        ("Fruit, e.g. apples, lies there. Good.", ["Fruit, e.g. apples, lies there.", "Good."]),
        ("Cups, plates, etc. lie there.", ["Cups, plates, etc. lie there."]),
        ("Cups, plates, etc. The table is red.", ["Cups, plates, etc.", "The table is red."]),
        ("By J. Doe. Nice.", ["By J. Doe.", "Nice."]),
        ("wait ... then go. Yes... No.", ["wait ... then go.", "Yes...", "No."]),
        ('It says "stop." The car waits.', ['It says "stop."', "The car waits."]),
        ("one line\n\nanother line", ["one line", "another line"]),
        ("赤い円。小さい。", ["赤い円。", "小さい。"]),
        ("  ", []),
    ],
)
def test_sentence_spans(text, sentences):
    assert _cut(text, sentence_spans(text)) == sentences


@given(TEXTS)
def test_spans_are_ordered_and_hold_all_visible_characters(text):
    for spans in (word_spans(text), sentence_spans(text)):
        flat = [position for span in spans for position in span]
        assert flat == sorted(flat)
        assert all(start < end for start, end in spans)
        assert "".join("".join(_cut(text, spans)).split()) == "".join(text.split())


@given(TEXTS)
def test_every_word_lies_in_one_sentence(text):
    words, sentences = word_spans(text), sentence_spans(text)
    for (start, end), sentence in zip(words, tokens_to_segments(words, sentences), strict=True):
        assert sentences[sentence][0] <= start < end <= sentences[sentence][1]


def test_tokens_to_segments_by_hand():
    words = word_spans("a red circle.")
    # [BOS], "a", " red" with its space, "cir", "cle", ".", a lone space, [EOS]
    tokens = [(0, 0), (0, 1), (1, 5), (6, 9), (9, 12), (12, 13), (5, 6), (0, 0)]
    np.testing.assert_array_equal(tokens_to_segments(tokens, words), [-1, 0, 1, 2, 2, 3, -1, -1])


def test_tokens_to_segments_takes_the_largest_overlap():
    spans = [(0, 3), (4, 10), (10, 12)]
    np.testing.assert_array_equal(tokens_to_segments([(1, 7), (2, 5), (8, 12), (0, 12)], spans), [1, 0, 1, 1])
    np.testing.assert_array_equal(tokens_to_segments([(0, 2)], []), [-1])


def test_segment_pool_by_hand():
    values = jnp.asarray([1.0, 3.0, -2.0, 10.0, 4.0])
    ids = jnp.asarray([0, 0, 1, -1, 1])
    np.testing.assert_allclose(segment_pool(values, ids, 3), [2.0, 1.0, 0.0])
    np.testing.assert_allclose(segment_pool(values, ids, 3, reduce="max"), [3.0, 4.0, 0.0])
    np.testing.assert_allclose(segment_pool(values, ids, 3, reduce="sum"), [4.0, 2.0, 0.0])
    valid = jnp.asarray([True, False, True, True, False])
    np.testing.assert_allclose(segment_pool(values, ids, 3, valid=valid), [1.0, -2.0, 0.0])
    pooled = segment_pool(values, ids, 3, reduce="max", valid=valid, empty=-1.0)
    np.testing.assert_allclose(pooled, [1.0, -2.0, -1.0])


def test_segment_pool_leaves_out_ids_beyond_the_end():
    np.testing.assert_allclose(segment_pool(jnp.asarray([1.0, 5.0]), jnp.asarray([0, 7]), 1), [1.0])


def test_segment_pool_rejects_unknown_reductions():
    with pytest.raises(ValueError, match="use 'mean', 'sum' or 'max'"):
        segment_pool(jnp.ones(2), jnp.zeros(2, int), 1, reduce="median")
