import pytest

from mmrpt_jax.data.chat import check_image_tokens, encode_chat, user_message
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.preprocessing.image_text import FramedRun
from mmrpt_jax.data.preprocessing.preprocessor import Layout
from mmrpt_jax.data.prompts import TooLongError, Wording, pad_prompts
from mmrpt_jax.data.tokenizer import IMAGE

TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image_pad|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>{% endif %}"
)
TEXT = FramedRun("<|image_pad|>", "<|image_pad|>", "(", ")")


@pytest.fixture(scope="module")
def tokenizer(write_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tokenizer(
        folder, special=("<|end|>", "<|start|>", "<|image_pad|>"), chat_template=TEMPLATE, eos="<|end|>"
    )
    return load_checkpoint_tokenizer(folder, image_token="<|image_pad|>")


def test_our_prompts_become_messages():
    image = {"type": "image"}
    assert user_message(Wording().caption) == {
        "role": "user",
        "content": [image, {"type": "text", "text": "describe the image :"}],
    }
    assert user_message(f"see {IMAGE}{IMAGE}")["content"] == [{"type": "text", "text": "see"}, image, image]
    assert user_message("no image")["content"] == [{"type": "text", "text": "no image"}]


def test_prompts_end_where_the_answer_begins(tokenizer):
    ids = encode_chat(
        tokenizer,
        [user_message(f"{IMAGE} the {IMAGE}")],
        image_text=TEXT,
        layouts=[Layout(0, 0, (3,)), Layout(0, 0, (1,))],
        sample=0,
    )
    images = "<|image_pad|><|image_pad|><|image_pad|>", "<|image_pad|>"
    assert ids == list(tokenizer.encode(f"({images[0]})the({images[1]})<|end|><|start|>").ids)
    prompt = pad_prompts(tokenizer, [ids, ids[:4]], lengths=(32,))
    assert prompt.image_slots.sum(1).tolist() == [4, 3]
    assert prompt.valid.sum(1).tolist() == [len(ids), 4]


def test_prompts_without_an_image_work(tokenizer):
    ids = encode_chat(tokenizer, [user_message("the red")], image_text=TEXT, layouts=[], sample=0)
    assert ids == list(tokenizer.encode("the red<|end|><|start|>").ids)


def test_a_prompt_that_is_not_answered_begins_no_turn(tokenizer):
    options = {"image_text": TEXT, "layouts": [], "sample": 0, "answered": False}
    ids = encode_chat(tokenizer, [user_message("the red")], **options)
    assert ids == list(tokenizer.encode("the red<|end|>").ids)


def test_placeholders_of_users_are_found_or_escaped(tokenizer):
    question, layouts = "is <|image_pad|> red ?", [Layout(0, 0, (2,))]
    with pytest.raises(ValueError, match="sample 'id7' has 2 image placeholders for 1 images; give each"):
        encode_chat(
            tokenizer,
            [user_message(Wording().question_prompt(question))],
            image_text=TEXT,
            layouts=layouts,
            sample="id7",
        )
    escaped = Wording().question_prompt(escape_placeholders(question))
    ids = encode_chat(tokenizer, [user_message(escaped)], image_text=TEXT, layouts=layouts, sample="id7")
    assert ids.count(tokenizer.image_id) == 2


def test_an_image_is_never_cut(tokenizer):
    layouts = [Layout(0, 0, (40,))]
    ids = encode_chat(
        tokenizer, [user_message(Wording().caption)], image_text=TEXT, layouts=layouts, sample=0
    )
    with pytest.raises(TooLongError, match="more than the largest length 32"):
        pad_prompts(tokenizer, [ids], lengths=(16, 32))
    with pytest.raises(ValueError, match="sample 'id7' has 30 image tokens where its images give 40; escape"):
        check_image_tokens(ids[:31], tokenizer.image_id, layouts, sample="id7")
