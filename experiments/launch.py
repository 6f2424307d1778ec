"""Runs an experiment: `python -m experiments.launch --config=experiments/configs/mmrpt_scenes.py --workdir=runs/demo`.

Any field of the config can be overridden: `--config.rl.group_size=16`. Starting the same command again goes on where it
stopped. `--dry_run` prints what would run, and exits.
"""

import difflib
import sys

from absl import app, flags
from ml_collections import config_flags

from mmrpt_jax.stages.pipeline import dry_run, run_experiment

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a Python file with get_config().", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; a run found there is continued.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved config, sizes and estimated memory, and exit.")


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; fields are set as --config.field=value")
    if _CONFIG.value is None:
        raise app.UsageError("--config=experiments/configs/<name>.py is needed")
    if _DRY_RUN.value:
        dry_run(_CONFIG.value)
        return
    if not _WORKDIR.value:
        raise app.UsageError("--workdir=<folder> is needed")
    run_experiment(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
