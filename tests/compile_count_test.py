"""Shapes come from a bounded set: once a stage has begun, nothing is compiled any more."""

from collections import defaultdict

from mmrpt_jax.reporting.jsonl import read_jsonl

# Steps 1 to 3 compile the step itself and, behind step 2, what the first checkpoint copies arrays with.
FIRST = 3


def test_later_steps_compile_nothing(finished_run):
    compiled = defaultdict(list)
    for line in read_jsonl(finished_run / "metrics.jsonl"):
        compiled[line["stage"]].append(line["recompilations"])
    # Every kind of step there is: imitation of captions, of spans and of replies, and reinforcement.
    assert {"caption", "sft", "mmrpt_warmup", "mmrpt", "mmrpt_finetune"} <= compiled.keys()
    assert {stage: counts[FIRST:] for stage, counts in compiled.items() if any(counts[FIRST:])} == {}
    assert all(len(compiled[stage]) > FIRST for stage in ("caption", "sft", "mmrpt"))
    # A program that came out of the cache of an earlier start counts too. All arms are tuned by one program.
    tuned = [stage for stage in compiled if stage.endswith("_finetune")]
    assert {stage for stage, counts in compiled.items() if not counts[0]} == set(tuned[1:])
