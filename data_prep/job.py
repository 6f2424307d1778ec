"""A conversion that can be stopped at any moment: the same command goes on where it was, and ends the same.

    .OUTPUT.partial/job      what is being made; another command is refused
                    plan/    the list of tasks, and the indexes that they read
                    tasks/   a folder per finished task
                    unique/  copies of those that held repeated ids, without them
                    files/   the dataset; renamed to OUTPUT as the last act

Every folder appears complete or not at all, and what is in it depends on the job alone, so whoever finds one goes on.
"""

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.files import complete_folder, sync, write_complete
from data_prep.rejects import RejectLog, count_rejects, first_reject
from data_prep.sources.base import Task
from data_prep.task_files import IDS, REJECTS, Report, shard_file
from data_prep.tasks import Conversion, leave_out, run_task
from mmrpt_jax import __version__
from mmrpt_jax.data.manifest import (
    MANIFEST,
    DamagedDatasetError,
    FileEntry,
    describe_file,
    read_manifest,
    write_manifest,
)
from mmrpt_jax.data.records import RECORD_FEATURES
from mmrpt_jax.data.shards import shard_path, write_info
from mmrpt_jax.reporting.command_line import UsageError


@dataclasses.dataclass(frozen=True)
class Job:
    """A conversion into a dataset; can be sent to other processes and machines that see the same folders.

    Attributes:
        conversion: what is done to every row.
        output: the directory that the dataset becomes.
        name: the dataset's name.
        rows: about how many rows make a task, and records a shard.
    """

    conversion: Conversion
    output: Path
    name: str
    rows: int

    @property
    def staging(self) -> Path:
        """Where the job works."""
        return self.output.with_name(f".{self.output.name}.partial")

    @property
    def digest(self) -> str:
        """Tells jobs apart: by what is done, and by the names, sizes and dates of the files to which."""
        conversion = self.conversion
        adapter = getattr(conversion.adapter, "__qualname__", repr(conversion.adapter))
        what = (__version__, self.name, self.rows, conversion.max_pixels, adapter, repr(conversion.split_of))
        states = [
            (str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in conversion.source.files
        ]
        return hashlib.sha256(repr((what, repr(conversion.source), states)).encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether `output` is there, made by this job.

        Raises:
            FileExistsError: it is there, but made by another, or not by a job.
        """
        if not self.output.exists():
            return False
        with contextlib.suppress(DamagedDatasetError):
            manifest = read_manifest(self.output)
            if manifest and manifest[0] == self.digest:
                return True
        raise FileExistsError(f"{self.output} already exists; remove it or choose another directory")

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the folder in which the job works; removes it when the job can never be done, or is done.

        Raises:
            UsageError: another process holds it, or it was begun by another command.
        """
        self.staging.mkdir(parents=True, exist_ok=True)
        with (self.staging / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is converting into {self.output}") from None
            self._check_beginning()
            try:
                yield
            except UsageError:
                shutil.rmtree(self.staging)
                raise
            shutil.rmtree(self.staging)

    def plan(self) -> list[Task]:
        """Returns the tasks, planned now or before."""
        folder = self.staging / "plan"
        if not folder.exists():
            with complete_folder(folder) as partial, RejectLog(partial / REJECTS) as rejects:
                tasks = list(self.conversion.source.plan(partial, self.rows, rejects.add))
                content = [dataclasses.astuple(task) for task in tasks]
                (partial / "tasks.json").write_text(json.dumps(content), encoding="utf-8")
        return [Task(*values) for values in json.loads((folder / "tasks.json").read_text(encoding="utf-8"))]

    def run(self, number: int, task: Task) -> Path:
        """Does a task; returns the file of its ids."""
        run_task(self.conversion, task, self._done(number), self.staging / "plan")
        return self._done(number) / IDS

    def leave_out(self, number: int, task: Task, places: Sequence[int]) -> int:
        """Copies a finished task without the records at `places`; returns its number."""
        leave_out(task, self._done(number), places, self._unique(number))
        return number

    def finish(self, tasks: Sequence[Task]) -> str:
        """Makes one dataset of the finished tasks; returns a summary of several lines.

        Raises:
            UsageError: no row at all could be used.
        """
        folders = [self._unique(i) if self._unique(i).exists() else self._done(i) for i in range(len(tasks))]
        reports = [Report.read(folder) for folder in folders]
        files = self.staging / "files"
        files.mkdir(exist_ok=True)
        with RejectLog(files / REJECTS) as rejects:
            for folder in [self.staging / "plan", *folders]:
                rejects.copy(folder / REJECTS)
        rejected = count_rejects(files / REJECTS)
        entries = self._gather(folders, reports, files)
        if not entries:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in rejected.most_common())
            raise UsageError(
                f"no row could be used ({reasons or 'there is none'}) {first_reject(files / REJECTS)}"
            )
        for path in sorted(files.iterdir()):
            if path.name.removeprefix(".").startswith(MANIFEST):
                path.unlink()  # of an earlier try
            elif path.name not in entries:
                entries[path.name] = describe_file(path)
        write_manifest(files, entries, self.digest)
        for path in [*files.iterdir(), files]:
            sync(path)
        files.rename(self.output)
        sync(self.output.parent)
        return self._summary(reports, rejected)

    def _gather(
        self, folders: Sequence[Path], reports: Sequence[Report], files: Path
    ) -> dict[str, FileEntry]:
        """Numbers the shards of all tasks, in order, and moves them into `files`, as far as that was not done."""
        shards: dict[str, list[tuple[int, int]]] = {}
        entries: dict[str, FileEntry] = {}
        for folder, report in zip(folders, reports, strict=True):
            for split, shard in report.shards.items():
                sizes = shards.setdefault(split, [])
                target = shard_path(files, self.name, split, len(sizes))
                if not target.exists():
                    shard_file(folder, split).rename(target)
                sizes.append((shard.entry.records or 0, shard.bytes))
                entries[target.name] = shard.entry
        if shards:
            write_info(files, self.name, RECORD_FEATURES, shards)
        return entries

    def _summary(self, reports: Sequence[Report], rejected: collections.Counter[str]) -> str:
        counts: collections.Counter[str] = collections.Counter()
        for report in reports:
            counts.update({split: shard.entry.records or 0 for split, shard in report.shards.items()})
        lines = [f"{self.output}: {counts.total()} records"]
        lines += [f"  {split:24} {count:8}" for split, count in counts.items()]
        lines += [f"rejected: {rejected.total()}, listed in {REJECTS}"]
        lines += [f"  {reason:24} {count:8}" for reason, count in rejected.most_common()]
        escaped = sum(report.escaped for report in reports)
        return "\n".join([*lines, f"texts with an escaped placeholder: {escaped}"])

    def _check_beginning(self) -> None:
        begun = self.staging / "job"
        if not begun.exists():
            write_complete(begun, self.digest)
        elif begun.read_text(encoding="utf-8") != self.digest:
            raise UsageError(
                f"{self.staging} was begun with other flags or other files; finish that command, or remove the folder"
            )

    def _done(self, number: int) -> Path:
        return self.staging / "tasks" / f"{number:06}"

    def _unique(self, number: int) -> Path:
        return self.staging / "unique" / f"{number:06}"
