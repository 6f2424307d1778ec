import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from mmrpt_jax.data.images import ImageError, decode_image, image_size, normalise, resize_image


def encode(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that promises width x height pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_come_back_exactly(file_format, options):
    decoded = decode_image(encode(Image.fromarray(PIXELS), file_format, **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, PIXELS)


def test_transparent_pixels_show_the_background():
    data = encode(Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [255, 0, 0, 51]]], np.uint8)))
    # Opacity 51 / 255 = 0.2: 0.8 * 255 = 204 of white shines through; on black, 0.2 * 255 = 51 is left.
    np.testing.assert_array_equal(decode_image(data), [[[255, 255, 255], [255, 0, 0], [255, 204, 204]]])
    on_black = decode_image(data, background=(0, 0, 0))
    np.testing.assert_array_equal(on_black, [[[0, 0, 0], [255, 0, 0], [51, 0, 0]]])


def test_transparent_palette_entry_shows_the_background():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    decoded = decode_image(encode(image, transparency=0), background=(1, 2, 3))
    np.testing.assert_array_equal(decoded, [[[1, 2, 3], [40, 50, 60]]])


def test_exif_orientation_turns_the_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: the left pixel comes to the top
    data = encode(Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)), exif=exif)
    np.testing.assert_array_equal(decode_image(data), [[[255, 0, 0]], [[0, 0, 255]]])


def test_sixteen_bit_grey_keeps_its_range():
    data = encode(Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)))
    np.testing.assert_array_equal(decode_image(data)[0, :, 0], [0, 0x80, 0xFF])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_other_modes_become_rgb(mode):
    decoded = decode_image(encode(Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)))
    np.testing.assert_array_equal(decoded, np.full((2, 3, 3), 255))


def test_cmyk_becomes_rgb():
    decoded = decode_image(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"))
    assert decoded.shape == (8, 8, 3)
    assert decoded.max() < 8


def test_size_limit_is_read_from_the_header():
    data = encode(Image.new("RGB", (10, 10)))
    assert decode_image(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10 x 10 pixels, at most 99") as caught:
        decode_image(data, max_pixels=99)
    assert caught.value.kind == "too large"


@pytest.mark.parametrize("side", [9_000, 60_000])  # below and above the limit at which Pillow itself refuses
def test_decompression_bomb(side):
    with pytest.raises(ImageError, match="too large") as caught:
        decode_image(png_header(side, side))
    assert caught.value.kind == "too large"


@pytest.mark.parametrize("data", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_not_an_image(data):
    with pytest.raises(ImageError, match="not an image") as caught:
        decode_image(data)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_truncated_file_is_damaged(file_format):
    data = encode(Image.fromarray(PIXELS.repeat(8, axis=0).repeat(8, axis=1)), file_format)
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data[: len(data) * 3 // 4])


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF"]),
    st.integers(0, 10**6),
    st.binary(min_size=1, max_size=8),
)
def test_corrupt_bytes_give_pixels_or_an_image_error(file_format, position, junk):
    data = bytearray(encode(Image.fromarray(PIXELS), file_format))
    position %= len(data)
    data[position : position + len(junk)] = junk
    try:
        decoded = decode_image(bytes(data), max_pixels=10**6)
    except ImageError:
        return
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


def test_image_size_is_height_then_width():
    assert image_size(encode(Image.new("RGB", (7, 3)))) == (3, 7)
    assert image_size(png_header(500, 400)) == (400, 500)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_size_is_that_of_the_upright_image(file_format, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(Image.new("RGB", (7, 3)), file_format, exif=exif)
    assert image_size(data) == decode_image(data).shape[:2]
    assert image_size(data) == ((7, 3) if orientation > 4 else (3, 7))


def test_damaged_tags_are_named():
    data = encode(Image.new("RGB", (7, 3)), "WEBP", exif=b"Exif\0\0nonsense")
    for read in (image_size, decode_image):
        with pytest.raises(ImageError, match="damaged"):
            read(data)


def test_resize_nearest_repeats_and_box_averages():
    enlarged = resize_image(PIXELS, 24, 34, "nearest")
    np.testing.assert_array_equal(enlarged, PIXELS.repeat(2, axis=0).repeat(2, axis=1))
    halved = resize_image(PIXELS[:, :16], 6, 8, "box")
    means = PIXELS[:, :16].reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - means).max() <= 1  # rounded to integers once per axis


def test_resize_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="unknown resize method 'cubic'"):
        resize_image(PIXELS, 4, 4, "cubic")


def test_normalise_maps_the_range_to_plus_minus_one():
    values = normalise(np.array([0, 51, 255], np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [-1, -0.6, 1], atol=1e-7)
