from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.sidecar import open_sidecar, write_sidecar
from mmrpt_jax.dependency import word_spans
from mmrpt_jax.stages.completion import is_complete, read_summary
from mmrpt_jax.stages.mmrpt import mask, score
from mmrpt_jax.stages.mmrpt.mask import mask_rows, run_mask
from mmrpt_jax.training.scoring import KINDS

TEXT = "a red circle is on a box . it is a nice day ."
#         a    red  circle is   on   a    box  .    it   is   a    nice day  .
LLR = [0.0, 3.0, 2.0, 0.1, 0.1, 0.0, 2.6, 0.0, 0.0, 0.0, 0.0, 9.0, 0.2, 0.0]
BLIND = [-0.1, -0.7, -0.5, -0.1, -0.1, -0.1, -0.2, 0, -0.1, -0.1, -0.1, -3.0, -3.0, 0]
FIXED = {"kind": "fixed"}


def row_of(name, text=TEXT, attention=(0.8, 0.1), llr=LLR, blind=BLIND):
    """A row of the score stage; all kinds but those named hold zeros."""
    words, sentences = len(llr), len(attention)
    row = {"id": name, "caption": [text], "patch_received": np.zeros(4, np.float32)}
    row |= {f"word_{kind}": np.zeros(words, np.float32) for kind in KINDS}
    row |= {f"sentence_{kind}": np.zeros(sentences, np.float32) for kind in KINDS}
    row["word_llr"], row["word_blind_logprob"] = np.float32(llr), np.float32(blind)
    row["sentence_attention"] = np.float32(attention)
    return row


class Words:
    """A tokenizer of one token per word, mark or tag."""

    def encode(self, text):
        return SimpleNamespace(ids=word_spans(text.replace("<", " <").replace(">", " ")))


def run_of(longest=100, **options):
    """What the stage reads of a run: sentences by attention above 0.5, words by llr above 1.5."""
    options = {
        "sentence_score": "attention",
        "word_score": "llr",
        "granularity": "sentence_then_word",
        "sentence_threshold": FIXED | {"value": 0.5},
        "word_threshold": FIXED | {"value": 1.5},
        "max_spans": 3,
        "max_words": 3,
        "spans_per_prompt": 1,
        "context": "bidirectional",
        "blind_reads": "caption",
        "max_blind_probability": 1.0,
        "patch_share": 0.0,
        "patch_choice": "received",
        **options,
    }
    config = {"seed": 0, "mask": options, "fill": {"think": "none"}, "data": {"branch_lengths": (2, longest)}}
    return SimpleNamespace(config=ConfigDict(config), tokenizer=Words())


def rows_of(*scores, method="dependency", **options):
    counts = Counter()
    return list(mask_rows(run_of(**options), scores, method, counts)), counts


def test_spans_of_the_sentences_that_need_the_image():
    (row,), counts = rows_of(row_of("x"))
    assert row["id"] == "x"
    # By falling mean score: box 2.6, red circle 2.5; "nice" scores higher, in a sentence that needs no image.
    assert row["answer"] == ["box", "red circle"]
    assert row["masked"] == [TEXT.replace("box", "[MASK]"), TEXT.replace("red circle", "[MASK]")]
    assert row["sentence"] == ["a red circle is on a box ."] * 2
    assert (row["first_word"], row["last_word"]) == ([6, 1], [6, 2])
    np.testing.assert_allclose(row["span_llr"], [2.6, 2.5], rtol=1e-6)
    np.testing.assert_allclose(row["blind_logprob"], [-0.2, -1.2], rtol=1e-6)
    assert counts == {"captions": 1, "prompts": 2, "too_long": 0, "leaked": 0, "captions_kept": 1}


def test_what_the_words_alone_give_away_leaks():
    # exp(-0.2) = 0.82 and exp(-1.2) = 0.30.
    (row,), counts = rows_of(row_of("x"), max_blind_probability=0.5)
    assert row["answer"] == ["red circle"]
    assert counts == {"captions": 1, "prompts": 2, "too_long": 0, "leaked": 1, "captions_kept": 1}
    rows, counts = rows_of(row_of("x"), row_of("y", blind=[0] * 14), max_blind_probability=0.25)
    assert rows == []
    assert counts == {"captions": 2, "prompts": 4, "too_long": 0, "leaked": 4}


def test_masked_captions_may_be_read_whole():
    asked = []

    def blind(masked, answers):
        asked.extend(zip(masked, answers, strict=True))
        return np.log([0.6, 0.1, 0.6, 0.9])

    counts = Counter()
    scores = [row_of("x"), row_of("y", attention=(0.4, 0.1)), row_of("z")]
    (row,) = mask_rows(run_of(max_blind_probability=0.5), scores, "dependency", counts, blind)
    # Of x and z, box and red circle; only the red circle of x is not given away.
    assert [answer for _, answer in asked] == ["box", "red circle"] * 2
    assert asked[1][0] == TEXT.replace("red circle", "[MASK]")
    assert (row["id"], row["answer"]) == ("x", ["red circle"])
    np.testing.assert_allclose(row["blind_logprob"], [np.log(0.1)])
    assert (counts["prompts"], counts["leaked"], counts["captions_kept"]) == (4, 3, 1)


def test_captions_without_a_span_are_left_out():
    rows, counts = rows_of(row_of("x", attention=(0.4, 0.1)), row_of("y"), max_spans=1)
    assert [(row["id"], row["answer"]) for row in rows] == [("y", ["box"])]
    assert counts == {"captions": 2, "prompts": 1, "too_long": 0, "leaked": 0, "captions_kept": 1}


def test_one_prompt_may_hide_all_spans():
    (row,), counts = rows_of(row_of("x"), spans_per_prompt=3)
    assert row["masked"] == ["a [MASK] is on a [MASK] . it is a nice day ."]
    assert row["answer"] == ["red circle ; box"]
    assert (row["first_word"], row["last_word"]) == ([1], [6])
    np.testing.assert_allclose(row["blind_logprob"], [-1.4], rtol=1e-6)
    np.testing.assert_allclose(row["span_llr"], [(3.0 + 2.0 + 2.6) / 3], rtol=1e-6)
    assert counts["prompts"] == 1


def test_spans_go_into_prompts_as_many_at_a_time_as_asked():
    llr = [0.0, 3.0, 0.0, 0.0, 2.8, 0.0, 2.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    (row,), counts = rows_of(row_of("x", text=TEXT.replace(" on", " tall"), llr=llr), spans_per_prompt=2)
    assert row["answer"] == ["red ; tall", "box"]
    assert counts["prompts"] == 2


def test_answers_that_no_branch_holds_are_left_out():
    # One word leaves room in 13 words and marks for the tags around it, two do not.
    (row,), counts = rows_of(row_of("x"), longest=13)
    assert row["answer"] == ["box"]
    assert counts == {"captions": 1, "prompts": 2, "too_long": 1, "leaked": 0, "captions_kept": 1}


@pytest.mark.parametrize(("choice", "expected"), [("received", [1, 2]), ("random", None)])
def test_a_share_of_the_patches_is_hidden(choice, expected):
    scored = row_of("x") | {"patch_received": np.float32([0.1, 0.4, 0.3, 0.2])}
    (row,), _ = rows_of(scored, patch_share=0.5, patch_choice=choice)
    assert row["hidden_patches"].tolist() == expected or (
        choice == "random" and len(row["hidden_patches"]) == 2
    )
    (row,), _ = rows_of(scored)
    assert row["hidden_patches"].tolist() == []


def test_left_context_only():
    (row,), _ = rows_of(row_of("x"), context="left_only")
    assert row["masked"] == ["a red circle is on a [MASK]", "a [MASK]"]


def test_whole_sentences_by_another_score():
    (row,), _ = rows_of(row_of("x", attention=(0.1, 0.8)), granularity="sentence")
    assert row["answer"] == ["it is a nice day"]
    assert row["sentence"] == ["it is a nice day ."]


@pytest.mark.parametrize("method", ["random", "content"])
def test_baselines_do_not_look_at_scores(method):
    scores = [row_of(str(i)) for i in range(40)]
    blank = [row_of(str(i), attention=(0, 0), llr=[0] * 14) for i in range(40)]
    rows, _ = rows_of(*scores, method=method)
    assert [row["answer"] for row in rows] == [row["answer"] for row in rows_of(*blank, method=method)[0]]
    words = TEXT.split()
    hidden = Counter(word for row in rows for answer in row["answer"] for word in answer.split())
    content = {"red", "circle", "box", "nice", "day"}
    assert hidden.keys() == (content if method == "content" else set(words) - {"."})
    for row in rows:
        for masked, answer in zip(row["masked"], row["answer"], strict=True):
            assert masked.replace("[MASK]", answer) == TEXT


@pytest.fixture
def scores(tmp_path):
    write_sidecar(tmp_path / "scores" / "records", "scores", {"train": [row_of("x")]}, fields=score.FIELDS)
    return tmp_path / "scores"


def test_the_stage_writes_rows_and_counts_once(tmp_path, scores):
    directory = tmp_path / "masks"
    run_mask(run_of(), None, scores, directory, "dependency")
    (row,) = open_sidecar(directory / "records", "train")
    assert row["answer"] == ["box", "red circle"]
    summary = {
        "method": "dependency",
        "captions": 1,
        "prompts": 2,
        "too_long": 0,
        "leaked": 0,
        "captions_kept": 1,
    }
    assert read_summary(directory) == summary
    # Complete: neither options nor scores are looked at again.
    run_mask(run_of(max_blind_probability=0.0), None, None, directory, "dependency")
    assert read_summary(directory) == summary


def test_a_stage_stopped_before_its_summary_starts_over(tmp_path, scores, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mask, "mark_complete", stop)
    with pytest.raises(KeyboardInterrupt):
        run_mask(run_of(max_spans=1), None, scores, tmp_path / "masks", "dependency")
    assert not is_complete(tmp_path / "masks")
    monkeypatch.undo()
    run_mask(run_of(), None, scores, tmp_path / "masks", "dependency")
    assert open_sidecar(tmp_path / "masks" / "records", "train")[0]["answer"] == ["box", "red circle"]


def test_errors_say_what_to_do(tmp_path, scores):
    with pytest.raises(ValueError, match="chosen by one of dependency, random, content, not 'sparse'"):
        run_mask(run_of(), None, scores, tmp_path / "masks", "sparse")
    with pytest.raises(
        ValueError, match=r"no caption kept a mask \(.*'leaked': 2.*lower config.mask thresholds"
    ):
        run_mask(run_of(max_blind_probability=1e-6), None, scores, tmp_path / "masks", "dependency")
    assert not (tmp_path / "masks").exists()
