"""Prompts with images against the processors of `transformers`: the same tokenizer, the same ids; needs no torch.

BAGEL has no processor there; its prompts are spelled out.
"""

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from mmrpt_jax.data.chat import encode_chat, user_message
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.preprocessing.families import (
    BAGEL_TEMPLATE,
    BAGEL_TEXT,
    bagel_understanding,
    image_text,
    read_preprocessor,
)
from mmrpt_jax.data.preprocessing.preprocessor import Layout
from mmrpt_jax.data.tokenizer import IMAGE

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IDEFICS_SPECIAL = (
    "<|im_start|>",
    "<end_of_utterance>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)),
)
GEMMA_SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_TEMPLATE = (
    "<bos>{% for message in messages %}<start_of_turn>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class WithoutVideos:
    """A processor insists on its video slot; images need none."""

    def check_argument_for_proper_class(self, name, argument):
        if name != "video_processor":
            super().check_argument_for_proper_class(name, argument)


class Qwen2_5(WithoutVideos, transformers.Qwen2_5_VLProcessor):  # noqa: N801
    pass


class Qwen3(WithoutVideos, transformers.Qwen3VLProcessor):
    pass


def qwen(processor):
    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=140 * 140)
    return images, lambda tokenizer: processor(images, tokenizer, object())


def idefics3():
    images = Idefics3ImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    return images, lambda tokenizer: transformers.Idefics3Processor(images, tokenizer, image_seq_len=4)


def gemma3(**options):
    images = Gemma3ImageProcessorPil(size={"height": 48, "width": 48}, **options)

    def processor(tokenizer):
        names = {
            "boi_token": GEMMA_SPECIAL[5],
            "eoi_token": GEMMA_SPECIAL[6],
            "image_token": GEMMA_SPECIAL[7],
        }
        for name, token in names.items():
            setattr(tokenizer, name, token)
            setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
        return transformers.Gemma3Processor(images, tokenizer, image_seq_length=9)

    return images, processor


SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 20,
    "pan_and_scan_max_num_crops": 3,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
TILED = {"scale_factor": 2, "vision_config": {"patch_size": 8, "image_size": 32}}
POOLED = {"mm_tokens_per_image": 9, "vision_config": {"patch_size": 4, "image_size": 48}}
FAMILIES = {
    "qwen2_5_vl": (qwen(Qwen2_5), QWEN_SPECIAL, QWEN_TEMPLATE, "<|im_end|>", {}),
    "qwen3_vl": (qwen(Qwen3), QWEN_SPECIAL, QWEN_TEMPLATE, "<|im_end|>", {}),
    "idefics3": (idefics3(), IDEFICS_SPECIAL, IDEFICS_TEMPLATE, "<end_of_utterance>", TILED),
    "smolvlm": (idefics3(), IDEFICS_SPECIAL, IDEFICS_TEMPLATE, "<end_of_utterance>", TILED),
    "gemma3": (gemma3(), GEMMA_SPECIAL, GEMMA_TEMPLATE, "<end_of_turn>", POOLED),
    "gemma3 scan": (gemma3(**SCAN), GEMMA_SPECIAL, GEMMA_TEMPLATE, "<end_of_turn>", POOLED),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory, write_tokenizer):
    """Their processor, and our tokenizer, preprocessor and image text from the same folder."""
    (images, make_processor), special, template, eos, config = FAMILIES[request.param]
    folder, name = tmp_path_factory.mktemp("checkpoint"), request.param.split()[0]
    write_tokenizer(folder, special=special, chat_template=template, eos=eos, model_type=name, **config)
    images.save_pretrained(folder)
    text = image_text(name)
    processor = make_processor(transformers.AutoTokenizer.from_pretrained(folder))
    return (
        processor,
        load_checkpoint_tokenizer(folder, image_token=text.token),
        read_preprocessor(folder),
        text,
    )


SIZES = [(64, 64), (40, 130), (150, 30)]


@pytest.mark.parametrize("prompt", [f"{IMAGE} what is it ?", f"{IMAGE}{IMAGE} in the\n\n {IMAGE}", "the red"])
def test_ids_are_those_of_their_processor(family, prompt):
    processor, tokenizer, preprocessor, text = family
    sizes = SIZES[: prompt.count(IMAGE)]
    ids = encode_chat(
        tokenizer,
        [user_message(prompt)],
        image_text=text,
        layouts=[preprocessor.layout(*size) for size in sizes],
        sample=0,
    )
    pictures = [Image.new("RGB", size[::-1]) for size in sizes]
    written = tokenizer.chat_text([user_message(prompt)])
    images = {"images": [pictures]} if pictures else {}
    # Gemma's processor overrules its file's pan and scan, unless the call asks for it.
    options = SCAN if getattr(processor.image_processor, "do_pan_and_scan", None) else {}
    expected = processor(text=[written], add_special_tokens=False, **images, **options)["input_ids"]
    assert ids == expected[0]


def test_image_tokens_are_as_many_as_visual_tokens(family):
    _, tokenizer, preprocessor, text = family
    layouts = [preprocessor.layout(*size) for size in SIZES]
    ids = encode_chat(tokenizer, [user_message(IMAGE * 3)], image_text=text, layouts=layouts, sample=0)
    patches = preprocessor([np.zeros((*size, 3), np.uint8) for size in SIZES])
    assert ids.count(tokenizer.image_id) == len(patches.image) // preprocessor.merge**2


def test_turns_end_and_pictures_are_banned(family):
    _, tokenizer, *_ = family
    names = {tokenizer.decode([token]) for token in np.flatnonzero(tokenizer.banned)} - {""}
    words = ("image", "vision", "video", "img", "row", "pad")
    special = [*QWEN_SPECIAL, *IDEFICS_SPECIAL, *GEMMA_SPECIAL]
    assert names <= {token for token in special if any(word in token for word in words)}
    assert not tokenizer.banned[tokenizer.eos_id]
    assert all(
        tokenizer.banned[tokenizer.encode(token).ids[0]]
        for token in special
        if any(word in token for word in words[:-1]) and len(tokenizer.encode(token).ids) == 1
    )


def test_no_special_token_survives_in_user_text(family):
    _, tokenizer, *_ = family
    for token in [*QWEN_SPECIAL, *IDEFICS_SPECIAL, *GEMMA_SPECIAL]:
        ids = tokenizer.encode(escape_placeholders(f"a {token} b")).ids
        assert tokenizer.decode(ids) == escape_placeholders(f"a {token} b")
        assert not set(ids) & {tokenizer.image_id, tokenizer.eos_id, tokenizer.pad_id}


@pytest.mark.parametrize("grid", [(0, 0), (1, 2), (3, 2)])
def test_smolvlms_own_writing(grid):
    rows, columns = grid
    expected = get_image_prompt_string(
        rows, columns, 3, "<fake_token_around_image>", "<image>", "<global-img>"
    )
    layout = Layout(rows, columns, (3,) * (rows * columns + 1))
    assert image_text("smolvlm").write(layout) == expected


def test_bagels_prompt_by_hand(write_tokenizer, tmp_path):
    write_tokenizer(tmp_path, special=QWEN_SPECIAL, eos="<|im_end|>")
    (tmp_path / "config.json").rename(tmp_path / "vit_config.json")
    (tmp_path / "llm_config.json").write_text('{"vocab_size": 400, "eos_token_id": 0}')
    tokenizer = load_checkpoint_tokenizer(
        tmp_path, image_token=BAGEL_TEXT.token, chat_template=BAGEL_TEMPLATE
    )
    ids = encode_chat(
        tokenizer,
        [user_message(f"{IMAGE} what is it ?")],
        image_text=BAGEL_TEXT,
        layouts=[bagel_understanding().layout(200, 448)],
        sample=0,
    )
    # 200 rows become 224, 448 columns 502 and then 504: 16 x 36 patches.
    picture = "<|vision_start|>" + "<|image_pad|>" * 576 + "<|vision_end|>"
    text = f"{picture}<|im_start|>what is it ?<|im_end|><|im_start|>"
    assert ids == transformers.AutoTokenizer.from_pretrained(tmp_path).encode(text, add_special_tokens=False)
    # The autoencoder's short side asks for 512 x 1152, the long side then takes it back to 455 x 1024, so 448 x 1024.
