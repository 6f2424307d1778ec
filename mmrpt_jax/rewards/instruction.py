"""Does the image show what the prompt demanded? Rules on the objects that the pixel verifier reads."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mmrpt_jax.rewards.kinds import TaggedReward
from mmrpt_jax.scenes.clauses import Clauses, soft, strict
from mmrpt_jax.scenes.verifier import Reading, examine

Images = UInt8[np.ndarray, "N h w 3"] | Sequence[UInt8[np.ndarray, "h w 3"]]


def instruction_strict(
    images: Images, clauses: Sequence[Clauses], *, exact: bool = True, **columns: Any
) -> Float[np.ndarray, " N"]:
    """Reward 1 where the image meets all clauses, else 0: `scenes.strict` of what `scenes.examine` reads.

    Args:
        images: uint8 [N, 64, 64, 3].
        clauses: those of each image's prompt, repeated for the G images of a group.
        exact: whether numbers of objects must be met exactly. GenEval's own "at least" (False) is for evaluation:
            an image crowded with everything would earn all that does not count.

    Raises:
        ValueError: the numbers of images and clauses differ, or an image has another shape or type.
    """
    del columns
    pairs = zip(_readings(images, clauses), clauses, strict=True)
    return np.array(
        [strict(reading.scene.objects, wanted, exact=exact) for reading, wanted in pairs], np.float32
    )


def instruction_soft(images: Images, clauses: Sequence[Clauses], **columns: Any) -> Float[np.ndarray, " N"]:
    """Reward `scenes.soft`, in [0, 1]: partial credit, one term for everything demanded.

    Arguments and errors are those of `instruction_strict`.
    """
    del columns
    pairs = zip(_readings(images, clauses), clauses, strict=True)
    return np.array([soft(reading.scene.objects, wanted) for reading, wanted in pairs], np.float32)


def image_validity(images: Images, **columns: Any) -> Float[np.ndarray, " N"]:
    """Reward the fraction of pixels that are background or belong to a recognised object, in [0, 1].

    An empty image is fully explained: this is a guard beside rewards that ask for objects, not a goal.
    """
    del columns
    return np.array([_read(image).validity for image in images], np.float32)


INSTRUCTION_REWARDS = (
    TaggedReward("instruction_strict", "rule", ("generation",), instruction_strict),
    TaggedReward("instruction_soft", "rule", ("generation",), instruction_soft),
    TaggedReward("validity", "rule", ("generation",), image_validity),
)


def _readings(images: Images, clauses: Sequence[Clauses]) -> list[Reading]:
    if len(images) != len(clauses):
        raise ValueError(
            f"{len(images)} images came with {len(clauses)} sets of clauses; repeat a prompt's for every image of it."
        )
    return [_read(image) for image in images]


def _read(image: np.ndarray) -> Reading:
    image = np.asarray(image)
    return _cached_reading(image.tobytes(), image.shape, image.dtype.str)


# Several rewards look at the same images of a step.
@functools.lru_cache(maxsize=1024)
def _cached_reading(data: bytes, shape: tuple[int, ...], dtype: str) -> Reading:
    return examine(np.frombuffer(data, dtype).reshape(shape))
