"""Encoded image files -> uint8 pixels -> the float range that vision towers read."""

import io
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 50_000_000
# Only decoders of still images; others (EPS, PDF, ...) would hand untrusted bytes to external programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# Where a PNG's header may keep an orientation.
_PNG_TAGS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp"})
_METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ResizeMethod = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]


class ImageError(ValueError):
    """An image that cannot be used; the message is one sentence.

    Attributes:
        kind: "unreadable" (not an image, or damaged) or "too large" (more pixels than allowed).
    """

    def __init__(self, kind: Literal["unreadable", "too large"], message: str):
        super().__init__(message)
        self.kind = kind


def image_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns (height, width) of the upright image, from the header alone; decodes no pixels.

    Raises:
        ImageError: `data` is not an image, has damaged tags, or has more than `max_pixels` pixels.
    """
    with _open(data, max_pixels) as image:
        try:
            return (image.width, image.height) if _is_lying(image) else (image.height, image.width)
        except Exception as error:
            raise ImageError("unreadable", f"the image's tags are damaged: {_sentence(error)}") from error


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file (its first frame) to RGB, upright according to its EXIF orientation.

    Args:
        data: the encoded file.
        max_pixels: more pixels than this are refused from the header alone, before memory is allocated for
            them.
        background: the colour behind transparent pixels.

    Raises:
        ImageError: `data` is not an image, is damaged, or is too large.
    """
    with _open(data, max_pixels) as image:
        try:
            return np.array(_to_rgb(ImageOps.exif_transpose(image), background))
        # Pillow raises many types on damaged files: OSError, SyntaxError, struct.error, zlib.error, ...
        except Exception as error:
            raise ImageError("unreadable", f"the image is damaged: {_sentence(error)}") from error


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int, method: ResizeMethod = "bicubic"
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes with Pillow's filters, which widen when shrinking (no aliasing); the aspect ratio is not kept.

    Raises:
        ValueError: `method` is unknown.
    """
    if method not in _METHODS:
        raise ValueError(f"unknown resize method {method!r}; choose one of {', '.join(_METHODS)}")
    return np.array(Image.fromarray(image).resize((width, height), _METHODS[method]))


def normalise(image: UInt8[np.ndarray, "*E"]) -> Float[np.ndarray, "*E"]:
    """Maps 0..255 to float32 in [-1, 1]: ``image / 127.5 - 1``."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too large", f"the image is too large: {_sentence(error)}") from error
    except Exception as error:
        raise ImageError("unreadable", "the data is not an image of a known format") from error
    if image.width * image.height > max_pixels:
        message = (
            f"the image is too large: {image.width} x {image.height} pixels, at most {max_pixels} allowed"
        )
        raise ImageError("too large", message)
    return image


def _is_lying(image: Image.Image) -> bool:
    """Whether EXIF orientation will exchange height and width."""
    # Pillow turns TIFF sizes itself, and would decode all of a PNG in search of a tag that nearly none has.
    if image.format == "TIFF" or (image.format == "PNG" and _PNG_TAGS.isdisjoint(image.info)):
        return False
    return image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel; Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
