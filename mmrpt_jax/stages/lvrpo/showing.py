"""The picture that a run ends with: what was asked for, what each arm drew, what the pixel verifier says of it."""

from pathlib import Path

from mmrpt_jax.reporting.gallery import GalleryRow, gallery
from mmrpt_jax.scenes import TAGS, grade_image
from mmrpt_jax.stages.lvrpo.evaluate import NOISE, test_prompts
from mmrpt_jax.stages.lvrpo.examiner import Examiner
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import by_writer


def show_arms(run: Run, examiner: Examiner, path: Path) -> None:
    """Writes `path`: the first prompt of each tag and the first image that every arm draws of it, not the best."""
    prompts = test_prompts(run, run.config.evaluate.drawn_worlds[0])[: len(TAGS)]
    texts = [prompt.text for prompt in prompts]
    drawn = []
    for name in run.config.arms:
        params = run.arm(name)
        drawn.append(examiner.drawer.draw(params, texts, seed=NOISE)[:, 0])
    rows = [
        GalleryRow(prompt.text, images, [grade_image(prompt, image) for image in images])
        for prompt, images in zip(prompts, zip(*drawn, strict=True), strict=True)
    ]
    by_writer(gallery(rows, run.config.arms, title=run.config.title).save, path)
