"""Does a drawing show what its prompt asks for? Prompts of a world, and the numbers of `scenes.geneval` for groups."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.scenes import Scene, ScenePrompt, diversity, examine, geneval_scores, soft


def scene_drawing_prompts(world: str, *, split: str, stream: int, count: int) -> list[ScenePrompt]:
    """`count` prompts of a world, all tags that it has in equal numbers (up to one, if they do not divide `count`)."""
    source = DrawingSource(world, split=split, stream=stream, size=count)
    return [source.prompt(index) for index in range(count)]


def drawing_scores(
    prompts: Sequence[ScenePrompt], images: UInt8[np.ndarray, "N G h w 3"]
) -> dict[str, float]:
    """What the pixel verifier finds in groups of drawings; it reads each image once.

    Args:
        prompts: N of them, of any tags.
        images: G drawings of each prompt, of a size that `scenes.examine` takes.

    Returns:
        All in [0, 1]. `strict`: GenEval's accuracy, the mean over tags, each of them `strict/<tag>`.
        `strict_exact`: the same if all numbers of objects must be met exactly, which no crowded image does. `soft`:
        partial credit, and `validity`: share of the pixels that the reading explains, as in the rewards of these names;
        both are means over images. `diversity`: distinct layouts per image of a group, the mean over prompts.

    Raises:
        ValueError: there are no images, not a group of them for each prompt, or they have another size or type.
    """
    readings = [[examine(image) for image in group] for group in images]
    groups: list[list[Scene]] = [[reading.scene for reading in group] for group in readings]
    scenes = [scene for group in groups for scene in group]
    asked = [prompt for prompt in prompts for _ in range(images.shape[1])]
    strict = geneval_scores(asked, scenes)
    credit = [soft(scene.objects, prompt.clauses) for scene, prompt in zip(scenes, asked, strict=True)]
    return {
        "strict": strict.overall,
        **{f"strict/{tag}": share for tag, share in strict.by_tag.items()},
        "strict_exact": geneval_scores(asked, scenes, exact=True).overall,
        "soft": float(np.mean(credit)),
        "validity": float(np.mean([reading.validity for group in readings for reading in group])),
        "diversity": float(np.mean([diversity(group) for group in groups])),
    }
