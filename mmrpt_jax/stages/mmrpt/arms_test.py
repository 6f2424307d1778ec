from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.mask import METHODS


def test_the_method_and_its_controls():
    # Equal compute is compared: continued captioning, supervision on the same masks, random masks, blank images.
    table = {name: (arm.method, arm.masks, arm.blank_images) for name, arm in ARMS.items()}
    assert table == {
        "base": ("none", "dependency", False),
        "caption": ("caption", "dependency", False),
        "sft": ("supervised", "dependency", False),
        "random_masks": ("policy", "random", False),
        "blank_images": ("policy", "dependency", True),
        "mmrpt": ("policy", "dependency", False),
    }
    assert {arm.masks for arm in ARMS.values()} <= set(METHODS)
