import dataclasses

import pytest

from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor
from mmrpt_jax.data.preprocessing.sizes import FixedSize, PixelBudget
from mmrpt_jax.data.preprocessing.tiles import SplitTiles, WholeImage
from mmrpt_jax.models.config import ConnectorConfig, TransformerConfig, VisionConfig

TOWER = VisionConfig(
    16, 16, 4, TransformerConfig(8, 1, 1, 1, 8, 8, rope=None), connector=ConnectorConfig(merge=2)
)
IMAGES = ImagePreprocessor(
    WholeImage(FixedSize(16, 16)), 4, 2, "bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
)


def test_a_tower_normalises_as_its_processor_says():
    found = IMAGES.complete(TOWER)
    assert (found.pixel_mean, found.pixel_std) == (IMAGES.mean, IMAGES.std)
    assert dataclasses.replace(found, pixel_mean=TOWER.pixel_mean, pixel_std=TOWER.pixel_std) == TOWER


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patch_size": 8}, "wants patches of 4 pixels, 2 a side in a visual token, .* gives 8 and 2"),
        ({"merge": 1}, "wants patches of 4 pixels, 2 a side in a visual token, .* gives 4 and 1"),
        ({"tiling": WholeImage(FixedSize(32, 16))}, "learned positions of 4 x 4 patches, .* gives 8 x 4"),
    ],
)
def test_what_does_not_belong_together_is_told(changes, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(IMAGES, **changes).complete(TOWER)


@pytest.mark.parametrize("tiling", [WholeImage(PixelBudget(8, 64, 4096)), SplitTiles(64, 32)])
def test_towers_of_any_size_take_other_grids(tiling):
    tower = dataclasses.replace(TOWER, positions="nearest")
    dataclasses.replace(IMAGES, tiling=tiling).complete(tower)
