import functools

import grain
import numpy as np
import pytest

from mmrpt_jax.data.damage import Damage, read_or_next, usable
from mmrpt_jax.data.images import ImageError
from mmrpt_jax.data.pipeline import make_dataset, make_iterator
from mmrpt_jax.data.records import MappedSource, Record, RecordError, open_records, write_records

BAD = (2, 3, 7)


def record(index):
    """One of eight; numbers 2 and 3 have images that cannot be decoded, number 7 cannot be read."""
    if index == 7:
        raise RecordError("record 7 is damaged")
    return {"id": f"r{index}", "value": index}


SOURCE = MappedSource(range(8), lambda _, index: record(index))


def use(record):
    if record["value"] in BAD:
        raise ImageError("unreadable", "the image is damaged")
    return record["value"]


def test_what_can_be_used_is_passed_on_with_its_number():
    damage = Damage()
    assert list(usable(SOURCE, use, damage.note)) == [(index, index) for index in (0, 1, 4, 5, 6)]
    assert list(usable(SOURCE, use, damage.note, order=(6, 7, 1))) == [(6, 6), (1, 1)]
    assert damage.tell().startswith("3 records could not be used: number 7 (record 7 is damaged), r2 (")


def test_the_next_one_stands_in_round_the_end():
    damage = Damage()
    read = functools.partial(read_or_next, SOURCE, use=use, note=damage.note)
    assert [read(index) for index in range(8)] == [0, 1, 4, 4, 4, 5, 6, 0]
    assert damage.tell() == (
        "3 records could not be used: number 7 (record 7 is damaged), r2 (the image is damaged), r3 (the image is "
        "damaged)"
    )
    assert damage.tell() == ""


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        read_or_next(SOURCE, 0, lambda record: 1 // record["value"], Damage().note)


def test_where_nothing_can_be_used_it_ends():
    def never(record):
        raise ImageError("unreadable", "the image is damaged")

    with pytest.raises(ValueError, match=r"from number 1 on no record can be used; .* the image is damaged"):
        read_or_next(range(300), 1, never, Damage().note)


class Draw(grain.transforms.RandomMap):
    """Draws before it fails, as augmentation may."""

    def random_map(self, record, rng):
        drawn = rng.integers(1000)
        return {"value": use(record), "drawn": drawn}


@pytest.mark.parametrize("threads", [0, 4])
def test_batches_stay_a_function_of_the_step(threads):
    damage = Damage()
    dataset = make_dataset(SOURCE, seed=5, batch_size=3, transform=Draw(), note=damage.note)
    whole = make_iterator(dataset, num_threads=threads)
    expected = [next(whole) for _ in range(12)]
    for step in (3, 7):
        again = make_iterator(dataset, start_step=step, num_threads=0)
        for batch in expected[step:]:
            found = next(again)
            assert all(np.array_equal(found[name], batch[name]) for name in batch)
    values = np.concatenate([batch["value"] for batch in expected])
    assert set(values.tolist()) == {0, 1, 4, 5, 6}
    # Sound records come as often as ever: 36 examples are four and a half epochs.
    sound = make_dataset(MappedSource(range(8), lambda _, i: {"value": i}), seed=5, batch_size=3)
    order = np.concatenate(
        [batch["value"] for batch, _ in zip(make_iterator(sound), range(12), strict=False)]
    )
    kept = ~np.isin(order, BAD)
    np.testing.assert_array_equal(values[kept], order[kept])
    assert damage.tell().startswith("3 records could not be used")


def test_a_damaged_shard_loses_what_is_damaged(tmp_path):
    records = [
        Record(
            id=f"r{i}",
            images=[np.random.default_rng(i).bytes(4000)],
            captions=["x"],
            qa=[],
            group="g",
            extra="",
        )
        for i in range(8)
    ]
    write_records(tmp_path / "set", "set", {"train": records})
    shard = tmp_path / "set" / "set-train.array_record-00000"
    data = bytearray(shard.read_bytes())
    data[data.index(records[3]["images"][0][:16]) + 5] ^= 1
    shard.write_bytes(data)
    source = open_records(tmp_path / "set", "train")
    with pytest.raises(RecordError, match=r"record 3 of .*set is damaged"):
        source[3]
    damage = Damage()
    dataset = make_dataset(source, seed=0, batch_size=8, shuffle=False, note=damage.note)
    assert dataset[0]["id"] == ["r0", "r1", "r2", "r4", "r4", "r5", "r6", "r7"]
    assert "1 record could not be used: number 3 (record 3 of" in damage.tell()
