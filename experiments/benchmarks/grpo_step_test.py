import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.benchmarks.common.environments import run_side
from experiments.benchmarks.common.sizes import model_in, sized_model
from experiments.benchmarks.grpo import ours
from experiments.benchmarks.grpo.material import IMAGE_TOKENS, write_material
from experiments.benchmarks.grpo.ours import open_batch, open_processor
from experiments.benchmarks.grpo.work import Stopwatch, Work, model_numbers
from experiments.benchmarks.grpo_step import summarise
from experiments.benchmarks.published_sizes import PUBLISHED
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.models.sharding import MESH_AXES

WORK = Work("text", group=8, prompt=64, answer=4, steps=2, folder="")
MESH = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES)


def report(step, collect, generate, peak):
    return {
        "device": "cpu",
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


def test_memory_of_a_card_is_told_where_there_is_one():
    cards = [report(1.0, 0.5, 0.4, 300.0) | {"device_mib": mib} for mib in (7.0, 9.0, 8.0)]
    [row] = summarise(WORK, [{("ours", False): found} for found in cards])
    assert row["device MiB"] == 8
    [row] = summarise(WORK, [{("ours", False): report(1.0, 0.5, 0.4, 300.0)}] * 2)
    assert row["device MiB"] is None


def test_material_of_the_published_size_is_its_model_and_its_vocabulary(tmp_path):
    write_material(tmp_path, [], "qwen2_5_vl_3b")
    numbers = model_numbers(WORK._replace(folder=str(tmp_path)))
    published = PUBLISHED["qwen2_5_vl_3b"]()
    assert model_in(numbers, "float32") == published
    assert model_in(numbers, "bfloat16", remat="full") == dataclasses.replace(
        published,
        decoder=dataclasses.replace(published.decoder, remat="full"),
        vision=dataclasses.replace(
            published.vision, transformer=dataclasses.replace(published.vision.transformer, remat="full")
        ),
        param_dtype="bfloat16",
        compute_dtype="bfloat16",
    )
    tokenizer = load_checkpoint_tokenizer(tmp_path, image_token="<|image_pad|>")
    # A random model may draw any id, and what it wrote is judged as text.
    last = published.vocab_size - 1
    assert tokenizer.decode([last]) == f"<dummy{last}>"
    assert last not in tokenizer.encode(f"<dummy{last}>").ids


@pytest.mark.parametrize("kind, prompt", [("text", 32), ("vlm", IMAGE_TOKENS + 24)])
def test_our_side_takes_the_step_in_bfloat16(kind, prompt, tmp_path, capsys):
    write_material(tmp_path, [(kind, prompt)], "tiny")
    ours.main(Work(kind, 2, prompt, 3, steps=2, folder=str(tmp_path), dtype="bfloat16"))
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["generate"] < found["collect"] < found["step"]
    assert found["device"] == "cpu" and "device_mib" not in found


def test_prompts_have_the_length_that_was_asked_for(tmp_path):
    write_material(tmp_path, [("text", 64), ("vlm", IMAGE_TOKENS + 40)])
    for kind, length in (("text", 64), ("vlm", IMAGE_TOKENS + 40)):
        work = WORK._replace(kind=kind, prompt=length, folder=str(tmp_path))
        processor = open_processor(work, sized_model())
        for number in range(3):
            prompt = open_batch(work, processor, number, MESH).prompt
            assert prompt.valid.all() and prompt.ids.shape == (1, length)


def test_a_prompt_shorter_than_its_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a prompt of 100 tokens is too short"):
        write_material(tmp_path, [("vlm", 100)])


def test_other_shapes_than_asked_for_are_no_measurement():
    with pytest.raises(ValueError, match=r"computed \(64, 3\) tokens"):
        Stopwatch().report(WORK, prompt_tokens=64, answer_tokens=3, versions={}, device="cpu")


def test_the_last_line_of_a_side_counts_and_its_failure_is_told():
    script = "import sys; print('noise'); print(sys.argv[1])"
    assert run_side([sys.executable, "-c", script], WORK._asdict()) == WORK._asdict()
    with pytest.raises(RuntimeError, match="no such peer"):
        run_side([sys.executable, "-c", "raise SystemExit('no such peer')"], WORK._asdict())
