import itertools
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from mmrpt_jax.stages.mmrpt import caption
from mmrpt_jax.stages.mmrpt.caption import pretraining_batches


@pytest.fixture
def take(monkeypatch):
    """(infill_every, step, count) -> which batches are read; streams are named and numbered."""

    def stream(name):
        return lambda run, suffix: lambda step: (f"{name}{suffix} {n}" for n in itertools.count(step))

    monkeypatch.setattr(caption, "caption_batches", stream("caption"))
    monkeypatch.setattr(caption, "infill_batches", stream("blank"))

    def read(every, step, count):
        run = SimpleNamespace(config=ConfigDict({"caption": {"infill_every": every}}))
        return list(itertools.islice(pretraining_batches(run, "!")(step), count))

    return read


def test_every_third_batch_is_of_blanks(take):
    assert take(3, 0, 7) == [
        "caption! 0",
        "caption! 1",
        "blank! 0",
        "caption! 2",
        "caption! 3",
        "blank! 1",
        "caption! 4",
    ]
    assert take(0, 2, 2) == ["caption! 2", "caption! 3"]


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("step", range(7))
def test_a_resumed_run_reads_on(take, every, step):
    assert take(every, step, 6) == take(every, 0, 13)[step : step + 6]
