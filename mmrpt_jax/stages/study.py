"""The same experiment under several seeds, and a table of means with 95 % intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.stages.methods import method_of
from mmrpt_jax.stages.results import read_results, write_results
from mmrpt_jax.training.processes import is_writer
from mmrpt_jax.training.stopping import NEVER, StopRequest

# Two-sided 97.5 % quantiles of Student's t by degrees of freedom: few seeds need wide intervals.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def run_study(config: ConfigDict, workdir: str, stop: StopRequest = NEVER) -> None:
    """Runs `config` once per seed of `config.seeds`, each in its own folder, and writes the table over seeds."""
    method, tables = method_of(config), []
    for seed in config.seeds:
        one = ConfigDict(config.to_dict())
        one.seed, one.seeds = seed, ()
        folder = Path(workdir) / f"seed-{seed}"
        method.run(one, str(folder), stop)
        tables.append(read_results(folder))
    rows = over_seeds(tables)
    title = f"{config.title}: mean over seeds {', '.join(map(str, config.seeds))} ± 95 % interval"
    table = write_results(Path(workdir), rows, method.headline_columns(rows), title=title)
    if is_writer():
        print(table)


def over_seeds(tables: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means of every number over seeds, arm by arm, with `<name>_ci95` = t₀.₉₇₅ · s / √n.

    Args:
        tables: per seed, one row per arm, in the same order.

    Returns:
        One row per arm. With a single seed there is no interval.
    """
    rows = []
    for runs in zip(*tables, strict=True):
        row: dict[str, Any] = {"arm": runs[0]["arm"]}
        for name in runs[0]:
            if name != "arm" and not name.endswith("_ci95"):
                row |= _interval(name, [run[name] for run in runs])
        rows.append(row)
    return rows


def _interval(name: str, values: Sequence[float]) -> dict[str, float]:
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return {name: mean}
    quantile = _T975[min(count - 2, len(_T975) - 1)]
    return {name: mean, f"{name}_ci95": quantile * float(np.std(values, ddof=1)) / float(np.sqrt(count))}
