import pytest

from mmrpt_jax.data.damage import Damage
from mmrpt_jax.data.fitting import DAMAGED, NOTHING_LEFT, keep_captions
from mmrpt_jax.data.images import ImageError
from mmrpt_jax.data.records import RecordError


def record(name, *captions):
    return {"id": name, "images": [], "captions": list(captions), "qa": [], "group": name, "extra": "{}"}


RECORDS = [record("x", "a", "a b c d"), record("y"), record("z", "a b c d e"), record("w", "a b")]


def test_captions_that_fit_are_kept_in_order():
    kept, left = keep_captions(RECORDS, lambda row, text: None if len(text.split()) < 4 else "too long")
    assert [(row["id"], row["captions"]) for row in kept] == [("x", ["a"]), ("w", ["a b"])]
    assert left == {"too long": 2, NOTHING_LEFT: 2}


def test_what_is_damaged_is_left_out_and_told_of():
    class Source(list):
        def __getitem__(self, index):
            if index == 2:
                raise RecordError("record 2 is damaged")
            return super().__getitem__(index)

    def misfit(row, text):
        if row["id"] == "x":
            raise ImageError("unreadable", "the image is damaged")

    damage = Damage()
    kept, left = keep_captions(Source(RECORDS), misfit, damage.note)
    assert [row["id"] for row in kept] == ["w"]
    assert left == {DAMAGED: 2, NOTHING_LEFT: 1}
    assert damage.tell() == (
        "2 records could not be used: number 2 (record 2 is damaged), x (the image is damaged)"
    )


def test_nothing_fits():
    with pytest.raises(ValueError, match=r"of 4 records none can be used: 4 records with no .*, 4 too long$"):
        keep_captions(RECORDS, lambda row, text: "too long")
