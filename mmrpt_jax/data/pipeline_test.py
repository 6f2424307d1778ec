import itertools
import json

import grain
import numpy as np
import pytest

from mmrpt_jax.data.pipeline import collate, make_dataset, make_iterator


def numbers(count=10):
    return [{"index": index, "name": f"n{index}"} for index in range(count)]


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for field in batch:
        np.testing.assert_array_equal(batch[field], other[field])


class Noise(grain.transforms.RandomMap):
    def random_map(self, element, rng):
        return element | {"noise": rng.random()}


def test_unshuffled_batches_run_through_the_source_again_and_again():
    dataset = make_dataset(numbers(5), seed=0, batch_size=2, shuffle=False)
    assert [dataset[step]["index"].tolist() for step in range(4)] == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert dataset[2]["name"] == ["n4", "n0"]


def test_every_epoch_is_another_permutation():
    dataset = make_dataset(numbers(12), seed=1, batch_size=4)
    epochs = [np.concatenate([dataset[3 * epoch + step]["index"] for step in range(3)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_one_epoch_keeps_the_short_last_batch():
    dataset = make_dataset(numbers(5), seed=0, batch_size=2, repeat=False)
    assert [len(batch["index"]) for batch in make_iterator(dataset)] == [2, 2, 1]


def test_batches_depend_on_the_seed_alone():
    def indices(seed):
        dataset = make_dataset(numbers(50), seed=seed, batch_size=10)
        return [dataset[step]["index"].tolist() for step in (7, 0, 3)]

    assert indices(5) == indices(5)
    assert indices(5) != indices(6)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_iterator_and_random_access_give_the_same_batches(num_threads):
    dataset = make_dataset(numbers(), seed=3, batch_size=4, transform=Noise())
    iterator = make_iterator(dataset, num_threads=num_threads)
    for step in range(8):
        assert_same(next(iterator), dataset[step])


def test_iterator_starts_at_any_step():
    dataset = make_dataset(numbers(), seed=3, batch_size=4, transform=Noise())
    assert_same(next(make_iterator(dataset, start_step=1234)), dataset[1234])


def test_state_survives_json_and_resumes_at_the_same_batch():
    dataset = make_dataset(numbers(), seed=3, batch_size=4, transform=Noise())
    iterator = make_iterator(dataset)
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(6)]
    resumed = make_iterator(dataset)
    resumed.set_state(state)
    for batch in expected:
        assert_same(next(resumed), batch)


def test_grain_finds_equal_output_after_every_checkpoint():
    dataset = make_dataset(numbers(), seed=3, batch_size=3, transform=Noise(), repeat=False)
    grain.experimental.assert_equal_output_after_checkpoint(dataset.to_iter_dataset())


def test_rows_of_a_batch_are_what_the_whole_batch_has_there():
    whole = make_dataset(numbers(), seed=2, batch_size=6, transform=Noise())
    for rows in ([0, 1], [2, 3, 5], np.array([4])):
        part = make_dataset(numbers(), seed=2, batch_size=6, transform=Noise(), rows=rows)
        read = list(itertools.islice(make_iterator(part, start_step=2), 5))
        for step, batch in enumerate(read, start=2):
            assert batch["index"].tolist() == whole[step]["index"][rows].tolist()
            assert batch["noise"].tolist() == whole[step]["noise"][rows].tolist()


def test_rows_of_others_are_never_made():
    made = []

    def note(row):
        made.append(int(row["index"]))
        return row

    options = {"seed": 0, "batch_size": 4, "shuffle": False, "repeat": False, "transform": note}
    dataset = make_dataset(numbers(10), rows=[1, 2], **options)
    assert [batch["index"].tolist() for batch in make_iterator(dataset, num_threads=0)] == [[1, 2], [5, 6]]
    assert made == [1, 2, 5, 6]


def test_transform_is_applied_to_each_example():
    dataset = make_dataset(
        numbers(4), seed=0, batch_size=4, shuffle=False, transform=lambda row: {"square": row["index"] ** 2}
    )
    np.testing.assert_array_equal(dataset[0]["square"], [0, 1, 4, 9])


def test_collate_stacks_numbers_and_lists_the_rest():
    examples = [
        {
            "pixels": np.full((2, 3), value, np.uint8),
            "weight": np.float32(value),
            "text": "ab",
            "spans": [(0, value)],
        }
        for value in (1, 2)
    ]
    batch = collate(examples)
    assert batch["pixels"].shape == (2, 2, 3)
    assert batch["pixels"].dtype == np.uint8
    assert batch["weight"].dtype == np.float32
    assert batch["text"] == ["ab", "ab"]
    assert batch["spans"] == [[(0, 1)], [(0, 2)]]


def test_collate_names_the_field_whose_shapes_differ():
    with pytest.raises(ValueError, match=r"'tokens' has the shapes \[\(2,\), \(3,\)\]"):
        collate([{"tokens": np.zeros(3)}, {"tokens": np.zeros(2)}])


def test_collate_refuses_examples_with_different_fields():
    with pytest.raises(ValueError, match="different fields"):
        collate([{"a": 1}, {"b": 1}])


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"rows": [2]}, {"rows": [-1]}, {"rows": []}],
)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="bad batch_size"):
        make_dataset(numbers(), **{"seed": 0, "batch_size": 2, **options})


def test_empty_source():
    with pytest.raises(ValueError, match="no examples"):
        make_dataset([], seed=0, batch_size=2)
