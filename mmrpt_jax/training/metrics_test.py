import math
import os
import struct

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.training import metrics


def events(folder):
    """Events of a folder, in order, out of their framing: length, checksum, bytes, checksum."""
    read = []
    for path in sorted(folder.iterdir()):
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            (length,) = struct.unpack_from("<Q", data, offset)
            read.append(Event.FromString(data[offset + 12 : offset + 12 + length]))
            offset += 12 + length + 4
    return read


def write_steps(writer, steps):
    for step in steps:
        writer.write("rl", step, {"loss": jnp.float32(step / 2), "kl": math.nan})


def test_resumed_lines_equal_uninterrupted_ones(tmp_path):
    with metrics.MetricWriter(tmp_path / "whole") as writer:
        writer.write("caption", 9, {"loss": 1})
        write_steps(writer, range(1, 7))
    with metrics.MetricWriter(tmp_path / "parts") as writer:
        writer.write("caption", 9, {"loss": 1})
        write_steps(writer, range(1, 6))
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        file.write('{"stage": "rl", "st')
    with metrics.MetricWriter(tmp_path / "parts") as writer:
        writer.rewind("rl", 3)
        write_steps(writer, range(4, 7))
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert parts == whole
    assert read_jsonl(tmp_path / "parts" / "metrics.jsonl")[:2] == [
        {"stage": "caption", "step": 9, "loss": 1.0},
        {"stage": "rl", "step": 1, "loss": 0.5, "kl": None},
    ]


def test_events_carry_values_and_a_resumed_stage_purges_from_its_next_step(tmp_path):
    with metrics.MetricWriter(tmp_path) as writer:
        writer.write("caption", 1, {"loss": 0.25})
        writer.rewind("caption", 0)
        writer.write("caption", 1, {"loss": 0.75})
    read = events(tmp_path / "tensorboard" / "caption")
    assert [
        (e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in read if e.summary.value
    ] == [
        (1, "loss", 0.25),
        (1, "loss", 0.75),
    ]
    starts = [e.step for e in read if e.HasField("session_log")]
    assert starts == [1]


def test_health_line_by_hand():
    line = metrics.format_health(
        {
            "loss": 3.0,
            "step": 40,
            "total_steps": 600,
            "reward": 0.61249,
            "reward/exact": 0.25,
            "reward/visual_gain": 0.3624,
            "zero_variance_share": 0.125,
            "entropy": 1.25,
            "kl": 0.00213,
            "clip_fraction": 0.031,
            "ratio": 1.0,
            "sampler_gap": 0.0000215,
            "truncated_share": 0.0,
            "unparsed_share": 0.5,
            "recompilations": 2,
            "host_memory_bytes": 3 * 2**29,
            "eta_seconds": 3725.4,
        }
    )
    assert line == (
        "step 40/600 | reward 0.612 (exact 0.250, visual_gain 0.362) | loss 3.0000 | zero-var 0.12"
        " | entropy 1.250 | kl 0.0021 | clip 0.031 | ratio 1.0000 | gap 2.2e-05 | trunc 0.00 | unparsed 0.50"
        " | recompiled 2 | mem 1.50 GiB | eta 1:02:05"
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, ""),
        ({"other": 1.0}, ""),
        ({"step": 3, "kl": math.nan}, "step 3 | kl nan"),
        ({"reward/exact": 1}, "rewards exact 1.000"),
        (
            {
                "loss": 3,
                "draw/loss": 2,
                "draw/reward": 0.5,
                "answer/loss": 1,
                "answer/reward/exact": 1,
                "eta_seconds": 1,
            },
            "loss 3.0000 | answer: rewards exact 1.000, loss 1.0000 | draw: reward 0.500, loss 2.0000 | eta 0:00:01",
        ),
    ],
)
def test_health_line_leaves_out_what_is_missing(given, line):
    assert metrics.format_health(given) == line


def test_durations():
    assert metrics.format_duration(59.6) == "0:01:00"
    assert metrics.format_duration(36000) == "10:00:00"
    assert metrics.format_duration(math.inf) == "-:--:--"


def test_host_memory_is_that_of_this_process():
    before = metrics.host_memory_bytes()
    block = bytearray(os.urandom(64 * 2**20))
    after = metrics.host_memory_bytes()
    assert after - before > 32 * 2**20
    assert len(block) == 64 * 2**20
