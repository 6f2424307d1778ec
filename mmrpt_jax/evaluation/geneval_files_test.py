import json

import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.evaluation.geneval_files import (
    PromptFileError,
    check_geneval_folder,
    read_prompt_file,
    write_geneval,
)

BENCH = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}'
)
CLOCKS = (
    '{"tag": "counting", "include": [{"class": "clock", "count": 2}], '
    '"exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}'
)


def images(prompts, samples, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (prompts, samples, 6, 5, 3), np.uint8)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(f"{BENCH}\n{CLOCKS}\n")
    return read_prompt_file(path)


def test_metadata_is_read_as_it_stands(prompts):
    assert [entry["prompt"] for entry in prompts] == ["a photo of a bench", "a photo of two clocks"]
    assert prompts[1]["exclude"] == [{"class": "clock", "count": 3}]


def test_plain_texts_are_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red circle\r\n\n  zwei grüne Kreuze \n".encode())
    assert read_prompt_file(path) == [{"prompt": "a red circle"}, {"prompt": "zwei grüne Kreuze"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", f"{BENCH}\n\n{{'prompt'\n", r"a\.jsonl, line 3 is not JSON"),
        ("a.jsonl", f'{BENCH}\n{{"text": "a"}}\n', 'a.jsonl, line 2 needs a text under "prompt"'),
        ("a.jsonl", '{"prompt": 3}', "a.jsonl, line 1 needs a text"),
        ("a.jsonl", '{"prompt": " "}', "a.jsonl, line 1 needs a text"),
        ("a.jsonl", '["a"]', "a.jsonl, line 1 needs a text"),
        ("a.jsonl", "\n \n", "a.jsonl holds no prompt"),
        ("a.txt", "", "a.txt holds no prompt"),
        ("a.csv", "a", "must end in .jsonl"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(PromptFileError, match=message) as caught:
        read_prompt_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_told(tmp_path):
    with pytest.raises(PromptFileError, match=r"none\.txt cannot be read"):
        read_prompt_file(tmp_path / "none.txt")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(PromptFileError, match=r"image\.txt cannot be read as text"):
        read_prompt_file(tmp_path / "image.txt")


def test_the_layout_is_genevals(tmp_path, prompts):
    drawn = images(2, 3)
    write_geneval(tmp_path / "out", prompts, drawn)
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert files == [
        "00000/metadata.jsonl",
        "00000/samples/0000.png",
        "00000/samples/0001.png",
        "00000/samples/0002.png",
        "00001/metadata.jsonl",
        "00001/samples/0000.png",
        "00001/samples/0001.png",
        "00001/samples/0002.png",
    ]
    assert (tmp_path / "out" / "00000" / "metadata.jsonl").read_text() == BENCH
    # The scorer reads a folder's metadata as one JSON document.
    assert json.loads((tmp_path / "out" / "00001" / "metadata.jsonl").read_text()) == json.loads(CLOCKS)
    for n in range(2):
        for g in range(3):
            stored = Image.open(tmp_path / "out" / f"{n:05d}" / "samples" / f"{g:04d}.png")
            assert stored.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(stored), drawn[n, g])


def test_the_same_prompts_are_drawn_anew(tmp_path, prompts):
    write_geneval(tmp_path, prompts, images(2, 2))
    again = images(2, 2, seed=1)
    write_geneval(tmp_path, prompts, again)
    stored = Image.open(tmp_path / "00001" / "samples" / "0001.png")
    np.testing.assert_array_equal(np.asarray(stored), again[1, 1])


def test_another_folders_images_stay(tmp_path, prompts):
    out = tmp_path / "out"
    write_geneval(out, prompts, images(2, 2))
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for entries, samples, message in (
        (prompts[::-1], 2, "00000 belongs to other prompts"),
        (prompts[:1], 2, "00001 belongs to other prompts"),
        (prompts, 1, "00000 holds more than 1 images, such as 0001.png"),
    ):
        with pytest.raises(PromptFileError, match=message):
            write_geneval(out, entries, images(len(entries), samples))
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    check_geneval_folder(out, prompts, samples=2)
    check_geneval_folder(out, [*prompts, {"prompt": "more"}], samples=3)
    check_geneval_folder(tmp_path / "not yet", prompts, samples=2)


def test_numbers_must_agree(tmp_path, prompts):
    with pytest.raises(ValueError, match="2 prompts but 3 groups"):
        write_geneval(tmp_path / "out", prompts, images(3, 1))
    assert not (tmp_path / "out").exists()
