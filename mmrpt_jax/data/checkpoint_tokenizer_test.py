import json

import numpy as np
import pytest

from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.prompts import completion, encode_branches, encode_prompts
from mmrpt_jax.data.tokenizer import EOS, IMAGE, PAD

SPECIAL = (
    "<|end|>",
    "<|turn|>",
    "<|pad|>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<row_1_col_1>",
    "<global-img>",
    "<|box_start|>",
)
TEMPLATE = "{% for message in messages %}{{ message.content[0].text }}<|turn|>\n{% endfor %}"


@pytest.fixture(scope="module")
def folder(write_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return write_tokenizer(folder, special=SPECIAL, chat_template=TEMPLATE, eos="<|end|>", pad="<|pad|>")


@pytest.fixture(scope="module")
def tokenizer(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    return load_checkpoint_tokenizer(folder, image_token="<|image_pad|>")


def test_ids_come_from_the_checkpoint(tokenizer):
    (turn,) = tokenizer.encode("<|turn|>").ids
    (end,) = tokenizer.encode("<|end|>").ids
    assert tokenizer.stop_ids == (0, 1) == (end, turn)
    # Of both, the template writes the second behind an answer.
    assert tokenizer.eos_id == turn
    assert tokenizer.pad_id == tokenizer.encode("<|pad|>").ids[0]
    assert tokenizer.image_id == tokenizer.encode("<|image_pad|>").ids[0]
    assert tokenizer.vocab_size == 400


def test_our_markup_means_the_same_with_every_tokenizer(tokenizer):
    ids = tokenizer.encode(f"{IMAGE} the red{PAD}{EOS}").ids
    assert ids == (
        tokenizer.image_id,
        *tokenizer.encode(" the red").ids,
        tokenizer.pad_id,
        tokenizer.eos_id,
    )
    assert tokenizer.decode(ids) == "<|image_pad|> the red"


@pytest.mark.parametrize("text", ["", "the red", f"{IMAGE}the{EOS}{EOS} circle", f"a{PAD}{IMAGE}"])
def test_offsets_are_the_characters_of_each_token_before_translation(tokenizer, text):
    encoding = tokenizer.encode(text)
    own = {tokenizer.image_id: IMAGE, tokenizer.eos_id: EOS, tokenizer.pad_id: PAD}
    pieces = [text[start:end] for start, end in encoding.offsets]
    assert "".join(pieces) == text
    for token, piece in zip(encoding.ids, pieces, strict=True):
        assert own.get(token, piece) == piece
        assert token in own or tokenizer.encode(piece).ids == (token,)


def test_what_may_be_read_but_never_written_is_banned(tokenizer, folder):
    banned = np.flatnonzero(tokenizer.banned)
    pictures = ("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<row_1_col_1>", "<global-img>")
    expected = {tokenizer.encode(token).ids[0] for token in (*pictures, "<|pad|>")}
    known = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(known) < 400
    assert set(banned) == expected | set(range(len(known), 400))


def test_padding_that_ends_completions_may_be_written(write_tokenizer, tmp_path):
    write_tokenizer(tmp_path, special=SPECIAL, eos="<|end|>", pad="<|end|>")
    tokenizer = load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    assert tokenizer.stop_ids == (tokenizer.eos_id,) == (tokenizer.pad_id,)
    assert not tokenizer.banned[tokenizer.eos_id]


def test_prompts_and_branches_are_made_as_with_our_own(tokenizer):
    prompt = encode_prompts(tokenizer, [f"{IMAGE} the circle"], image_tokens=3, lengths=(16,))
    np.testing.assert_array_equal(prompt.image_slots[0], np.arange(16) < 3)
    branches = encode_branches(tokenizer, [[completion("the", "red")]], lengths=(64,))
    ids = branches.ids[0, 0][branches.valid[0, 0]]
    assert ids[-1] == tokenizer.eos_id
    assert tokenizer.decode(ids) == "<think>the</think><answer>red</answer>"


def test_stop_ids_fall_back_to_config_and_tokenizer(write_tokenizer, tmp_path):
    options = {"special": SPECIAL, "eos": "<|turn|>"}
    write_tokenizer(tmp_path, **options)
    assert load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>").stop_ids == (1,)
    write_tokenizer(tmp_path, **options, text_config={"eos_token_id": 7})
    assert load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>").stop_ids == (7,)


def test_an_older_processors_template_is_taken(write_tokenizer, tmp_path):
    write_tokenizer(tmp_path, special=SPECIAL, eos="<|end|>")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "older"}))
    tokenizer = load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    assert tokenizer.chat_text([{"role": "user", "content": []}]) == "older"
    (tmp_path / "chat_template.jinja").write_text("newer")
    tokenizer = load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    assert tokenizer.chat_text([{"role": "user", "content": []}]) == "newer"


def test_a_saved_folder_loads_and_writes_the_same(tokenizer, folder, tmp_path):
    tokenizer.save(tmp_path)
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    loaded = load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    text = f"{IMAGE} the red circle{EOS}"
    assert loaded.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": [{"type": "text", "text": "the"}]}]
    assert loaded.chat_text(messages) == tokenizer.chat_text(messages) == "the<|turn|>\n"


def test_what_does_not_belong_together_is_refused(write_tokenizer, tmp_path):
    write_tokenizer(tmp_path, special=SPECIAL, eos="<|end|>", vocab_size=200)
    with pytest.raises(ValueError, match="has no image token '<im>'"):
        load_checkpoint_tokenizer(tmp_path, image_token="<im>")
    with pytest.raises(
        ValueError, match=r"tokenizer has \d+ tokens, its model 200; they do not belong together"
    ):
        load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    write_tokenizer(tmp_path, special=SPECIAL, eos=None)
    with pytest.raises(ValueError, match="names an end token; add eos_token_id to"):
        load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
