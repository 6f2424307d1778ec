"""A conversion that is killed, once or often, ends where an undisturbed one does; so does one on several processes."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from data_prep import task_files
from mmrpt_jax.data.manifest import read_manifest
from mmrpt_jax.data.records import open_records
from tests.data_folders import FLAGS, ROWS, disturbed_folder, rejects, run

# Children start from a process that has imported everything and has no threads.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.data_kill_test"])


@pytest.fixture
def folder(tmp_path):
    return disturbed_folder(tmp_path / "in")


@pytest.fixture
def whole(folder, tmp_path):
    """The dataset that an undisturbed run makes."""
    assert run(folder, tmp_path / "whole", *FLAGS) == 0
    return tmp_path / "whole"


def die_after_renaming(folder, output):
    """Runs the conversion in a process that is killed as soon as it has renamed anything."""
    rename = Path.rename

    def deadly(path, target):
        rename(path, target)
        os.kill(os.getpid(), signal.SIGKILL)

    Path.rename = deadly
    os._exit(run(folder, output, *FLAGS))


def convert_in_silence(folder, output, *flags):
    os.environ["MARK"] = str(output)
    os._exit(run(folder, output, *FLAGS, *flags))


def start(target, *arguments):
    process = SERVER.Process(target=target, args=arguments)
    process.start()
    return process


def living(mark):
    """Processes that were started with this mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"MARK={mark}\0".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_first_records_keep_their_ids_whatever_the_number_of_processes(folder, whole, tmp_path):
    assert run(folder, tmp_path / "two", *FLAGS, "--workers=2") == 0
    assert read_manifest(tmp_path / "two") == read_manifest(whole)
    splits = [list(open_records(tmp_path / "two", split)) for split in ("a_test", "train", "dev")]
    captions = {record["id"]: record["captions"] for records in splits for record in records}
    assert captions == {f"{i}.png": [f"number {i}"] for i in range(ROWS) if i not in (10, 21, 22)} | {
        "t.png": ["number 6"]
    }
    # Each split is in the order of the source.
    for records in splits:
        numbers = [int(record["captions"][0].split()[1]) for record in records]
        assert numbers == sorted(numbers)
    listed = [(entry["file"], entry["line"], entry["reason"]) for entry in rejects(tmp_path / "two")]
    assert sorted(listed) == [
        ("train.jsonl", 6, "duplicate id"),
        ("train.jsonl", 11, "missing image"),
        ("train.jsonl", 22, "duplicate id"),
        ("train.jsonl", 23, "duplicate id"),
    ]


def test_killed_after_every_renaming(folder, whole, tmp_path):
    kills = 0
    while True:
        process = start(die_after_renaming, folder, tmp_path / "out")
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    # The job's name and its plan, 6 tasks, at least 1 copy without repeats, at least 7 shards, the dataset.
    assert kills >= 17
    assert read_manifest(tmp_path / "out") == read_manifest(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "whole"}


def test_killed_at_random_moments(folder, whole, tmp_path):
    moments = random.Random(0)
    for _ in range(6):
        process = start(convert_in_silence, folder, tmp_path / "out")
        process.join(moments.uniform(0, 0.5))
        process.kill()
        process.join()
    assert run(folder, tmp_path / "out", *FLAGS) == 0
    assert read_manifest(tmp_path / "out") == read_manifest(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "whole"}


def test_killed_with_its_workers_at_work(folder, whole, tmp_path):
    process = start(convert_in_silence, folder, tmp_path / "out", "--workers=2", "--rows_per_shard=1")
    while process.is_alive() and not list(tmp_path.glob(".out.partial/tasks/??????")):
        time.sleep(0.01)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while living(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living(tmp_path / "out") == []
    assert run(folder, tmp_path / "out", *FLAGS, "--rows_per_shard=1") == 0
    for split in ("train", "dev", "a_test"):
        assert list(open_records(tmp_path / "out", split)) == list(open_records(whole, split))


def test_a_finished_command_is_done_and_another_is_refused(folder, whole, capsys):
    assert run(folder, whole, *FLAGS) == 0
    assert "is complete already" in capsys.readouterr().out
    assert run(folder, whole, *FLAGS, "--max_pixels=99") == 2
    assert "already exists" in capsys.readouterr().err


def test_a_begun_command_is_not_continued_by_another(folder, tmp_path, capsys):
    start(die_after_renaming, folder, tmp_path / "out").join()
    assert run(folder, tmp_path / "out", *FLAGS, "--max_pixels=99") == 2
    assert "was begun with other flags or other files" in capsys.readouterr().err
    (folder / "train.jsonl").write_text("")
    assert run(folder, tmp_path / "out", *FLAGS) == 2
    assert "was begun with other flags or other files" in capsys.readouterr().err
    assert (tmp_path / ".out.partial" / "job").exists()


def test_two_commands_do_not_write_one_dataset(folder, tmp_path, capsys):
    (tmp_path / ".out.partial").mkdir()
    with (tmp_path / ".out.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(folder, tmp_path / "out", *FLAGS) == 2
    assert "another process is converting into" in capsys.readouterr().err


def test_a_full_disk_is_named_and_keeps_what_was_done(folder, whole, tmp_path, capsys, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(task_files, "describe_file", lambda path, records=None: full(path))
        assert run(folder, tmp_path / "out", *FLAGS) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / ".out.partial" / "plan").exists()
    assert run(folder, tmp_path / "out", *FLAGS) == 0
    assert read_manifest(tmp_path / "out") == read_manifest(whole)
