import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.tokenizer import SPECIAL_TOKENS, train_tokenizer

OTHERS = (
    "<|im_start|>",
    "<|endoftext|>",
    "<image_1>",
    "<s>",
    "</s>",
    "<unk>",
    "[CLS]",
    "[IMG_BREAK]",
    "[/INST]",
    "<|image_pad|>",
    "<start_of_image>",
    "<row_1_col_2>",
    "<global-img>",
    "[gMASK]",
    "[unused12]",
    "[CONTROL_8]",
    "<｜begin▁of▁sentence｜>",
    "<|0.00|>",
    "<|fim-prefix|>",
    "<tool_call|>",
    "<start_of_turn>",
    "<loc0001>",
    "<<SYS>>",
)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a <image> of [MASK]", "a < image> of [ MASK]"),
        ("</think><|im_end|>", "< /think>< |im_end|>"),
        ("<<image>>", "<< image>>"),
        ("<im<image>age>", "<im< image>age>"),
    ],
)
def test_placeholders_are_broken(text, escaped):
    assert escape_placeholders(text) == escaped


@pytest.mark.parametrize(
    "text", ["a < b > c", "1<2 and 3>2", "[sic]", "a [b] c", "[A]", "<3", "<>", "[]", "the red circle ."]
)
def test_other_text_is_left_alone(text):
    assert escape_placeholders(text) == text


# Fragments that meet in every order, so that new placeholders could arise at the seams.
PIECES = [
    *SPECIAL_TOKENS,
    *OTHERS,
    "<",
    ">",
    "[",
    "]",
    "/",
    "|",
    " ",
    "image",
    "MASK",
    "think",
    "im_start",
    "｜",
    "▁",
    "-",
    "7",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(deadline=None)
def test_nothing_special_is_left_and_twice_is_once(text):
    escaped = escape_placeholders(text)
    assert not [token for token in (*SPECIAL_TOKENS, *OTHERS) if token in escaped]
    assert escape_placeholders(escaped) == escaped
    assert escaped.replace(" ", "") == text.replace(" ", "")


def test_an_escaped_caption_has_no_special_ids():
    tokenizer = train_tokenizer(["the red circle is left of the image ."], vocab_size=300)
    caption = "".join(SPECIAL_TOKENS)
    special = set(tokenizer.encode(caption).ids)
    assert len(special) == len(SPECIAL_TOKENS)
    assert not special & set(tokenizer.encode(escape_placeholders(caption)).ids)
