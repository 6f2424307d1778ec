"""Runs an experiment: `python -m experiments.launch --config=experiments/configs/mmrpt_scenes.py --workdir=runs/demo`.

Any field of the config can be overridden: `--config.rl.group_size=16`. Starting the same command again goes on where it
stopped. `--dry_run` prints what would run, and exits.
"""

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.methods import method_of
from mmrpt_jax.stages.study import run_study
from mmrpt_jax.training.host_memory import drives_accelerators, keep_freed_memory
from mmrpt_jax.training.processes import end_at_once, is_writer, start_processes

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a Python file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; a run found there is continued.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, sizes and estimated memory, and exit."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "This is one of several processes, which TPU metadata, SLURM, Open MPI or Kubernetes tell of each other.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Where nothing tells processes of each other: host:port of the first one."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --coordinator: how many processes there are."
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: the number of this one, from 0.")


def main(argv: list[str]) -> None:
    """Entry point."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise ConfigError(f"unexpected argument {argv[1]!r}: fields are set as --config.field=value")
    if _CONFIG.value is None:
        raise ConfigError("name an experiment: --config=experiments/configs/<name>.py")
    if not drives_accelerators():
        keep_freed_memory()
    _join_processes()
    method = method_of(_CONFIG.value)
    method.check(_CONFIG.value)
    if _DRY_RUN.value:
        if is_writer():
            print(method.describe(_CONFIG.value))
    elif not _WORKDIR.value:
        raise ConfigError("name a folder for the results: --workdir=<folder>")
    elif _CONFIG.value.seeds:
        run_study(_CONFIG.value, _WORKDIR.value)
    else:
        method.run(_CONFIG.value, _WORKDIR.value)


def _join_processes() -> None:
    """Brings the processes of the run together, if there are to be several.

    Raises:
        ConfigError: flags are missing, or nothing tells of other processes.
    """
    told = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if all(value is None for value in told) and not _DISTRIBUTED.value:
        return
    if any(value is None for value in told) and not _DISTRIBUTED.value:
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: give all three")
    try:
        start_processes(*told)
    except ValueError as error:
        raise ConfigError(f"--distributed: nothing here tells of other processes ({error})") from error


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
    """Runs `main`; what a user got wrong is one sentence and exit code 2, not a traceback.

    One of several processes that fails does not wait for the others, who wait for it.
    """
    try:
        app.run(main, flags_parser=parse_flags)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if jax.distributed.is_initialized():
            end_at_once(error)
        raise


if __name__ == "__main__":
    run()
