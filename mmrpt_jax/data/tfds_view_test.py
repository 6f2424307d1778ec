import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mmrpt_jax.data.records import write_examples
from mmrpt_jax.data.tfds_view import open_prepared, open_rows, open_tfds, plain


def encode(color, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (5, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A TFDS dataset with other fields than records have."""
    directory = tmp_path_factory.mktemp("foreign")
    features = tfds.features.FeaturesDict(
        {
            "picture": tfds.features.Image(),
            "depth": tfds.features.Image(shape=(None, None, 1)),
            "frames": tfds.features.Sequence(tfds.features.Image()),
            "key": np.int64,
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "author": np.int64}),
            "score": np.float32,
        }
    )
    example = {
        "picture": encode((1, 2, 3)),
        "depth": encode(4, mode="L"),
        "frames": [encode((5, 6, 7)), encode((8, 9, 0))],
        "key": 17,
        "label": 1,
        "captions": [{"text": "a ü", "author": 1}, {"text": "b", "author": 2}],
        "score": 0.5,
    }
    write_examples(directory, "foreign", features, [("train", example)])
    return directory


def test_any_tfds_dataset_opens_as_records(foreign):
    options = {"image_field": "picture", "id_field": "key"}
    (record,) = open_tfds(foreign, "train", text_field="captions/text", **options)
    extra = json.loads(record.pop("extra"))
    expected = {"id": "17", "images": [encode((1, 2, 3))], "captions": ["a ü", "b"], "qa": [], "group": "17"}
    assert record == expected
    assert extra == {"label": "dog", "score": 0.5, "captions": {"author": [1, 2], "text": ["a ü", "b"]}}


def test_class_labels_become_captions_and_ids_default_to_places(foreign):
    (record,) = open_tfds(foreign, "train", image_field="picture", text_field="label")
    assert record["captions"] == ["dog"]
    assert record["id"] == record["group"] == "train:0"


def test_a_sequence_of_images_gives_several(foreign):
    (record,) = open_tfds(foreign, "train", image_field="frames", text_field="label")
    assert record["images"] == [encode((5, 6, 7)), encode((8, 9, 0))]


def test_foreign_fields_are_checked(foreign):
    with pytest.raises(ValueError, match="no field 'image'; it has"):
        open_tfds(foreign, "train", image_field="image", text_field="label")


def test_rows_hold_plain_values_and_encoded_media(foreign):
    (row,) = open_rows(open_prepared(foreign), "train")
    assert row["picture"] == encode((1, 2, 3))
    assert (row["key"], row["label"], row["captions"]["text"]) == (17, "dog", ["a ü", "b"])


def test_plain_makes_json_of_anything():
    values = {
        1: np.array([b"a", b"b"], object),
        "n": np.float32(0.5),
        "junk": b"\xff",
        "set": {3},
        "deep": (None, [True]),
    }
    expected = {"1": ["a", "b"], "n": 0.5, "junk": None, "set": "{3}", "deep": [None, [True]]}
    assert json.loads(json.dumps(plain(values))) == expected
