"""Our image preprocessing against the PIL-backed image processors of `transformers`; needs no torch.

Resize rule, patch order and pixels are compared on their own, so that a failure names its place.
"""

import io
import json
import math

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from transformers.image_transforms import convert_to_rgb
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.preprocessing.families import read_preprocessor

SPLITTING = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
SCANNING = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 20, "pan_and_scan_max_num_crops": 4}
# name -> (processor, its numbers, model config). Tiny, or as published where only sizes are compared.
TINY = {
    "qwen2_5_vl": (Qwen2VLImageProcessorPil, {"min_pixels": 56 * 56, "max_pixels": 112 * 112}, {}),
    "qwen3_vl": (
        Qwen2VLImageProcessorPil,
        {
            "size": {"shortest_edge": 64 * 64, "longest_edge": 128 * 128},
            "patch_size": 16,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        {},
    ),
    "idefics3": (
        Idefics3ImageProcessorPil,
        SPLITTING,
        {"scale_factor": 2, "vision_config": {"patch_size": 8, "image_size": 32}},
    ),
    "idefics3 whole": (
        Idefics3ImageProcessorPil,
        SPLITTING | {"do_image_splitting": False},
        {"scale_factor": 2, "vision_config": {"patch_size": 8, "image_size": 32}},
    ),
    "smolvlm": (
        SmolVLMImageProcessorPil,
        SPLITTING,
        {"scale_factor": 4, "vision_config": {"patch_size": 4, "image_size": 32}},
    ),
    # Tiles of no whole number of patches.
    "smolvlm uneven": (
        SmolVLMImageProcessorPil,
        SPLITTING,
        {"scale_factor": 3, "vision_config": {"patch_size": 5, "image_size": 32}},
    ),
    "gemma3": (
        Gemma3ImageProcessorPil,
        {"size": {"height": 48, "width": 48}},
        {"mm_tokens_per_image": 9, "vision_config": {"patch_size": 4, "image_size": 48}},
    ),
    "gemma3 scan": (
        Gemma3ImageProcessorPil,
        {"size": {"height": 48, "width": 48}, "pan_and_scan_min_ratio_to_activate": 1.2, **SCANNING},
        {"mm_tokens_per_image": 9, "vision_config": {"patch_size": 4, "image_size": 48}},
    ),
    "siglip": (
        SiglipImageProcessorPil,
        {"size": {"height": 32, "width": 32}, "resample": 2},
        {"vision_config": {"patch_size": 8, "image_size": 32}},
    ),
}
PUBLISHED = {
    "qwen2_5_vl": (Qwen2VLImageProcessorPil, {"min_pixels": 3136, "max_pixels": 12845056}, {}),
    "qwen3_vl": (
        Qwen2VLImageProcessorPil,
        {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16},
        {},
    ),
    "smolvlm": (
        SmolVLMImageProcessorPil,
        {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        {"scale_factor": 4, "vision_config": {"patch_size": 16, "image_size": 512}},
    ),
    "smolvlm uneven": (
        SmolVLMImageProcessorPil,
        {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
        {"scale_factor": 3, "vision_config": {"patch_size": 14, "image_size": 384}},
    ),
    "idefics3": (
        Idefics3ImageProcessorPil,
        {},
        {"scale_factor": 2, "vision_config": {"patch_size": 14, "image_size": 364}},
    ),
}


def open_both(folder, name, processor, numbers, config):
    """A checkpoint's folder without weights: their processor, and ours read from its files."""
    theirs = processor(**numbers)
    theirs.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": name.split()[0], **config}))
    return theirs, read_preprocessor(folder)


@pytest.fixture(scope="module", params=TINY)
def tiny(request, tmp_path_factory):
    return open_both(tmp_path_factory.mktemp("tiny"), request.param, *TINY[request.param])


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, tmp_path_factory):
    return open_both(tmp_path_factory.mktemp("published"), request.param, *PUBLISHED[request.param])


def picture(height, width, seed=0):
    """Smooth shapes under noise: what resize filters treat differently."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(height)[:, None, None] / 7 + np.arange(width)[None, :, None] / 5 + np.arange(3))
    return (128 + 90 * wave + rng.integers(-37, 38, (height, width, 3))).astype(np.uint8)


def their_patches(theirs, ours, image):
    """Their pixels as `[N, patch, patch, 3]` in row-major order by tile, and each tile's (rows, columns)."""
    out = theirs(Image.fromarray(image), return_tensors="np")
    p, m = ours.patch_size, ours.merge
    if "image_grid_thw" in out:
        (_, rows, columns), flat = out["image_grid_thw"][0], out["pixel_values"]
        frames = flat.reshape(-1, 3, theirs.temporal_patch_size, p, p)
        np.testing.assert_array_equal(frames[:, :, 0], frames[:, :, 1])
        return frames[:, :, 0].transpose(0, 2, 3, 1), [(rows, columns)]
    tiles = np.concatenate(out["pixel_values"]) if out["pixel_values"].ndim == 5 else out["pixel_values"]
    patches, grids = [], []
    for tile in tiles:
        rows, columns = tile.shape[1] // p, tile.shape[2] // p
        grids.append((rows, columns))
        # Block by block, spelled out.
        for top in range(0, rows, m):
            for left in range(0, columns, m):
                for row in range(top, top + m):
                    for column in range(left, left + m):
                        patch = tile[:, row * p : (row + 1) * p, column * p : (column + 1) * p]
                        patches.append(patch.transpose(1, 2, 0))
    return np.stack(patches), grids


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_sizes(published, height, width):
    theirs, ours = published
    if max(height, width) > 200 * min(height, width) and hasattr(theirs, "merge_size"):
        with pytest.raises(ValueError, match="is too narrow"):
            ours.layout(height, width)
        return
    rows, columns, tokens = ours.layout(height, width)
    if hasattr(theirs, "merge_size"):
        assert tokens == (theirs.get_number_of_image_patches(height, width) // theirs.merge_size**2,)
        return
    tiles, *grid = theirs.get_number_of_image_patches(height, width)
    assert (len(tokens) if rows else 0, [rows, columns]) == (tiles, grid)
    assert set(tokens) == {(theirs.max_image_size["longest_edge"] // ours.patch_size // ours.merge) ** 2}


SIZES = [(40, 40), (33, 90), (200, 31), (7, 300), (1, 1), (257, 129)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_rule(tiny, size):
    """Sizes of the tiles, by what their processor really does."""
    theirs, ours = tiny
    _, grids = their_patches(theirs, ours, picture(*size))
    side = ours.patch_size
    planned = ours.tiling.plan(*size).sizes
    assert [(tall // side, wide // side) for tall, wide in planned] == grids
    assert sum(ours.layout(*size).tokens) == sum(rows * columns for rows, columns in grids) // ours.merge**2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patch_order(tiny, size):
    """Rows, columns and tiles of the patches, without looking at colours."""
    theirs, ours = tiny
    _, grids = their_patches(theirs, ours, picture(*size))
    patches, m, place = ours([picture(*size)]), ours.merge, 0
    for tile, (rows, columns) in enumerate(grids):
        for block in range(rows * columns // m**2):
            top, left = divmod(block, columns // m)
            for inside in range(m**2):
                expected = (top * m + inside // m, left * m + inside % m, tile)
                assert (patches.rows[place], patches.columns[place], patches.image[place]) == expected
                place += 1
    assert place == len(patches.image)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels(tiny, size):
    """Normalised as the device will do it."""
    theirs, ours = tiny
    expected, _ = their_patches(theirs, ours, picture(*size))
    pixels = ours([picture(*size)]).pixels.reshape(expected.shape).astype(np.float32)
    mean, std = np.float32(ours.mean), np.float32(ours.std)
    np.testing.assert_allclose((pixels / np.float32(255) - mean) / std, expected, rtol=0, atol=1e-6)


def test_several_images_follow_each_other(tiny):
    _, ours = tiny
    images = [picture(*size) for size in [(40, 64), (90, 30)]]
    first, second, both = ours(images[:1]), ours(images[1:]), ours(images)
    np.testing.assert_array_equal(both.pixels, np.concatenate([first.pixels, second.pixels]))
    np.testing.assert_array_equal(
        both.image, np.concatenate([first.image, second.image + first.image[-1] + 1])
    )
    assert (
        len(both.image) == sum(sum(ours.layout(*image.shape[:2]).tokens) for image in images) * ours.merge**2
    )
    assert len(ours([]).image) == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_colour_modes(mode):
    source = Image.fromarray(picture(24, 18))
    if mode in ("LA", "RGBA"):
        source.putalpha(Image.linear_gradient("L").resize(source.size))
    file_format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    buffer = io.BytesIO()
    source.convert(mode).save(buffer, file_format)
    expected = convert_to_rgb(Image.open(buffer), return_numpy=True)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), expected)


def test_a_transparent_colour_of_a_palette():
    source = Image.fromarray(picture(24, 18)).quantize(8)
    buffer = io.BytesIO()
    source.save(buffer, "PNG", transparency=3)
    expected = convert_to_rgb(Image.open(buffer), return_numpy=True)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation(orientation, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture(24, 18)).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(transformers.image_utils.load_image(str(tmp_path / "a.png")))
    np.testing.assert_array_equal(decode_image((tmp_path / "a.png").read_bytes()), expected)


def test_newer_folders_keep_the_numbers_in_the_processors_file(tmp_path):
    theirs, numbers = Qwen2VLImageProcessorPil(min_pixels=28 * 28 * 2, max_pixels=28 * 28 * 8), {}
    numbers["image_processor"] = theirs.to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps(numbers))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    assert math.prod(read_preprocessor(tmp_path).tiling.plan(900, 900).sizes[0]) == 28 * 28 * 4


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"do_rescale": False, "do_normalize": False}, "asks for do_rescale, do_normalize; only resized"),
        ({"rescale_factor": 0.5}, "asks for rescale_factor 0.5; only resized"),
    ],
)
def test_numbers_that_are_not_followed_are_refused(tmp_path, numbers, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    with pytest.raises(
        FileNotFoundError, match=r"has neither preprocessor_config.json nor an image processor in"
    ):
        read_preprocessor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match=message):
        read_preprocessor(tmp_path)
