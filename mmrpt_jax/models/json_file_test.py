import pytest

from mmrpt_jax.models.json_file import read_json_object


def test_an_object_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": [1, "ü"]}', encoding="utf-8")
    assert read_json_object(path) == {"a": [1, "ü"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
def test_anything_else_names_its_file(content, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"config\.json {message}"):
        read_json_object(path)
