"""Writes what a finished run has trained as a checkpoint that `transformers` loads:

    python -m experiments.export --workdir=runs/mmrpt_qwen2_5_vl --arm=mmrpt --out=DIR

The run began with a published checkpoint (`--config.init.hf`). DIR gets that one's config, tokenizer, chat template and
numbers of processor and generation, and the arm's weights under its names, adapters merged. With `--adapter`, DIR gets
the adapters alone, as `peft` loads them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrpt_jax.reporting.command_line import Parser, run_command
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.exporting import export_adapter, export_model
from mmrpt_jax.stages.finished import check_arm, open_finished, read_config
from mmrpt_jax.stages.methods import method_of


def export(options: argparse.Namespace) -> str:
    """Writes the checkpoint; returns a sentence about what was written.

    Raises:
        ConfigError: the run or the arm is none to export, or the folder is not empty.
    """
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ConfigError(f"{options.out} is there already: name a new folder")
    run = open_finished(options.workdir, method_of(read_config(options.workdir)).model)
    check_arm(run, options.arm)
    try:
        (export_adapter if options.adapter else export_model)(run, options.arm, options.out)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return f"{options.out}: {'the adapters' if options.adapter else 'the weights'} of {options.arm}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.export", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run, of one seed")
    parser.add_argument("--arm", required=True, help="whose weights to write")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, not there yet")
    parser.add_argument("--adapter", action="store_true", help="write adapters alone, in PEFT's format")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: export(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
