import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.benchmarks.common.environments import run_side
from experiments.benchmarks.grpo.material import IMAGE_TOKENS, write_material
from experiments.benchmarks.grpo.ours import open_batch, open_processor
from experiments.benchmarks.grpo.work import Stopwatch, Work
from experiments.benchmarks.grpo_step import summarise
from mmrpt_jax.models.sharding import MESH_AXES

WORK = Work("text", group=8, prompt=64, answer=4, steps=2, folder="")


def report(step, collect, generate, peak):
    return {
        "step": step,
        "collect": collect,
        "generate": generate,
        "peak_mib": peak,
        "libraries_mib": 100.0,
        "versions": {},
    }


def test_ratios_are_taken_round_by_round():
    ours, peer = ("ours", False), ("trl", True)
    rounds = [
        {ours: report(1.0, 0.5, 0.4, 300.0), peer: report(4.0, 1.0, 0.5, 900.0)},
        {ours: report(2.0, 0.5, 0.4, 300.0), peer: report(6.0, 2.0, 1.5, 900.0)},
        {ours: report(3.0, 0.5, 0.4, 300.0), peer: report(15.0, 3.0, 2.5, 900.0)},
    ]
    first, second = summarise(WORK, rounds)
    assert (first["times ours"], first["above libraries"]) == (1.0, 200)
    assert (second["side"], second["times ours"], second["range"]) == ("trl, lean", 4.0, "3.00-5.00")
    # Medians 6, 2 and 1.5: half a second of scores, four seconds of update.
    assert (second["step"], second["generate"], second["score"], second["update"]) == (6.0, 1.5, 0.5, 4.0)


def test_prompts_have_the_length_that_was_asked_for(tmp_path):
    write_material(tmp_path, [("text", 64), ("vlm", IMAGE_TOKENS + 40)])
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES)
    for kind, length in (("text", 64), ("vlm", IMAGE_TOKENS + 40)):
        work = WORK._replace(kind=kind, prompt=length, folder=str(tmp_path))
        processor = open_processor(work, tmp_path)
        for number in range(3):
            prompt = open_batch(work, processor, number, mesh).prompt
            assert prompt.valid.all() and prompt.ids.shape == (1, length)


def test_a_prompt_shorter_than_its_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a prompt of 100 tokens is too short"):
        write_material(tmp_path, [("vlm", 100)])


def test_other_shapes_than_asked_for_are_no_measurement():
    with pytest.raises(ValueError, match=r"computed \(64, 3\) tokens"):
        Stopwatch().report(WORK, prompt_tokens=64, answer_tokens=3, versions={})


def test_the_last_line_of_a_side_counts_and_its_failure_is_told():
    script = "import sys; print('noise'); print(sys.argv[1])"
    assert run_side([sys.executable, "-c", script], WORK._asdict()) == WORK._asdict()
    with pytest.raises(RuntimeError, match="no such peer"):
        run_side([sys.executable, "-c", "raise SystemExit('no such peer')"], WORK._asdict())
