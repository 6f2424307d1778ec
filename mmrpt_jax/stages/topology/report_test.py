import pytest

from mmrpt_jax.stages.topology.chips import Chip
from mmrpt_jax.stages.topology.compiling import Needs
from mmrpt_jax.stages.topology.exchanges import Exchange
from mmrpt_jax.stages.topology.program import Program
from mmrpt_jax.stages.topology.report import describe_rows, least_seconds, program_row
from mmrpt_jax.stages.topology.slices import Slice

CHIP = Chip(flops=1e12, memory=2**30, bandwidth=1e9, links=1e8)
FOUND = Slice("v5e:1x2", CHIP, [None, None])
# 1 s of products, 2 s of memory, 4 s of links.
NEEDS = Needs(
    fits=True,
    peak=2**29,
    arguments=2**28,
    temporaries=2**28,
    flops=1e12,
    traffic=2 * 10**9,
    exchanges=[
        Exchange("all-gather", ((5, 5),), 10**8, 3, ""),
        Exchange("all-reduce", ((5,),), 10**8, 1, ""),
    ],
)
PROGRAM = Program(print, (), flops=4e12, variants=6)


def test_the_slowest_of_three_tells_the_time():
    assert least_seconds(NEEDS, CHIP) == 4.0
    assert least_seconds(NEEDS._replace(exchanges=[]), CHIP) == 2.0
    assert least_seconds(NEEDS._replace(exchanges=[], traffic=0), CHIP) == 1.0


def test_a_row():
    row = program_row("update", PROGRAM, NEEDS, FOUND)
    assert row["of chip"] == row["GiB peak"] == 0.5
    assert row["GB exchanged"] == pytest.approx(0.4)
    # Half of 4e12 FLOPs on each of two devices, in 4 s at 1e12 a second.
    assert row["MFU"] == pytest.approx(0.5)
    assert row["collectives"] == "3 all-gather, 1 all-reduce"


def test_the_verdict_names_what_is_too_large():
    rows = [
        program_row("rollout", PROGRAM, NEEDS, FOUND),
        program_row("update", PROGRAM, NEEDS._replace(fits=False, peak=2**31), FOUND),
    ]
    assert describe_rows(rows, FOUND, title="T").splitlines()[-1] == "does not fit: update"
    assert describe_rows(rows[:1], FOUND, title="T").splitlines()[-1] == "all programs fit"
