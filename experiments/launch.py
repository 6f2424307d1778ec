"""Runs an experiment: `python -m experiments.launch --config=experiments/configs/mmrpt_scenes.py --workdir=runs/demo`.

Any field of the config can be overridden: `--config.rl.group_size=16`. Asked to stop by SIGTERM, it finishes its step,
saves and exits with 0. Starting the same command again goes on where it stopped. `--dry_run` prints what would run, and
exits; with `--topology=v5p:4x4x4` it compiles for that slice of a pod, which need not be at hand, and prints what each
program needs of a chip.
"""

import errno
import functools
import re
import sys
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.methods import method_of
from mmrpt_jax.stages.placement import describe_placement
from mmrpt_jax.stages.study import run_study
from mmrpt_jax.stages.topology.report import describe_rows, measure_programs
from mmrpt_jax.stages.topology.slices import open_slice
from mmrpt_jax.training.checkpoint import DamagedCheckpointError
from mmrpt_jax.training.processes import is_writer, leave, leave_failed, start_processes
from mmrpt_jax.training.stopping import StoppedError, StopRequest

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a Python file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; a run found there is continued.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, sizes and estimated memory, and exit."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "With --dry_run: a slice of TPUs such as v5p:4x4x4 to compile for; exit code 1 if it is too small.",
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


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise ConfigError(f"unexpected argument {argv[1]!r}: fields are set as --config.field=value")
    if _CONFIG.value is None:
        raise ConfigError("name an experiment: --config=experiments/configs/<name>.py")
    _join_processes()
    method = method_of(_CONFIG.value)
    if _TOPOLOGY.value:
        return _compile_for(_TOPOLOGY.value)
    method.check(_CONFIG.value)
    if _DRY_RUN.value:
        if is_writer():
            print(method.describe(_CONFIG.value))
    elif not _WORKDIR.value:
        raise ConfigError("name a folder for the results: --workdir=<folder>")
    else:
        stop = StopRequest()
        stop.listen()
        start = run_study if _CONFIG.value.seeds else method.run
        start(_CONFIG.value, _WORKDIR.value, stop)
    return 0


def _compile_for(topology: str) -> int:
    """Prints what the config's programs need of a slice; returns 1 if it does not hold them, else 0."""
    if not _DRY_RUN.value:
        raise ConfigError(f"--topology={topology} compiles and runs nothing: say --dry_run as well")
    config, method, found = _CONFIG.value, method_of(_CONFIG.value), open_slice(topology)
    method.check(config, found.devices)
    model = method.model(config, config.tokenizer.vocab_size)
    build = functools.partial(method.programs, config, model)
    print(describe_placement(config, model, found.devices))
    rows = measure_programs(build, found, config.mesh.to_dict())
    print(describe_rows(rows, found, title=config.title))
    return 0 if all(row["fits"] for row in rows) else 1


def _join_processes() -> None:
    """Brings the processes of the run together, if there are to be several.

    Raises:
        ConfigError: flags are missing, or nothing tells of other processes.
    """
    address, count, number = told = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if told == (None, None, None):
        return _find_processes() if _DISTRIBUTED.value else None
    if None in told:
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: give all three")
    if not re.fullmatch(r".+:\d+", address):
        raise ConfigError(f"--coordinator={address} is no address: say host:port of the first process")
    if not 0 <= number < count:
        raise ConfigError(f"--process_id={number} is none of --num_processes={count}: they count from 0")
    return start_processes(address, count, number)


def _find_processes() -> None:
    try:
        start_processes()
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
        # Whoever handed the error on wrote lines before it, and quotes around it.
        last = str(error).replace("\\n", "\n").splitlines()[-1].strip()
        missing = re.search(r"No such file or directory: '(.+?)'", last)
        raise ConfigError(
            f"--config: there is no file {missing[1]}" if missing else last.strip("'\"")
        ) from error
    return rest


def run() -> None:
    """Runs `main`; what a user got wrong, or a full disk, is one sentence and exit code 2, not a traceback.

    One of several processes that fails does not wait for the others, who wait for it.
    """
    try:
        app.run(main, flags_parser=parse_flags)
    except StoppedError as stopped:
        print(stopped)
    except KeyboardInterrupt:
        if jax.distributed.is_initialized():
            leave(130)
        raise
    except (ConfigError, DamagedCheckpointError) as error:
        _refuse(str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = error.filename or _WORKDIR.value
            _refuse(
                f"no space is left for {where}: make room and start the same command again, what is saved is whole"
            )
        if jax.distributed.is_initialized():
            leave_failed(error)
        raise


def _refuse(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    leave(2)


if __name__ == "__main__":
    run()
