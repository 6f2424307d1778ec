"""GenEval's files: prompts to read and a folder of images to write, so that its own scorer can judge our drawings.

    <out>/00000/metadata.jsonl      the prompt's line of the prompt file
    <out>/00000/samples/0000.png    drawings of it

Layout as in github.com/djghosh13/geneval (arXiv 2310.11513).
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmrpt_jax.reporting.command_line import UsageError


class PromptFileError(UsageError):
    """A prompt file or an image folder that cannot be used; the message says where, and what to do."""


def read_prompt_file(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads prompts, one a line; blank lines do not count.

    Args:
        path: a `.jsonl` file as GenEval's `evaluation_metadata.jsonl`, of objects with at least "prompt", or a `.txt`
            file of texts, which become {"prompt": text}: enough to draw from, not for GenEval to judge.

    Returns:
        The objects, in order.

    Raises:
        PromptFileError: no such file, another kind of file, a line without a prompt, or no line at all.
    """
    path = Path(path)
    readers = {".jsonl": _metadata, ".txt": lambda line, where: {"prompt": line.strip()}}
    if path.suffix not in readers:
        raise PromptFileError(f"{path} must end in .jsonl (GenEval's metadata) or .txt (a prompt per line)")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"{path} cannot be read as text: {error}") from None
    read = readers[path.suffix]
    found = [read(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise PromptFileError(f"{path} holds no prompt; write one per line")
    return found


def write_geneval(
    out: str | os.PathLike[str],
    metadata: Sequence[Mapping[str, Any]],
    images: UInt8[np.ndarray, "N G h w 3"],
) -> None:
    """Writes prompts with their images for GenEval's `evaluate_images.py`; images of the same prompts are replaced.

    Args:
        out: the folder, made if need be.
        metadata: N objects, as from `read_prompt_file` or `scenes.metadata`.
        images: sRGB.

    Raises:
        PromptFileError: the folder holds other prompts, or more images of them.
        ValueError: there are not as many prompts as groups of images.
    """
    if len(metadata) != len(images):
        raise ValueError(f"GenEval's folder: {len(metadata)} prompts but {len(images)} groups of images")
    check_geneval_folder(out, metadata, samples=images.shape[1])
    for number, (entry, group) in enumerate(zip(metadata, images, strict=True)):
        samples = _folder(out, number) / "samples"
        samples.mkdir(parents=True, exist_ok=True)
        samples.with_name("metadata.jsonl").write_text(_line(entry), encoding="utf-8")
        for place, image in enumerate(group):
            Image.fromarray(np.asarray(image)).save(samples / f"{place:04d}.png")


def check_geneval_folder(
    out: str | os.PathLike[str], metadata: Sequence[Mapping[str, Any]], *, samples: int
) -> None:
    """Checks that `write_geneval` may write there: whatever else a folder holds would be scored with it.

    Raises:
        PromptFileError: it is no folder, or holds other prompts, or more than `samples` images of one.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise PromptFileError(f"{out} is a file: name a folder")
    wanted = {_folder(out, number): _line(entry) for number, entry in enumerate(metadata)}
    # The scorer takes every folder whose name is a number, and every image whose name begins with one.
    for folder in (path for path in sorted(Path(out).glob("*")) if path.name.isdigit()):
        written = folder / "metadata.jsonl"
        if (
            folder not in wanted
            or not written.exists()
            or written.read_text(encoding="utf-8") != wanted[folder]
        ):
            raise PromptFileError(f"{folder} belongs to other prompts: name another folder, or empty {out}")
        ours = {f"{place:04d}.png" for place in range(samples)}
        if others := [path.name for path in (folder / "samples").glob("[0-9]*.png") if path.name not in ours]:
            raise PromptFileError(
                f"{folder} holds more than {samples} images, such as {max(others)}: name another folder, or empty {out}"
            )


def _metadata(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptFileError(f"{where} is not JSON: {error.msg}") from None
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptFileError(
            f'{where} needs a text under "prompt", as in {{"prompt": "a photo of a bench"}}'
        )
    return entry


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry))


def _folder(out: str | os.PathLike[str], number: int) -> Path:
    return Path(out) / f"{number:05d}"
