"""What all sides read: a tokenizer, prompts of given lengths, an image, and a model's config in public form."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from experiments.benchmarks.common.sizes import SIZES
from experiments.benchmarks.grpo.work import PIXELS
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
# Of the image: pixels of a patch, patches of a visual token (each way), visual tokens. The same in every size.
_PATCH, _MERGE = 14, 2
IMAGE_TOKENS = (PIXELS // _PATCH // _MERGE) ** 2


def write_material(folder: Path, prompts: Iterable[tuple[str, int]], size: str = "small") -> None:
    """Writes everything into a new folder, as a public checkpoint without weights is laid out.

    Args:
        folder: to be written.
        prompts: kinds and lengths of the prompts that will be asked for.
        size: of the model, a name of `SIZES`.

    Raises:
        ValueError: a length is shorter than the image and the chat template take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = SIZES[size]
    tokenizer = _tokenizer(numbers["text_config"]["vocab_size"])
    tokenizer.save_pretrained(folder)
    texts = {f"{kind}-{length}": _texts(tokenizer, kind, length) for kind, length in prompts}
    (folder / "prompts.json").write_text(json.dumps(texts))
    pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    _write_config(folder, numbers, tokenizer)
    sizes = {"patch_size": _PATCH, "merge_size": _MERGE, "min_pixels": 56 * 56, "max_pixels": PIXELS * PIXELS}
    types = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes | types))


def _write_config(
    folder: Path, numbers: Mapping[str, Any], tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    """The model's numbers with the tokenizer's ids, in the form that `transformers` gives them today."""
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {name: tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = numbers["text_config"] | {"eos_token_id": end, "pad_token_id": 0, "bos_token_id": None}
    config = transformers.Qwen2_5_VLConfig(
        **numbers | {"text_config": text}, **{f"{name}_token_id": number for name, number in ids.items()}
    )
    config.save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=end, pad_token_id=0).save_pretrained(folder)


def _tokenizer(vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of exactly the model's vocabulary: what the captions of scenes do not fill up are dummies.

    Dummies can be decoded, as any id of a random model must, and no text is encoded as one: no merge makes them.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        (describe(sample_scene(WORLDS["biased"], 0, i), 0, i).text for i in range(500)), trainer
    )
    trained = json.loads(backend.to_str())
    vocabulary = trained["model"]["vocab"]
    vocabulary |= {f"<dummy{number}>": number for number in range(len(vocabulary), vocab_size)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(trained)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
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
