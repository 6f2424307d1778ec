"""NLVR v1's pictures: three boxes beside each other, whose order no sentence depends on (Suhr et al., 2017)."""

import numpy as np
from jaxtyping import UInt8

# In 400-pixel pictures boxes are 100 wide and begin at 0, 150 and 300.
_STARTS, _WIDTH = (0.0, 0.375, 0.75), 0.25


def permute_boxes(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Puts the three boxes into a random order: six pictures of which the same sentences are true.

    Raises:
        ValueError: the width is not a multiple of eight, so that boxes do not begin at whole pixels.
    """
    width = image.shape[1]
    if width % 8:
        raise ValueError(f"a picture of three boxes has a width that is a multiple of 8, got {width}")
    starts, size = [round(start * width) for start in _STARTS], round(_WIDTH * width)
    permuted = image.copy()
    for target, source in zip(starts, rng.permutation(starts), strict=True):
        permuted[:, target : target + size] = image[:, source : source + size]
    return permuted
