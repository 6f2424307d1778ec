import pytest

from mmrpt_jax.data.fitting import Room, keep_captions, keep_prompts
from mmrpt_jax.data.prompts import bucket, caption_prompt, encode_branches, encode_prompts


def record(name, *captions):
    return {"id": name, "image": b"", "captions": list(captions), "qa": [], "group": name, "extra": "{}"}


RECORDS = [record("x", "a", "a b c d"), record("y"), record("z", "a b c d e"), record("w", "a b")]


def test_captions_that_fit_are_kept_in_order():
    kept, captions, records = keep_captions(RECORDS, lambda text: len(text.split()) < 4)
    assert [(row["id"], row["captions"]) for row in kept] == [("x", ["a"]), ("w", ["a b"])]
    assert (captions, records) == (2, 2)


def test_nothing_fits():
    with pytest.raises(ValueError, match=r"of 4 records none has a caption that fits \(4 are too long\)"):
        keep_captions(RECORDS, lambda text: False)


def test_prompts_that_fit_are_kept_in_order_and_the_others_counted():
    kept, dropped = keep_prompts(RECORDS, lambda row: bucket(len(row["captions"]), (1,), "a prompt"))
    assert ([row["id"] for row in kept], dropped) == (["y", "z", "w"], 1)
    with pytest.raises(ValueError, match="of 4 records none has a prompt that fits"):
        keep_prompts(RECORDS, lambda row: bucket(9, (1,), "a prompt"))
    # Anything but a lack of room is an error of the data or of the program.
    with pytest.raises(KeyError):
        keep_prompts(RECORDS, lambda row: row["no such field"])


def test_room_is_what_the_encoders_take(tiny_tokenizer):
    prompt, text = caption_prompt(), "a red circle"
    for prompt_length in range(4, 20):
        room = Room(tiny_tokenizer, image_tokens=4, prompt=prompt_length, text=prompt_length)
        assert room.holds_prompt(prompt) == _encodes(
            lambda length=prompt_length: encode_prompts(
                tiny_tokenizer, [prompt], image_tokens=4, lengths=(length,)
            )
        )
        assert room.holds_text(text) == _encodes(
            lambda length=prompt_length: encode_branches(
                tiny_tokenizer, [[f"{text}<eos>"]], lengths=(length,)
            )
        )
    # A placeholder in a caption is words, not an image.
    assert Room(tiny_tokenizer, image_tokens=500, prompt=9, text=20).holds_text("see <image>")


def _encodes(encode):
    try:
        encode()
    except ValueError:
        return False
    return True
