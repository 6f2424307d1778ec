import jax
import numpy as np

from mmrpt_jax.training.compilations import compilations


def test_new_shapes_compile_and_known_ones_do_not():
    twice = jax.jit(lambda x: x * 2)
    before = compilations()
    twice(np.ones(3))
    assert compilations() == before + 1
    twice(np.zeros(3))
    assert compilations() == before + 1
    twice(np.ones(4))
    assert compilations() == before + 2
