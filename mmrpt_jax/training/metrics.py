"""Numbers of a run: `metrics.jsonl`, TensorBoard events, and one health line per logged step."""

import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter

from mmrpt_jax.reporting.jsonl import JsonLines

# Key in the metrics, label in the health line, format. Shares are in [0, 1]; entropy, KL and gap in nats.
HEALTH_FIELDS = (
    ("loss", "loss", ".4f"),
    ("skipped", "skipped", ".0f"),
    ("zero_variance_share", "zero-var", ".2f"),
    ("entropy", "entropy", ".3f"),
    ("kl", "kl", ".4f"),
    ("clip_fraction", "clip", ".3f"),
    ("ratio", "ratio", ".4f"),
    ("sampler_gap", "gap", ".1e"),
    ("truncated_share", "trunc", ".2f"),
    ("padded_share", "padded", ".2f"),
    ("unparsed_share", "unparsed", ".2f"),
    ("recompilations", "recompiled", ".0f"),
)


class MetricWriter:
    """Writes scalars of named stages below a workdir; make it on one process only.

    `metrics.jsonl` holds `{"stage": ..., "step": ..., <name>: <number>}` per line, a number that is not
    finite as null; `tensorboard/<stage>/` holds the same as events. A run that resumes calls `rewind` first,
    after which the lines are those of a run that was never stopped.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        """Opens `metrics.jsonl` in `workdir` for appending; event files follow with a stage's first step."""
        self._workdir = Path(workdir)
        self._lines = JsonLines(self._workdir / "metrics.jsonl")
        self._events: dict[str, SummaryWriter] = {}

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the scalars of one step (Python numbers or arrays of one element)."""
        values = {name: float(value) for name, value in metrics.items()}
        self._lines.append({"stage": stage, "step": step, **values})
        for name, value in values.items():
            self._stage_events(stage).add_scalar(name, value, step)

    def rewind(self, stage: str, step: int) -> None:
        """Forgets what `stage` wrote after `step`, the step of the checkpoint that training resumes from."""
        self._lines.rewind(lambda record: record["stage"] != stage or record["step"] <= step)
        if stage in self._events:
            self._events.pop(stage).close()
        self._stage_events(stage, purge_step=step + 1)

    def _stage_events(self, stage: str, purge_step: int | None = None) -> SummaryWriter:
        # One folder per stage, because TensorBoard purges a folder's steps as a whole.
        if stage not in self._events:
            folder = str(self._workdir / "tensorboard" / stage)
            # File names count whole seconds; without a suffix a quick restart would overwrite a file.
            suffix = f".{time.time_ns()}"
            self._events[stage] = SummaryWriter(folder, purge_step=purge_step, filename_suffix=suffix)
        return self._events[stage]

    def close(self) -> None:
        """Flushes and closes every file."""
        self._lines.close()
        for events in self._events.values():
            events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def format_health(metrics: Mapping[str, float]) -> str:
    """One line that says whether a step was healthy; what `metrics` lacks is left out.

    Args:
        metrics: any of `step`, `total_steps`, `reward`, `reward/<part>`, the keys of `HEALTH_FIELDS`,
            `host_memory_bytes` and `eta_seconds`; other keys are ignored.
    """
    fields = []
    if "step" in metrics:
        total = f"/{metrics['total_steps']:.0f}" if "total_steps" in metrics else ""
        fields.append(f"step {metrics['step']:.0f}{total}")
    fields += _measured(metrics)
    # A step of several tasks reports theirs under their names.
    for task in sorted(key.removesuffix("/loss") for key in metrics if key.endswith("/loss")):
        own = {
            key.removeprefix(f"{task}/"): value
            for key, value in metrics.items()
            if key.startswith(f"{task}/")
        }
        fields.append(f"{task}: {', '.join(_measured(own))}")
    if "host_memory_bytes" in metrics:
        fields.append(f"mem {metrics['host_memory_bytes'] / 2**30:.2f} GiB")
    if "eta_seconds" in metrics:
        fields.append(f"eta {format_duration(metrics['eta_seconds'])}")
    return " | ".join(fields)


def _measured(metrics: Mapping[str, float]) -> list[str]:
    """Rewards, in all and by part, and the `HEALTH_FIELDS`, as far as there are any."""
    fields, parts = (
        [],
        [f"{key.removeprefix('reward/')} {metrics[key]:.3f}" for key in metrics if key.startswith("reward/")],
    )
    if "reward" in metrics:
        fields.append(f"reward {metrics['reward']:.3f}" + (f" ({', '.join(parts)})" if parts else ""))
    elif parts:
        fields.append(f"rewards {', '.join(parts)}")
    return fields + [f"{label} {metrics[key]:{spec}}" for key, label, spec in HEALTH_FIELDS if key in metrics]


def format_duration(seconds: float) -> str:
    """`h:mm:ss`, or `-:--:--` where the duration is unknown (not finite)."""
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def host_memory_bytes() -> int:
    """Resident memory of this process in bytes; its peak where the system has no `/proc` (macOS)."""
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return resident_pages * os.sysconf("SC_PAGE_SIZE")
