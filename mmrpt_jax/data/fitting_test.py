import pytest

from mmrpt_jax.data.fitting import keep_captions


def record(name, *captions):
    return {"id": name, "image": b"", "captions": list(captions), "qa": [], "group": name, "extra": "{}"}


RECORDS = [record("x", "a", "a b c d"), record("y"), record("z", "a b c d e"), record("w", "a b")]


def test_captions_that_fit_are_kept_in_order():
    kept, captions, records = keep_captions(RECORDS, lambda row, text: len(text.split()) < 4)
    assert [(row["id"], row["captions"]) for row in kept] == [("x", ["a"]), ("w", ["a b"])]
    assert (captions, records) == (2, 2)


def test_nothing_fits():
    with pytest.raises(ValueError, match=r"of 4 records none has a caption that fits \(4 are too long\)"):
        keep_captions(RECORDS, lambda row, text: False)
