import functools
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.damage import Damage
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.scene_source import png
from mmrpt_jax.data.sidecar import open_sidecar
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.completion import read_summary
from mmrpt_jax.stages.mmrpt import score
from mmrpt_jax.stages.mmrpt.score import FIELDS, run_score, score_records, sentence_auc
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import Whole
from mmrpt_jax.training.scoring import KINDS, TokenDependency

TEXT = "a red circle is above the blue square. two green triangles!"
WORDS = ["a", "red", "circle", "is", "above", "the", "blue", "square", ".", "two", "green", "triangles", "!"]
SENTENCE_OF_WORD = [0] * 9 + [1] * 4


def record(name, text=TEXT, **extra):
    images = [png(np.zeros((16, 16, 3), np.uint8))]
    return {"id": name, "images": images, "captions": [text], "extra": json.dumps(extra)}


def counting_scorer(config, **options):
    """Kind k gives token t of row b the score 100 k + 10 b + t; blind log-probabilities are −(t + 1)."""

    def run(params, images, prompt, captions):
        index = jnp.arange(captions.ids.shape[-1], dtype=jnp.float32)
        row = jnp.arange(len(images), dtype=jnp.float32)[:, None, None]
        values = {kind: 100.0 * k + 10.0 * row + index for k, kind in enumerate(KINDS)}
        blind = jnp.broadcast_to(-(index + 1), captions.ids.shape)
        return TokenDependency(
            **values, blind_logprobs=blind, received=row[:, 0] + jnp.arange(4.0 * images.shape[1])
        )

    return run


@pytest.fixture
def run(tiny_model, tiny_processor, monkeypatch):
    """What the stage reads of a run, with a scorer whose scores are known."""
    monkeypatch.setattr(score, "make_dependency_scorer", counting_scorer)
    scoring = {"batch_size": 2, "layer_fractions": (0.5, 1.0), "heads": "mean", "top_k": 1, "query_shift": 0}
    lengths = {"caption_lengths": (16, 32)}
    run = SimpleNamespace(
        config=ConfigDict({"score": scoring, "data": lengths}),
        vlm=tiny_model,
        processor=tiny_processor,
        wording=Wording(),
        tokenizer=tiny_processor.tokenizer,
        whole=Whole(),
        train_source=[record("x"), record("y"), record("z", "a red <image> circle")],
        log=lambda text: None,
        damage=Damage(),
    )
    run.caption_prompts = functools.partial(Run.caption_prompts, run)
    return run


def words_of_tokens(tokenizer, text):
    """The word of each token, told by its spelling: a space or a mark begins a new word."""
    words, current = [], -1
    for token in tokenizer.encode(text).ids:
        piece = tokenizer._backend.decode([token])
        current += piece.startswith((" ", ".", "!", "<")) or current < 0
        words.append(current)
    return np.array(words)


def test_tokens_are_pooled_to_words_and_sentences(run, tiny_tokenizer):
    rows = list(score_records(run, None, run.train_source))
    assert [row["id"] for row in rows] == ["x", "y", "z"]
    to_word = words_of_tokens(tiny_tokenizer, TEXT)
    assert to_word.max() == len(WORDS) - 1
    tokens = np.arange(len(to_word))
    to_sentence = np.array(SENTENCE_OF_WORD)[to_word]
    for b, row in enumerate(rows[:2]):
        assert row["caption"] == TEXT
        for k, kind in enumerate(KINDS):
            scores = 100 * k + 10 * b + tokens
            by_word = [scores[to_word == word].mean() for word in range(13)]
            by_sentence = [scores[to_sentence == sentence].mean() for sentence in range(2)]
            np.testing.assert_allclose(row[f"word_{kind}"], by_word)
            np.testing.assert_allclose(row[f"sentence_{kind}"], by_sentence)
        # The blind log-probability of a word is that of all its tokens.
        np.testing.assert_allclose(
            row["word_blind_logprob"], [-(tokens + 1)[to_word == word].sum() for word in range(13)]
        )
        np.testing.assert_allclose(row["patch_received"], b + np.arange(4))


def test_the_last_batch_is_filled_up_and_captions_are_escaped(run):
    *_, last = score_records(run, None, run.train_source)
    assert last["caption"] == "a red < image> circle"
    # First of its batch, and not its last row, which repeats it.
    assert last["patch_received"].tolist() == [0, 1, 2, 3]


def test_a_damaged_image_has_no_scores_and_is_told_of(run):
    source = list(run.train_source)
    source[1] = source[1] | {"images": [source[1]["images"][0][:40]]}
    rows = list(score_records(run, None, source))
    assert [row["id"] for row in rows] == ["x", "z"]
    assert run.damage.tell().startswith("1 record could not be used: y (")


def test_what_has_no_image_has_no_scores_and_is_told_of(run):
    said: list[str] = []
    run.log = said.append
    source = [run.train_source[0] | {"images": []}, *run.train_source]
    assert [row["id"] for row in score_records(run, None, source)] == ["x", "y", "z"]
    assert said == ["   left out of scores and masks: 1 of 4 records, which have no image"]
    with pytest.raises(ConfigError, match="of 1 records none has an image"):
        list(score_records(run, None, source[:1]))


def test_patches_are_those_of_all_images(run):
    one, other = run.train_source[:2]
    rows = list(score_records(run, None, [one, other | {"images": other["images"] * 2}]))
    assert [row["patch_received"].tolist() for row in rows] == [[0, 1, 2, 3], list(range(1, 9))]


def test_the_stage_writes_what_it_found_once(run, tmp_path, monkeypatch):
    run_score(run, None, tmp_path / "scores")
    rows = open_sidecar(tmp_path / "scores" / "records", "train")
    assert len(rows) == 3 and rows[0].keys() == {"id", *FIELDS}
    assert read_summary(tmp_path / "scores") == {"records": 3, "layers": [1], "sentence_auc": {}}
    monkeypatch.setattr(score, "score_records", None)
    run_score(run, None, tmp_path / "scores")


def test_a_stage_stopped_before_its_summary_starts_over(run, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(score, "mark_complete", stop)
        with pytest.raises(KeyboardInterrupt):
            run_score(run, None, tmp_path)
    run_score(run, None, tmp_path)
    assert read_summary(tmp_path)["records"] == 3


def test_agreement_with_the_scenes_own_labels():
    source = [record("x", needs_image=[[True, False]]), record("y", needs_image=[[False, True, False]])]
    rows = [{"id": i} | {f"sentence_{kind}": np.zeros(n) for kind in KINDS} for i, n in (("x", 2), ("y", 3))]
    rows[0]["sentence_llr"], rows[1]["sentence_llr"] = np.array([0.9, 0.1]), np.array([0.2, 0.8, 0.3])
    rows[0]["sentence_kl"], rows[1]["sentence_kl"] = np.array([0.9, 0.5]), np.array([0.2, 0.4, 0.3])
    # Pairs (needed, not needed) in the right order: all six of llr, five of kl; ties count one half.
    expected = dict.fromkeys(KINDS, 0.5) | {"llr": 1.0, "kl": pytest.approx(5 / 6)}
    assert sentence_auc(source, rows) == expected
    # Of a record between them there are no scores.
    assert sentence_auc([source[0], record("damaged", needs_image=[[True]]), source[1]], rows) == expected
    assert sentence_auc([record("x")], rows) == {}
