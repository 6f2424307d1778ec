import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrpt_jax.data.tokenizer import (
    ANSWER,
    END_ANSWER,
    EOS,
    IMAGE,
    MASK,
    PAD,
    SPECIAL_TOKENS,
    load_tokenizer,
    train_tokenizer,
)

CORPUS = ["the red circle is left of the blue square .", "there are two red circles ."] * 20
TOKENIZER = train_tokenizer(CORPUS, vocab_size=320)


def test_special_tokens_come_first_and_are_one_token_each():
    assert len(SPECIAL_TOKENS) + 256 < TOKENIZER.vocab_size <= 320
    for index, token in enumerate(SPECIAL_TOKENS):
        assert TOKENIZER.encode(token).ids == (index,)
    assert SPECIAL_TOKENS[TOKENIZER.pad_id] == PAD
    assert SPECIAL_TOKENS[TOKENIZER.eos_id] == EOS
    assert SPECIAL_TOKENS[TOKENIZER.image_id] == IMAGE


def test_what_may_be_read_but_never_written_is_banned():
    banned = {SPECIAL_TOKENS[i] for i in np.flatnonzero(TOKENIZER.banned)}
    assert banned == {PAD, IMAGE}
    assert TOKENIZER.banned.shape == (TOKENIZER.vocab_size,)


def test_words_of_the_corpus_are_one_token_wherever_they_stand():
    (circle,) = TOKENIZER.encode("circle").ids
    assert TOKENIZER.encode("the circle").ids[-1] == circle
    assert TOKENIZER.encode(f"{ANSWER}circle{END_ANSWER}").ids[1:-1] == (circle,)
    assert TOKENIZER.encode(f"the {MASK} circle").ids[-1] == circle


@given(st.text(max_size=30))
@settings(deadline=None)
def test_any_text_comes_back(text):
    kept = text
    for token in SPECIAL_TOKENS:
        kept = kept.replace(token, "")
    assert TOKENIZER.decode(TOKENIZER.encode(kept).ids) == kept.strip()


def test_completions_come_back_with_their_tags_and_without_the_end():
    text = f"<think>the red circle</think>{ANSWER}red circle{END_ANSWER}"
    ids = [*TOKENIZER.encode(text + EOS).ids, TOKENIZER.pad_id, TOKENIZER.pad_id]
    decoded = TOKENIZER.decode(np.array(ids))
    assert decoded.replace(" ", "") == text.replace(" ", "")
    assert "red circle" in decoded


def test_offsets_are_the_characters_of_each_token():
    text = f"the red circle {MASK} éa ."
    encoding = TOKENIZER.encode(text)
    assert len(encoding.ids) == len(encoding.offsets)
    words = {
        text[start:end].strip(): token for token, (start, end) in zip(*vars(encoding).values(), strict=True)
    }
    assert words["red"] == TOKENIZER.encode("red").ids[0]
    assert words[MASK] == TOKENIZER.encode(MASK).ids[0]
    assert encoding.offsets[0][0] == 0
    assert encoding.offsets[-1][1] == len(text)
    # Tokens cover every character but spaces; only the bytes of one character overlap.
    covered = {i for start, end in encoding.offsets for i in range(start, end)}
    assert covered >= {i for i, character in enumerate(text) if character != " "}


def test_training_is_deterministic_and_files_come_back(tmp_path):
    TOKENIZER.save(tmp_path / "a.json")
    train_tokenizer(CORPUS, vocab_size=320).save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    loaded = load_tokenizer(tmp_path / "a.json")
    text = f"{IMAGE} fill in the blank : two {MASK} circles"
    assert loaded.encode(text) == TOKENIZER.encode(text)


def test_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    TOKENIZER.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text().replace(MASK, "[HOLE]"))
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has no \[MASK\]; train one"):
        load_tokenizer(tmp_path / "a.json")
