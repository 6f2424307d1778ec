import pytest

from mmrpt_jax.data.fitting import NOTHING_LEFT, keep_captions


def record(name, *captions):
    return {"id": name, "image": b"", "captions": list(captions), "qa": [], "group": name, "extra": "{}"}


RECORDS = [record("x", "a", "a b c d"), record("y"), record("z", "a b c d e"), record("w", "a b")]


def test_captions_that_fit_are_kept_in_order():
    kept, left = keep_captions(RECORDS, lambda row, text: None if len(text.split()) < 4 else "too long")
    assert [(row["id"], row["captions"]) for row in kept] == [("x", ["a"]), ("w", ["a b"])]
    assert left == {"too long": 2, NOTHING_LEFT: 2}


def test_nothing_fits():
    with pytest.raises(ValueError, match=r"of 4 records none can be used: 4 records with no .*, 4 too long$"):
        keep_captions(RECORDS, lambda row, text: "too long")
