import numpy as np
import pytest

from mmrpt_jax.data.checkpoint_processor import CheckpointProcessor
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.preprocessing.image_text import NumberedTiles
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor
from mmrpt_jax.data.preprocessing.sizes import PixelBudget
from mmrpt_jax.data.preprocessing.tiles import SplitTiles, WholeImage
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
    """(tiling) -> a processor of patches of 4 pixels, 2 x 2 of which are a token."""
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

    def processor(tiling):
        images = ImagePreprocessor(tiling, 4, 2, "bicubic", HALF, HALF)
        return CheckpointProcessor(tokenizer, images, NumberedTiles(), lengths=(48,), patch_counts=(8, 16))

    return processor


@pytest.fixture(scope="module")
def any_size(make):
    return make(WholeImage(PixelBudget(8, 64, 64 * 64)))


def test_prompts_of_one_batch_differ_in_their_images(any_size):
    texts = ["<image> and <image>", "no image", Wording().caption]
    views = [any_size.view(SMALL, WIDE), any_size.view(), any_size.view(SMALL)]
    patches, prompts = any_size.inputs(texts, views)
    # A token of 8 x 8 pixels is four patches; three tokens need the bucket of 16.
    assert prompts.image_slots.sum(axis=1).tolist() == [3, 0, 1]
    assert patches.image.shape == (3, 16)
    assert (patches.image >= 0).sum(axis=1).tolist() == [12, 0, 4]
    assert patches.image[0, :12].tolist() == [0] * 4 + [1] * 8
    np.testing.assert_array_equal(patches.pixels[2, 0].reshape(4, 4, 3), SMALL[:4, :4])
    assert not any_size.prompts(["no image"]).image_slots.any()


def test_what_fits_is_what_can_be_encoded(any_size):
    def encodes(text, *images):
        try:
            any_size.inputs([text], [any_size.view(*images)])
        except TooLongError:
            return False
        return True

    for words in (1, 10, 60):
        text = Wording().fill_prompt("circle " * words)
        assert any_size.fits(text, 8, 16) == encodes(text, WIDE) == (words < 60)
    # 5 tokens are 20 patches, more than the largest bucket.
    assert (
        any_size.fits(Wording().caption, 8, 40)
        == encodes(Wording().caption, np.tile(SMALL, (1, 5, 1)))
        is False
    )


def test_hidden_tokens_are_grey(any_size):
    view = any_size.view(SMALL, WIDE)
    pixels = any_size.hide(view, np.array([0, 2])).patches.pixels
    assert (pixels[:4] == 127).all() and (pixels[8:] == 127).all()
    np.testing.assert_array_equal(pixels[4:8], view.patches.pixels[4:8])


def test_scores_lie_over_the_whole_image(make, any_size):
    assert any_size.heat(np.arange(2.0), 8, 16).tolist() == [[0, 1]]
    # Two crops of 8 x 8 pixels, one token each, and behind them the whole image.
    tiles = make(SplitTiles(longest_edge=16, tile=8))
    assert tiles.view(WIDE).layouts[0].tokens == (1, 1, 1)
    assert tiles.heat(np.arange(3.0), 8, 16).tolist() == [[2]]
