"""What all sides read: a tokenizer of 8192 tokens, prompts of given lengths, an image, and a config in public form."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from experiments.benchmarks.grpo.work import DECODER, PIXELS, ROTARY, TOWER
from mmrpt_jax.scenes import WORLDS, describe, sample_scene

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = 8
# Visual tokens of the image.
IMAGE_TOKENS = (PIXELS // TOWER["patch_size"] // TOWER["spatial_merge_size"]) ** 2


def write_material(folder: Path, prompts: Iterable[tuple[str, int]]) -> None:
    """Writes everything into a new folder, as a public checkpoint without weights is laid out.

    Args:
        folder: to be written.
        prompts: kinds and lengths of the prompts that will be asked for.

    Raises:
        ValueError: a length is shorter than the image and the chat template take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    texts = {f"{kind}-{length}": _texts(tokenizer, kind, length) for kind, length in prompts}
    (folder / "prompts.json").write_text(json.dumps(texts))
    pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {name: tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = transformers.Qwen2_5_VLConfig(
        text_config=DECODER
        | {"rope_parameters": ROTARY, "eos_token_id": end, "pad_token_id": 0, "bos_token_id": None},
        vision_config=TOWER,
        tie_word_embeddings=True,
        **{f"{name}_token_id": number for name, number in ids.items()},
    )
    config.save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=end, pad_token_id=0).save_pretrained(folder)
    numbers = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": PIXELS * PIXELS}
    types = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(numbers | types))


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of exactly the model's vocabulary: what the captions of scenes do not fill up are dummies."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=DECODER["vocab_size"],
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        (describe(sample_scene(WORLDS["biased"], 0, i), 0, i).text for i in range(500)), trainer
    )
    missing = DECODER["vocab_size"] - backend.get_vocab_size()
    backend.add_tokens([f"<dummy{number}>" for number in range(missing)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def _texts(tokenizer: transformers.PreTrainedTokenizerFast, kind: str, length: int) -> list[str]:
    """Texts that make prompts of `length` tokens, with the image and the chat template where there are some."""
    around = 0
    if kind == "vlm":
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}
        chat = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        # Without the letter and the one placeholder.
        around = len(tokenizer(chat).input_ids) - 2 + IMAGE_TOKENS
    if length <= around:
        raise ValueError(
            f"a prompt of {length} tokens is too short: {around} are the image's and the template's"
        )
    return [_text(tokenizer, length - around, seed) for seed in range(PROMPTS)]


def _text(tokenizer: transformers.PreTrainedTokenizerFast, tokens: int, seed: int) -> str:
    """Random words, each of them one token; the first is a letter, since nothing stands before it."""
    vocabulary = sorted(word[1:] for word in tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isalpha())
    chosen = random.Random(seed).choices(vocabulary, k=tokens - 1)
    return " ".join(["a", *chosen])
