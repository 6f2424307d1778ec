import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.packing import pack, pack_lengths, unpack
from mmrpt_jax.models.places import EMPTY, BranchTokens
from mmrpt_jax.models.vlm_test import CONFIG, LOCAL, VARIANT, make_batch, random_parameters

# As in `make_batch`; a bucket that leaves room in both rows.
LENGTHS, BUCKETS = np.array([[5, 3, 1], [2, 5, 4]]), (3, 13, 14)


@pytest.fixture(scope="module")
def packing():
    return pack_lengths(LENGTHS, BUCKETS)


def test_branches_stand_one_behind_the_other(packing):
    e = EMPTY
    np.testing.assert_array_equal(
        packing.branch, [[0, 0, 0, 0, 0, 1, 1, 1, 2, e, e, e, e], [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, e, e]]
    )
    np.testing.assert_array_equal(
        packing.step, [[0, 1, 2, 3, 4, 0, 1, 2, 0, e, e, e, e], [0, 1, 0, 1, 2, 3, 4, 0, 1, 2, 3, e, e]]
    )


def test_the_shortest_row_that_suffices_is_taken():
    lengths = np.array([[4, 0, 4], [1, 1, 1]])
    assert pack_lengths(lengths, (9, 8, 10)).branch.shape == (2, 8)
    assert pack_lengths(lengths, (7, 9)).branch.shape == (2, 9)
    assert pack_lengths(lengths, (7,)) is None
    assert pack_lengths(lengths, ()) is None
    assert set(pack_lengths(np.zeros((1, 3), int), (2,)).branch.flat) == {EMPTY}


def test_a_branch_of_no_length_takes_no_room():
    found = pack_lengths(np.array([[2, 0, 1]]), (3,))
    np.testing.assert_array_equal(found.branch, [[0, 0, 2]])
    np.testing.assert_array_equal(found.step, [[0, 1, 0]])


def test_what_is_packed_comes_back(packing):
    _, _, branches = make_batch()
    rows = pack(branches, packing)
    assert rows.ids.shape == (2, 1, 13)
    back = unpack(rows.ids.astype(np.float32), packing, branches)
    np.testing.assert_array_equal(back, np.where(branches.valid, branches.ids, 0))


def evaluator(config, valid):
    """Scores and gradients of branches, packed or not."""

    @jax.jit
    def evaluate(params, batch, packing):
        def loss(params):
            out = forward(config, params, *batch, packing)
            probe = jnp.where(valid, jnp.sin(jnp.arange(valid.size).reshape(valid.shape)), 0.0)
            return jnp.sum(probe * (out.logprobs + out.entropy)), out

        (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return (out.logprobs, out.entropy), gradients

    return evaluate


@pytest.mark.parametrize("config", [CONFIG, VARIANT], ids=["plain", "options"])
def test_packed_branches_score_and_learn_as_in_rows_of_their_own(config, packing):
    params, batch = random_parameters(config), make_batch()
    valid = batch[2].valid
    evaluate = evaluator(config, valid)
    (alone, gradients), (packed, of_packed) = (evaluate(params, batch, how) for how in (None, packing))
    for found, expected in zip(packed, alone, strict=True):
        np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found[~valid], 0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), of_packed, gradients)


def test_a_branch_does_not_see_the_one_before_it(packing):
    params, (images, prompt, branches) = random_parameters(CONFIG), make_batch()
    run = jax.jit(
        lambda params, ids: (
            forward(CONFIG, params, images, prompt, BranchTokens(ids, branches.valid), packing).logprobs
        )
    )
    others = branches.ids.copy()
    others[0, 1] += 1
    before, after = run(params, branches.ids), run(params, others)
    np.testing.assert_array_equal(before[0, 2], after[0, 2])
    assert not np.allclose(before[0, 1, :3], after[0, 1, :3])


def test_what_cannot_be_packed(packing):
    params, batch = random_parameters(LOCAL), make_batch()
    with pytest.raises(ValueError, match="do not pack"):
        forward(LOCAL, params, *batch, packing)
    regions = np.ones((2, 12, 1), np.float32)
    with pytest.raises(ValueError, match="rows of their own"):
        forward(CONFIG, random_parameters(CONFIG), *batch, packing, regions=regions)


@pytest.mark.parametrize("remat", ["keep_attention", "full"])
def test_recomputing_changes_nothing(remat, packing):
    params, batch = random_parameters(CONFIG), make_batch()
    again = dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder, remat=remat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *(evaluator(config, batch[2].valid)(params, batch, packing) for config in (again, CONFIG)),
    )
