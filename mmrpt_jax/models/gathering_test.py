import re

import jax
import numpy as np
import pytest

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.gathering import with_gathered_weights
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.models.vlm_test import CONFIG, make_batch, random_parameters
from mmrpt_jax.sampling import make_rollout


def sampled(rollout, mesh):
    """What a rollout samples under a mesh, and the collectives that its compiled program has, by kind."""
    images, prompt, _ = make_batch()
    inputs = jax.tree.map(lambda x: np.tile(x, (4, *[1] * (x.ndim - 1))), (images, prompt))
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_parameters(CONFIG, mesh))
    arguments = (
        jax.device_put(random_parameters(CONFIG), places),
        *jax.device_put(inputs, batch_sharding(mesh)),
        jax.random.key(0),
    )
    with jax.set_mesh(mesh):
        compiled = jax.jit(rollout).lower(*arguments).compile()
        found = compiled(*arguments)
    # Whatever a loop repeats stands in a computation of its own, which is named "region" or "body".
    repeated = [part for part in compiled.as_text().split("\n\n") if re.match(r"%\S*(region|body)", part)]
    return jax.device_get(found), sum(len(re.findall(r" all-(?:reduce|gather)", part)) for part in repeated)


@pytest.mark.parametrize("layout", [(1, 8, 1), (2, 4, 1), (2, 2, 2)])
def test_the_same_tokens_without_fetching_weights_for_each(layout):
    rollout = make_rollout(CONFIG, group_size=2, max_tokens=4, end_ids=())
    mesh = make_mesh(*layout)
    plain, among = sampled(rollout, mesh)
    gathered, left = sampled(with_gathered_weights(rollout, CONFIG), mesh)
    np.testing.assert_array_equal(gathered.ids, plain.ids)
    np.testing.assert_allclose(gathered.logprobs, plain.logprobs, rtol=1e-5, atol=1e-5)
    assert left < among


def test_without_a_mesh_weights_stay_where_they_are():
    params = random_parameters(CONFIG)
    assert with_gathered_weights(lambda given: given, CONFIG)(params) is params
