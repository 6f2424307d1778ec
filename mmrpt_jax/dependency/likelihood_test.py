import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy

from mmrpt_jax.dependency import likelihood

kl_divergence = jax.jit(likelihood.kl_divergence)
log_likelihood_ratio = jax.jit(likelihood.log_likelihood_ratio)
sampled_kl = jax.jit(likelihood.sampled_kl)


def test_log_likelihood_ratio_by_hand():
    gain = log_likelihood_ratio(jnp.log(jnp.asarray([0.8, 0.1])), jnp.log(jnp.asarray([0.2, 0.4])))
    np.testing.assert_allclose(gain, [np.log(4), -np.log(4)], rtol=1e-6)


def test_log_likelihood_ratio_subtracts_in_float32():
    gain = log_likelihood_ratio(jnp.asarray([-0.5], jnp.bfloat16), jnp.asarray([-8.03125], jnp.bfloat16))
    assert gain.dtype == jnp.float32
    np.testing.assert_allclose(gain, -0.5 - float(jnp.bfloat16(-8.03125)))


def test_kl_divergence_equals_scipy():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(11), size=(2, 3, 4))
    kl = kl_divergence(jnp.log(p) + 3.0, jnp.log(q) - 1.0)
    np.testing.assert_allclose(kl, entropy(p, q, axis=-1), rtol=1e-4)


def test_kl_divergence_is_not_symmetric_by_hand():
    p, q = jnp.log(jnp.asarray([[0.5, 0.5]])), jnp.log(jnp.asarray([[0.9, 0.1]]))
    np.testing.assert_allclose(kl_divergence(p, q), 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(5), rtol=1e-5)
    np.testing.assert_allclose(kl_divergence(q, p), 0.9 * np.log(1.8) + 0.1 * np.log(0.2), rtol=1e-5)


def test_kl_divergence_ignores_ids_banned_on_both_sides():
    p, q = jnp.asarray([1.0, 2.0, -jnp.inf]), jnp.asarray([2.0, 1.0, -jnp.inf])
    np.testing.assert_allclose(kl_divergence(p, q), kl_divergence(p[:2], q[:2]), rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: kl_divergence(x, q))(p)).all()


@pytest.mark.parametrize(("with_image", "expected"), [(0.0, np.inf), (-300.0, 0.0)])
def test_kl_divergence_where_only_the_blind_side_bans_an_id(with_image, expected):
    p, q = jnp.asarray([0.0, with_image]), jnp.asarray([0.0, -jnp.inf])
    np.testing.assert_allclose(kl_divergence(p, q), expected)


def test_sampled_kl_by_hand():
    with_image = jnp.log(jnp.asarray([0.5, 0.5, 0.5]))
    without = jnp.log(jnp.asarray([0.5, 0.25, 0.75]))
    expected = [0.0, 0.5 - np.log(0.5) - 1, 1.5 - np.log(1.5) - 1]
    np.testing.assert_allclose(sampled_kl(with_image, without), expected, atol=1e-6)


def test_sampled_kl_clamps():
    # Δ = 5: e^5 − 6 > 10. Δ = −30 is clamped to −20, then e^−20 + 19 to 10.
    np.testing.assert_allclose(
        sampled_kl(jnp.asarray([-6.0, -1.0]), jnp.asarray([-1.0, -31.0])), [10.0, 10.0]
    )
    unclipped = sampled_kl(jnp.asarray([-1.0]), jnp.asarray([-31.0]), max_value=100.0)
    np.testing.assert_allclose(unclipped, 19.0, rtol=1e-5)


def test_sampled_kl_is_unbiased_for_kl():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.3, 0.4])
    estimate = p @ np.asarray(sampled_kl(jnp.log(p), jnp.log(q)))
    np.testing.assert_allclose(estimate, entropy(p, q), rtol=1e-5)
