"""Pictures of what was found: words and patches coloured by dependency, the hidden span outlined."""

from pathlib import Path
from typing import Any

from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.sidecar import join, open_sidecar
from mmrpt_jax.dependency import word_spans
from mmrpt_jax.reporting.overlay import dependency_overlay
from mmrpt_jax.stages.run import Run


def draw_overlays(run: Run, scores: Path, masks: Path, directory: Path) -> None:
    """Writes the first `config.overlays` masked captions, numbered; a picture that exists is kept."""
    scored = join(run.train_source, open_sidecar(scores / "records", "train"), missing="skip")
    rows = join(scored, open_sidecar(masks / "records", "train"), missing="skip")
    directory.mkdir(parents=True, exist_ok=True)
    for index in range(min(run.config.overlays, len(rows))):
        path = directory / f"{index:03d}.png"
        if not path.exists():
            _draw(run, rows[index]).save(path)


def _draw(run: Run, row: dict[str, Any]):
    text = row["caption"][0]
    hidden = range(int(row["first_word"][0]), int(row["last_word"][0]) + 1)
    images = [decode_image(image) for image in row["images"]]
    return dependency_overlay(
        images,
        run.processor.heats(row["patch_received"], *(image.shape[:2] for image in images)),
        [text[start:end] for start, end in word_spans(text)],
        row[f"word_{run.config.mask.word_score}"],
        list(hidden),
    )
