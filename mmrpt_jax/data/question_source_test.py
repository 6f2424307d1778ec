import numpy as np
import pytest

from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.scenes import WORLDS, ask, render, sample_scene, split_seed


def test_questions_of_a_split():
    source, seed = QuestionSource("biased", split="finetune", stream=4, size=12), split_seed("finetune", 4)
    assert len(source) == 12
    for index in (0, 5, 11):
        scene = sample_scene(WORLDS["biased"], seed, index)
        replies = {q.question: q.reply for q in ask(scene, seed, index)}
        found = source[index]
        assert replies[found["question"]] == found["reply"]
        np.testing.assert_array_equal(found["image"], render(scene))
    assert len({source[index]["question"] for index in range(12)}) > 6
    with pytest.raises(IndexError):
        source[12]
