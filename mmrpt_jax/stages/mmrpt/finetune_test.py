import dataclasses
import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.damage import Damage
from mmrpt_jax.data.processor import FixedSizeProcessor
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.records import Record, write_records
from mmrpt_jax.data.scene_source import png
from mmrpt_jax.stages.mmrpt.finetune import question_batches, record_questions
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import Share


@pytest.fixture
def run(tmp_path, tiny_tokenizer):
    image = png(np.zeros((8, 8, 3), np.uint8))
    pairs = [[], [("is it <image> ?", "true"), ("no ?", "false")], [("two ?", "false")]]
    pairs += [[("is it red " * 9 + "?", "true")], [("what is red ?", "a red circle " * 4)]]
    records = [
        Record(
            id=str(i),
            images=[image] * i,
            captions=[],
            qa=[{"question": question, "answer": answer} for question, answer in qa],
            group=str(i),
            extra=json.dumps({}),
        )
        for i, qa in enumerate(pairs)
    ]
    write_records(tmp_path / "data", "data", {"train": records})
    config = ConfigDict({"data": {"path": str(tmp_path / "data"), "split": "train", "branch_lengths": (9,)}})
    log: list[str] = []
    run = SimpleNamespace(
        config=config,
        data_seed=lambda stream: 0,
        damage=Damage(),
        share=Share(),
        processor=FixedSizeProcessor(tiny_tokenizer, 16, 16, 8, lengths=(30,)),
        wording=Wording(),
        tokenizer=tiny_tokenizer,
        log=log.append,
        said=log,
    )
    run.batches = functools.partial(Run.batches, run)
    return run


def test_the_first_question_of_records_that_have_one(run):
    source = record_questions(run)
    found = [(source[i]["question"], source[i]["reply"]) for i in range(len(source))]
    assert found == [("is it < image> ?", "true"), ("two ?", "false")]
    assert [[image.shape for image in source[i]["images"]] for i in range(2)] == [
        [(8, 8, 3)],
        [(8, 8, 3)] * 2,
    ]
    # One question and one answer are too long.
    assert run.said == ["   left out: 2 questions too long for config.data's lengths"]


def test_prompts_have_a_place_for_every_image(run):
    run.config.data.kind, run.config.data.branch_lengths = "records", (64,)
    run.config.finetune = {"batch_size": 3}
    run.processor = dataclasses.replace(run.processor, lengths=(120,))
    batch = next(question_batches(run, blind=False)(0))
    asked = [
        run.tokenizer.decode(ids[valid])
        for ids, valid in zip(batch.prompt.ids, batch.prompt.valid, strict=True)
    ]
    # The i-th record has i images of four visual tokens.
    numbers = {"is it < image> ?": 1, "two ?": 2, "is it red": 3, "what is red ?": 4}
    expected = [4 * next(n for words, n in numbers.items() if words in text) for text in asked]
    assert batch.prompt.image_slots.sum(axis=1).tolist() == expected
    assert batch.images.shape == (3, max(expected) // 4, 16, 16, 3)


def test_no_question_fits(run):
    run.processor = dataclasses.replace(run.processor, lengths=(5,))
    with pytest.raises(ValueError, match="4 of 5 records ask a question, and none fits"):
        record_questions(run)
