"""Which preprocessing a checkpoint asks for: its JSON files in, our numbers out."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import transformers

from mmrpt_jax.data.images import ResizeMethod
from mmrpt_jax.data.preprocessing.image_text import FramedRun, ImageText, NumberedTiles
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor
from mmrpt_jax.data.preprocessing.sizes import BoundedEdges, FixedSize, PixelBudget
from mmrpt_jax.data.preprocessing.tiles import PanAndScan, SplitTiles, Tiling, WholeImage
from mmrpt_jax.models.families.lineage import CLIP_MEAN, CLIP_STD
from mmrpt_jax.models.json_file import read_json_object

Numbers = Mapping[str, Any]
Config = transformers.PretrainedConfig

# Pillow's numbers of its filters, as the JSON files have them.
_RESAMPLE: Mapping[int, ResizeMethod] = MappingProxyType(
    {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
)
_HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class Family:
    """What the checkpoints of one family share.

    Attributes:
        tiling: from the model's config and the processor's numbers to (tiling, patch size, merge).
        text: how an image is written; None for a tower without a language model.
        resample: filter of the resize where the numbers name none.
        mean: per channel, where the numbers have none.
        std: per channel, where the numbers have none.
    """

    tiling: Callable[[Config, Numbers], tuple[Tiling, int, int]]
    text: ImageText | None
    resample: ResizeMethod
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF


def _pixel_budget(config: Config, numbers: Numbers) -> tuple[Tiling, int, int]:
    patch_size, merge = numbers.get("patch_size", 14), numbers.get("merge_size", 2)
    size = numbers.get("size") or {}
    # Older files name the bounds directly, newer ones abuse the names of edges for areas.
    fewest = numbers.get("min_pixels") or size.get("shortest_edge", 56 * 56)
    most = numbers.get("max_pixels") or size.get("longest_edge", 28 * 28 * 1280)
    return WholeImage(PixelBudget(patch_size * merge, fewest, most)), patch_size, merge


def _split_tiles(config: Config, numbers: Numbers) -> tuple[Tiling, int, int]:
    tile = numbers.get("max_image_size", {}).get("longest_edge", 364)
    longest_edge = numbers.get("size", {}).get("longest_edge", 4 * 364)
    tiling = SplitTiles(longest_edge, tile, split=numbers.get("do_image_splitting", True))
    return tiling, config.vision_config.patch_size, config.scale_factor


def _pooled_square(config: Config, numbers: Numbers) -> tuple[Tiling, int, int]:
    size, vision = _fixed_size(numbers), config.vision_config
    merge = vision.image_size // vision.patch_size // math.isqrt(config.mm_tokens_per_image)
    if not numbers.get("do_pan_and_scan"):
        return WholeImage(size), vision.patch_size, merge
    tiling = PanAndScan(
        size,
        min_crop=numbers.get("pan_and_scan_min_crop_size") or 256,
        max_crops=numbers.get("pan_and_scan_max_num_crops") or 4,
        min_ratio=numbers.get("pan_and_scan_min_ratio_to_activate") or 1.2,
    )
    return tiling, vision.patch_size, merge


def _fixed_square(config: Config, numbers: Numbers) -> tuple[Tiling, int, int]:
    return WholeImage(_fixed_size(numbers)), config.vision_config.patch_size, 1


def _fixed_size(numbers: Numbers) -> FixedSize:
    size = numbers.get("size", {})
    return FixedSize(size.get("height", 224), size.get("width", 224))


_QWEN_TEXT = FramedRun("<|image_pad|>", "<|image_pad|>")
_GEMMA_TEXT = FramedRun(
    "<start_of_image>",
    "<image_soft_token>",
    before="\n\n<start_of_image>",
    after="<end_of_image>\n\n",
    with_crops="Here is the original image {whole} and here are some crops to help you see better {crops}",
)
# BAGEL's own code puts patches where its inputs say; the token that holds their place is that of its Qwen2.5 tokenizer.
BAGEL_TEXT = FramedRun("<|image_pad|>", "<|image_pad|>", before="<|vision_start|>", after="<|vision_end|>")
# Its inputs are images and texts in turn, each text framed; there is no template in its folder.
BAGEL_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image_pad|>{% else %}<|im_start|>{{ part.text }}<|im_end|>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


class Conventions(NamedTuple):
    """What checkpoints of a family read that say nothing of it in their folders.

    Attributes:
        text: how an image is written.
        template: of chats.
        understanding: from the tower's patch size and the longest edge that it knows, in pixels, to what it reads.
    """

    text: ImageText
    template: str
    understanding: Callable[[int, int], ImagePreprocessor]


# By `model_type` of the checkpoint's config.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "qwen2_5_vl": Family(_pixel_budget, _QWEN_TEXT, "bicubic", CLIP_MEAN, CLIP_STD),
        "qwen3_vl": Family(_pixel_budget, _QWEN_TEXT, "bicubic", CLIP_MEAN, CLIP_STD),
        "idefics3": Family(_split_tiles, NumberedTiles(), "lanczos"),
        "smolvlm": Family(_split_tiles, NumberedTiles(), "lanczos"),
        "gemma3": Family(_pooled_square, _GEMMA_TEXT, "bilinear"),
        "siglip": Family(_fixed_square, None, "bicubic"),
    }
)


def read_preprocessor(directory: str | Path) -> ImagePreprocessor:
    """Reads the numbers of a checkpoint's image preprocessing from its directory.

    Raises:
        ValueError: the family is not known, or the files ask for something that is not done.
        FileNotFoundError: a file is missing.
    """
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    numbers, family = _processor_numbers(Path(directory)), _family(config.model_type)
    _refuse_unusual(numbers, directory)
    tiling, patch_size, merge = family.tiling(config, numbers)
    return ImagePreprocessor(
        tiling,
        patch_size,
        merge,
        _RESAMPLE[numbers["resample"]] if numbers.get("resample") is not None else family.resample,
        tuple(numbers.get("image_mean") or family.mean),
        tuple(numbers.get("image_std") or family.std),
    )


def image_text(model_type: str) -> ImageText:
    """How checkpoints of a family write an image.

    Raises:
        ValueError: the family is not known, or has no texts.
    """
    text = _family(model_type).text
    if text is None:
        raise ValueError(f"checkpoints of the family {model_type!r} read images only, no prompts")
    return text


def bagel_understanding(patch_size: int = 14, max_edge: int = 980) -> ImagePreprocessor:
    """What BAGEL's vision tower reads; the numbers stand in its code, not in its folder.

    Args:
        patch_size: of the tower.
        max_edge: how far the tower's learned positions go, in pixels.
    """
    tiling = WholeImage(BoundedEdges(patch_size, min(224, max_edge), max_edge, max_pixels=14 * 14 * 9 * 1024))
    return ImagePreprocessor(tiling, patch_size, 1, "bicubic", _HALF, _HALF)


# Of families that draw, named as in `models.families.drawing`.
DRAWING_CONVENTIONS: Mapping[str, Conventions] = MappingProxyType(
    {"bagel": Conventions(BAGEL_TEXT, BAGEL_TEMPLATE, bagel_understanding)}
)


def _family(model_type: str) -> Family:
    if model_type not in FAMILIES:
        raise ValueError(
            f"no image preprocessing for model_type {model_type!r}; choose one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def _processor_numbers(directory: Path) -> Numbers:
    """The image processor's numbers: inside `processor_config.json`, or in a file of their own."""
    nested, own = directory / "processor_config.json", directory / "preprocessor_config.json"
    if nested.exists():
        numbers = read_json_object(nested)
        if "image_processor" in numbers:
            return numbers["image_processor"]
    if not own.exists():
        raise FileNotFoundError(
            f"{directory} has neither {own.name} nor an image processor in {nested.name}; "
            "copy the checkpoint's processor files there"
        )
    return read_json_object(own)


def _refuse_unusual(numbers: Numbers, directory: str | Path) -> None:
    """Every family resizes, divides by 255 and normalises; a file that says otherwise is not silently overruled."""
    switched_off = [
        name for name in ("do_resize", "do_rescale", "do_normalize") if numbers.get(name) is False
    ]
    if switched_off or not math.isclose(numbers.get("rescale_factor") or 1 / 255, 1 / 255, rel_tol=1e-6):
        reason = ", ".join(switched_off) or f"rescale_factor {numbers['rescale_factor']}"
        raise ValueError(f"{directory} asks for {reason}; only resized, rescaled, normalised images are read")
