import itertools
from typing import NamedTuple

from mmrpt_jax.training.skipping import example_ids, too_many_skipped


class Batch(NamedTuple):
    """Stands for a batch of prompts."""

    columns: dict
    texts: list


def of(step):
    return Batch({"id": [f"{step}a", f"{step}b"]}, ["", ""])


def test_ids_of_batches_of_every_kind():
    assert example_ids(of(3)) == ["3a", "3b"]
    assert example_ids({"x": of(1), "y": Batch({}, ["a red box"])}) == ["1a", "1b", "a red box"]
    assert example_ids((1, 2)) == []


def test_names_steps_and_examples():
    # Steps are counted from 1, batches from 0: step 5 learns from batch 4.
    error = too_many_skipped("mmrpt", 6, 2, lambda step: (of(n) for n in itertools.count(step)))
    assert str(error) == (
        "mmrpt: the loss or its gradient was not finite in 2 updates in a row, up to step 6; look at steps 5 to 6, or "
        "lower the learning rate of a new run; their examples are 4a, 4b, 5a, 5b"
    )


def test_a_step_of_several_updates_has_its_part_of_them():
    batches = lambda step: (of(n) for n in itertools.count(step))  # noqa: E731
    # The last of step 4, and all three of steps 5 and 6.
    error = too_many_skipped("mmrpt", 6, 7, batches, updates_per_step=3)
    assert "7 updates in a row, up to step 6; look at steps 4 to 6" in str(error)
    assert str(error).endswith("3a, 3b, 4a, 4b, 5a, 5b")


def test_long_lists_are_cut():
    def hundred(step):
        return iter([Batch({"id": range(100)}, [])])

    assert str(too_many_skipped("x", 1, 1, hundred)).endswith("62, 63 and 36 more")
