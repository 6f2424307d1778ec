"""Runs an experiment: `python -m experiments.launch --config=experiments/configs/mmrpt_scenes.py --workdir=runs/demo`.

Any field of the config can be overridden: `--config.rl.group_size=16`. Starting the same command again goes on where it
stopped. `--dry_run` prints what would run, and exits.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.methods import method_of
from mmrpt_jax.stages.study import run_study

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a Python file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; a run found there is continued.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, sizes and estimated memory, and exit."
)


def main(argv: list[str]) -> None:
    """Entry point."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise ConfigError(f"unexpected argument {argv[1]!r}: fields are set as --config.field=value")
    if _CONFIG.value is None:
        raise ConfigError("name an experiment: --config=experiments/configs/<name>.py")
    method = method_of(_CONFIG.value)
    method.check(_CONFIG.value)
    if _DRY_RUN.value:
        print(method.describe(_CONFIG.value))
    elif not _WORKDIR.value:
        raise ConfigError("name a folder for the results: --workdir=<folder>")
    elif _CONFIG.value.seeds:
        run_study(_CONFIG.value, _WORKDIR.value)
    else:
        method.run(_CONFIG.value, _WORKDIR.value)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; the config file is read here, so that what is wrong with it is told in one sentence.

    Raises:
        ConfigError: no such file, no such field (with the nearest one), or a value of the wrong type.
    """
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.stages  # an unreadable file is only told of at the first use
    except (flags.Error, AttributeError, OSError) as error:
        lines = [line.strip(" '\"") for line in str(error).replace("\\n", "\n").splitlines()]
        raise ConfigError(lines[-1]) from error
    return rest


def run() -> None:
    """Runs `main`; what a user got wrong is one sentence and exit code 2, not a traceback."""
    try:
        app.run(main, flags_parser=parse_flags)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
