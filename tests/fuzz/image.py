"""Images."""

from mmrpt_jax.data.images import ImageError, decode_image
from tests.fuzz.harness import MAX_PIXELS, png

SEEDS = [png(file_format=name) for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]


def fuzz_one(data: bytes) -> None:
    """Gives pixels within the limit, or an ImageError."""
    try:
        pixels = decode_image(data, max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert pixels.ndim == 3 and pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
