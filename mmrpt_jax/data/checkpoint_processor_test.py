import numpy as np
import pytest

from mmrpt_jax.data.checkpoint_processor import CheckpointProcessor
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.preprocessing.image_text import FramedRun, NumberedTiles
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor
from mmrpt_jax.data.preprocessing.sizes import FixedSize, PixelBudget
from mmrpt_jax.data.preprocessing.tiles import PanAndScan, SplitTiles, WholeImage
from mmrpt_jax.data.prompts import TooLongError, Wording

TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}"
)
HALF = (0.5, 0.5, 0.5)
SMALL, WIDE = (np.random.default_rng(i).integers(0, 256, (8, 8 * i, 3), np.uint8) for i in (1, 2))


@pytest.fixture(scope="module")
def make(write_tokenizer, tmp_path_factory):
    """(tiling, image text) -> a processor of patches of 4 pixels, 2 x 2 of which are a token."""
    folder = tmp_path_factory.mktemp("checkpoint")
    markers = (
        "<|end|>",
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        "<row_1_col_1>",
        "<row_1_col_2>",
    )
    write_tokenizer(folder, special=markers, chat_template=TEMPLATE, eos="<|end|>")
    tokenizer = load_checkpoint_tokenizer(folder, image_token="<image>")

    def processor(tiling, image_text):
        images = ImagePreprocessor(tiling, 4, 2, "bicubic", HALF, HALF)
        return CheckpointProcessor(tokenizer, images, image_text, lengths=(48,), patch_counts=(8, 16))

    return processor


@pytest.fixture(scope="module")
def any_size(make):
    return make(WholeImage(PixelBudget(8, 64, 64 * 64)), FramedRun("<image>", "<image>"))


def test_prompts_of_one_batch_differ_in_their_images(any_size):
    texts = ["<image> and <image>", "no image", Wording().caption]
    views = [any_size.view(SMALL, WIDE), any_size.view(), any_size.view(SMALL)]
    assert [any_size.count_images(view) for view in views] == [2, 0, 1]
    patches, prompts = any_size.inputs(texts, views)
    # A token of 8 x 8 pixels is four patches; three tokens need the bucket of 16.
    assert prompts.image_slots.sum(axis=1).tolist() == [3, 0, 1]
    assert patches.image.shape == (3, 16)
    assert (patches.image >= 0).sum(axis=1).tolist() == [12, 0, 4]
    assert patches.image[0, :12].tolist() == [0] * 4 + [1] * 8
    np.testing.assert_array_equal(patches.pixels[2, 0].reshape(4, 4, 3), SMALL[:4, :4])
    assert not any_size.prompts(["no image"]).image_slots.any()


@pytest.fixture(scope="module")
def split(make):
    """As SmolVLM reads."""
    return make(SplitTiles(longest_edge=16, tile=8), NumberedTiles())


@pytest.fixture(scope="module")
def scanned(make):
    """As Gemma 3 reads with pan and scan."""
    tiling = PanAndScan(FixedSize(8, 8), min_crop=4, max_crops=2, min_ratio=1.5)
    return make(tiling, FramedRun("<image>", "<image>", with_crops="{whole} and {crops}"))


@pytest.mark.parametrize(("name", "whole", "crop"), [("split", 2, 0), ("scanned", 0, 1)])
def test_tiles_are_images_of_their_own(name, whole, crop, request):
    processor = request.getfixturevalue(name)
    patches, prompts = processor.inputs([Wording().caption], [processor.view(WIDE)])
    # Two crops of 8 x 8 pixels and the whole, one token each.
    assert prompts.image_slots.sum() == 3
    assert patches.image[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [-1] * 4
    np.testing.assert_array_equal(patches.pixels[0, 4 * crop].reshape(4, 4, 3), WIDE[:4, :4])
    # Another image behind it.
    small = len(processor.view(SMALL).patches.image) // 4
    first, _ = processor.heats(np.arange(3.0 + small), (8, 16), (8, 8))
    assert first.tolist() == [[whole]]


@pytest.mark.parametrize(
    ("name", "large"),
    # 5 tokens are 20 patches, more than the largest bucket; so are 4 crops and the whole.
    [("any_size", (8, 40)), ("split", (16, 16)), ("scanned", None)],
)
def test_what_fits_is_what_can_be_encoded(name, large, request):
    processor = request.getfixturevalue(name)

    def encodes(text, *images):
        try:
            processor.inputs([text], [processor.view(*images)])
        except TooLongError:
            return False
        return True

    for words in (1, 10, 60):
        text = Wording().fill_prompt("circle " * words)
        assert processor.fits(text, (8, 16)) == encodes(text, WIDE) == (words < 60)
    for images in ((), (SMALL,), (SMALL, WIDE), (WIDE, WIDE), (WIDE, WIDE, WIDE)):
        text = Wording().caption_prompt(len(images))
        assert processor.fits(text, *(image.shape[:2] for image in images)) == encodes(text, *images)
    if large:
        picture = np.zeros((*large, 3), np.uint8)
        assert processor.fits(Wording().caption, large) == encodes(Wording().caption, picture) is False


def test_hidden_tokens_are_grey(any_size):
    view = any_size.view(SMALL, WIDE)
    pixels = any_size.hide(view, np.array([0, 2])).patches.pixels
    assert (pixels[:4] == 127).all() and (pixels[8:] == 127).all()
    np.testing.assert_array_equal(pixels[4:8], view.patches.pixels[4:8])


def test_scores_lie_over_the_image(any_size):
    first, second = any_size.heats(np.arange(3.0), (8, 8), (8, 16))
    assert first.tolist() == [[0]] and second.tolist() == [[1, 2]]
