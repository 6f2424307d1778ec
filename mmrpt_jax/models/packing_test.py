import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.packing import EMPTY, pack, pack_rows, unpack
from mmrpt_jax.models.places import BranchTokens
from mmrpt_jax.models.vlm_test import CONFIG, LOCAL, VARIANT, make_batch, random_parameters

# As in `make_batch`: the second group has a branch that fills a row alone.
LENGTHS = np.array([[5, 3, 1], [2, 5, 4]])


def test_branches_are_packed_longest_first_where_there_is_room():
    slots = pack_rows(np.array([[2, 5, 1, 3], [0, 4, 0, 1]]), 5, (1, 2, 3, 4))
    # Slot g·5 + r. In the first group 5 fills a row; 3 and 2 fill one; 1 needs a third.
    e = EMPTY
    np.testing.assert_array_equal(slots[0], [[5, 6, 7, 8, 9], [15, 16, 17, 0, 1], [10, e, e, e, e]])
    np.testing.assert_array_equal(slots[1], [[5, 6, 7, 8, 15], [e] * 5, [e] * 5])


@pytest.mark.parametrize("seed", range(20))
def test_every_token_stands_in_one_row_behind_the_one_before_it(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, (4, 8))
    slots = pack_rows(lengths, 8, (2, 4, 6, 8))
    for group, own in zip(slots, lengths, strict=True):
        expected = {g * 8 + r for g, length in enumerate(own) for r in range(length)}
        found = group[group != EMPTY]
        assert set(found) == expected and len(found) == len(expected)
        for row in group:
            for before, slot in itertools.pairwise(row):
                assert slot in (before + 1, EMPTY) or slot % 8 == 0
                assert before != EMPTY or slot == EMPTY


def test_the_fewest_rows_that_suffice_are_taken():
    lengths = np.array([[4, 4, 4, 1], [1, 1, 1, 1]])
    assert pack_rows(lengths, 5, (2, 3, 4)).shape == (2, 3, 5)
    assert pack_rows(lengths, 5, (4,)).shape == (2, 4, 5)
    assert pack_rows(lengths, 5, (2,)) is None
    assert pack_rows(np.zeros((1, 4), int), 5, (1, 4)).shape == (1, 1, 5)


def test_what_is_packed_comes_back():
    _, _, branches = make_batch()
    slots = pack_rows(LENGTHS, 5, (2, 3))
    rows = pack(branches, slots)
    assert rows.valid.sum() == LENGTHS.sum()
    back = unpack(rows.ids.astype(np.float32), slots, 3)
    np.testing.assert_array_equal(back, np.where(branches.valid, branches.ids, 0))


@pytest.mark.parametrize("config", [CONFIG, VARIANT], ids=["plain", "options"])
def test_packed_branches_score_and_learn_as_in_rows_of_their_own(config):
    params, batch = random_parameters(config), make_batch()
    valid = batch[2].valid
    slots = {"alone": None, "packed": pack_rows(LENGTHS, 5, (3,))}
    assert slots["packed"].shape[1] == 3 and (slots["packed"][0, 2] == EMPTY).all()

    @jax.jit
    def evaluate(params, packing):
        def loss(params):
            out = forward(config, params, *batch, packing)
            probe = jnp.where(valid, jnp.sin(jnp.arange(valid.size).reshape(valid.shape)), 0.0)
            return jnp.sum(probe * (out.logprobs + out.entropy)), out

        return jax.value_and_grad(loss, has_aux=True)(params)

    ((_, alone), gradients), ((_, packed), of_packed) = (evaluate(params, x) for x in slots.values())
    for found, expected in zip(packed[:2], alone[:2], strict=True):
        np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found[~valid], 0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), of_packed, gradients)


def test_a_branch_is_alone_in_its_row():
    """Whatever stands beside it."""
    params, (images, prompt, branches) = random_parameters(CONFIG), make_batch()
    slots = pack_rows(LENGTHS, 5, (3,))
    run = jax.jit(
        lambda params, ids: (
            forward(CONFIG, params, images, prompt, BranchTokens(ids, branches.valid), slots).logprobs
        )
    )
    # The second and the third branch of the first group share a row.
    assert {5, 10} <= set(slots[0, 1])
    others = branches.ids.copy()
    others[0, 1] += 1
    before, after = run(params, branches.ids), run(params, others)
    np.testing.assert_array_equal(before[0, 2], after[0, 2])
    assert not np.allclose(before[0, 1, :3], after[0, 1, :3])


def test_what_cannot_be_packed():
    params, batch = random_parameters(LOCAL), make_batch()
    slots = pack_rows(LENGTHS, 5, (3,))
    with pytest.raises(ValueError, match="do not pack"):
        forward(LOCAL, params, *batch, slots)
    regions = np.ones((2, 12, 1), np.float32)
    with pytest.raises(ValueError, match="rows of their own"):
        forward(CONFIG, random_parameters(CONFIG), *batch, slots, regions=regions)


@pytest.mark.parametrize("remat", ["keep_attention", "full"])
def test_recomputing_changes_nothing(remat):
    params, batch = random_parameters(CONFIG), make_batch()
    slots = pack_rows(LENGTHS, 5, (3,))

    def gradients(config):
        def loss(params):
            logprobs = forward(config, params, *batch, slots).logprobs
            return jnp.sum(jnp.where(batch[2].valid, logprobs, 0.0))

        return jax.jit(jax.grad(loss))(params)

    again = dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder, remat=remat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients(again),
        gradients(CONFIG),
    )
