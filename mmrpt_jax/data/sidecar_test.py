import numpy as np
import pytest

from mmrpt_jax.data.records import EmptyDatasetError, Record, open_records, write_records
from mmrpt_jax.data.sidecar import join, open_sidecar, write_sidecar

FIELDS = {"score": float, "span": int, "words": str}
ROWS = [
    {"id": "b", "score": np.array([0.5, -1.25, 3.0]), "span": [4, 9], "words": ["ein", "Häuschen"]},
    {"id": "a", "score": [], "span": [], "words": []},
    {"id": "c", "score": 2.0, "span": np.int32(7), "words": "one"},
]


@pytest.fixture
def sidecar(tmp_path):
    assert write_sidecar(tmp_path / "scores", "scores", {"train": iter(ROWS)}, fields=FIELDS) == {"train": 3}
    return open_sidecar(tmp_path / "scores", "train")


def test_values_of_any_length_come_back(sidecar):
    assert [row["id"] for row in sidecar] == ["b", "a", "c"]
    assert [row["score"].tolist() for row in sidecar] == [[0.5, -1.25, 3.0], [], [2.0]]
    assert [row["span"].tolist() for row in sidecar] == [[4, 9], [], [7]]
    assert [row["words"] for row in sidecar] == [["ein", "Häuschen"], [], ["one"]]
    assert {row["score"].dtype for row in sidecar} == {np.dtype(np.float32)}
    assert {row["span"].dtype for row in sidecar} == {np.dtype(np.int64)}


def test_join_goes_by_id_in_the_order_of_the_records(sidecar):
    source = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]
    joined = join(source, sidecar)
    assert [(row["id"], row["x"], row["score"].tolist()) for row in joined] == [
        ("a", 1, []),
        ("b", 2, [0.5, -1.25, 3.0]),
    ]


def test_record_without_a_row_is_an_error_or_left_out(sidecar):
    source = [{"id": "z"}, {"id": "c"}]
    with pytest.raises(ValueError, match="no row for the id 'z'"):
        join(source, sidecar)
    joined = join(source, sidecar, missing="skip")
    assert len(joined) == 1
    assert joined[0]["words"] == ["one"]
    assert len(join([{"id": "z"}], sidecar, missing="skip")) == 0
    with pytest.raises(ValueError, match="'error' or 'skip', got 'drop'"):
        join(source, sidecar, missing="drop")


def test_ambiguous_joins_are_refused(sidecar):
    with pytest.raises(ValueError, match=r"both have the fields \['score'\]"):
        join([{"id": "a", "score": 1}], sidecar)
    with pytest.raises(ValueError, match="two rows with the id 'a'"):
        join([{"id": "a"}], [{"id": "a", "s": 1}, {"id": "a", "s": 2}])


def test_join_with_records_on_disk(tmp_path, sidecar):
    record = Record(id="c", images=[b"123"], captions=["x"], qa=[], group="c", extra="{}")
    write_records(tmp_path / "set", "set", {"train": [record]})
    (joined,) = join(open_records(tmp_path / "set", "train"), sidecar)
    assert joined["images"] == [b"123"]
    assert joined["span"].tolist() == [7]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "score": [1.0], "span": [1]}, "row 'a' has the fields"),
        ({"id": "a", "score": np.zeros((2, 2)), "span": [1], "words": []}, r"'score' has the shape \(2, 2\)"),
        ({"id": "a", "score": [1.0], "span": [1.5], "words": []}, "'span' holds float64, expected integers"),
    ],
)
def test_unfit_rows_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        write_sidecar(tmp_path / "bad", "bad", {"train": [row]}, fields=FIELDS)
    assert not (tmp_path / "bad").exists()


def test_empty_or_foreign_sidecars(tmp_path):
    with pytest.raises(EmptyDatasetError):
        write_sidecar(tmp_path / "bad", "bad", {"train": []}, fields=FIELDS)
    write_records(
        tmp_path / "set",
        "set",
        {"train": [Record(id="c", images=[], captions=[], qa=[], group="", extra="")]},
    )
    with pytest.raises(ValueError, match="is no sidecar"):
        open_sidecar(tmp_path / "set", "train")
