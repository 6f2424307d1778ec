"""Draws a file of prompts with a finished run, in the layout that GenEval's scorer reads:

    python -m experiments.draw --workdir=runs/lvrpo_scenes --arm=lvrpo --prompts=FILE --out=DIR

FILE is GenEval's `evaluation_metadata.jsonl`, or a `.txt` file with one prompt per line. DIR/00000/metadata.jsonl is
the first prompt, DIR/00000/samples/0000.png its first image.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmrpt_jax.evaluation.geneval_files import check_geneval_folder, read_prompt_file, write_geneval
from mmrpt_jax.reporting.command_line import Parser, run_command
from mmrpt_jax.stages.finished import trained_arm
from mmrpt_jax.stages.lvrpo.examiner import make_drawer
from mmrpt_jax.stages.lvrpo.finished import open_drawing_run
from mmrpt_jax.stages.lvrpo.user_prompts import safe_prompts, unknown_words_warning
from mmrpt_jax.stages.lvrpo.validate import check_guidance


def draw(options: argparse.Namespace) -> str:
    """Draws and writes; returns a sentence about what was written.

    Raises:
        ConfigError: the run, the arm or a prompt is none to draw with.
        PromptFileError: the prompts cannot be read, or the folder holds other images.
    """
    metadata = read_prompt_file(options.prompts)
    check_geneval_folder(options.out, metadata, samples=options.samples)
    run = open_drawing_run(options.workdir)
    texts = [entry["prompt"] for entry in metadata]
    safe = safe_prompts(run.tokenizer, run.wording, texts, run.config.data.drawing_lengths)
    params = trained_arm(run, options.arm)
    # Words in pieces are nothing new to a public checkpoint.
    if not run.config.init.hf and (warning := unknown_words_warning(run.tokenizer, safe)):
        print(f"warning: {warning}", file=sys.stderr)
    evaluate = run.config.evaluate
    guidance = evaluate.guidance if options.guidance is None else options.guidance
    check_guidance(run.config, guidance)
    steps = options.steps or evaluate.steps
    drawer = make_drawer(run, samples=options.samples, steps=steps, guidance=guidance)
    images = drawer.draw(params, safe, seed=options.seed)
    write_geneval(options.out, metadata, images)
    return f"{options.out}: {len(texts)} prompts, {options.samples} images each, drawn by {options.arm}"


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.draw", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run of LVRPO, of one seed")
    parser.add_argument("--arm", default="lvrpo", help="whose weights draw (%(default)s)")
    parser.add_argument("--prompts", type=Path, required=True, help="a .jsonl or .txt file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the images")
    parser.add_argument("--samples", type=_at_least(1), default=4, help="images per prompt (%(default)s)")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of the noise (%(default)s)")
    parser.add_argument("--steps", type=_at_least(1), help="from noise to image (default: as in evaluation)")
    parser.add_argument("--guidance", type=float, help="scale, off at 1 (default: as in evaluation)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: draw(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
