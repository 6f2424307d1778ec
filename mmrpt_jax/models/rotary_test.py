import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.config import RotaryConfig, TransformerConfig
from mmrpt_jax.models.rotary import rotary_axes, rotary_frequencies, rotate


def turn(x, positions, config):
    pairs = x.shape[-1] // 2
    return rotate(x, positions, rotary_frequencies(config, pairs), rotary_axes(config, pairs))


def test_rotate_turns_pairs_as_complex_numbers():
    positions = np.array([[0, 1, 5], [7, 300, 2]])
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 6)).astype(np.float32)
    turned = turn(x, positions, RotaryConfig(100.0))
    frequencies = 100.0 ** (-np.array([0, 2, 4]) / 6)
    phase = np.exp(1j * positions[..., None, None] * frequencies)
    expected = (x[..., :3] + 1j * x[..., 3:]) * phase
    np.testing.assert_allclose(turned, np.concatenate([expected.real, expected.imag], -1), atol=1e-4)
    np.testing.assert_array_equal(turned[0, 0], x[0, 0])


def test_rotated_products_depend_on_the_distance_alone():
    query, key = np.random.default_rng(3).normal(size=(2, 1, 1, 8)).astype(np.float32)

    def product(query_position, key_position):
        at = lambda x, position: turn(x, np.array([position]), RotaryConfig())  # noqa: E731
        return float(jnp.sum(at(query, query_position) * at(key, key_position)))

    assert product(9, 4) == pytest.approx(product(105, 100), abs=1e-4)
    assert abs(product(9, 4) - product(9, 5)) > 1e-2


def phases(config, pairs):
    """Radians that every pair turns when one axis moves by one place: [axes pairs]."""
    x = jnp.concatenate([jnp.ones((1, 1, pairs)), jnp.zeros((1, 1, pairs))], axis=-1)
    turned = [turn(x, np.eye(len(config.sections), dtype=int)[axis][None], config)[0, 0] for axis in range(3)]
    return np.array([np.arctan2(x[pairs:], x[:pairs]) for x in turned])


# Of six pairs that turn by 1, 1/2, 1/4, ...: which axis turns which.
LAYOUTS = {
    "chunked": [[0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 4, 5]],
    "interleaved": [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]],
    "restarted": [[0, 0, 1, 1, 1, 2], [0, 3, 0, 2, 4, 0]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    axes, exponents = map(np.array, LAYOUTS[layout])
    sections = {"interleaved": (3, 2, 1)}.get(layout, (2, 3, 1))
    expected = np.where(axes == np.arange(3)[:, None], 0.5**exponents, 0.0)
    np.testing.assert_allclose(phases(RotaryConfig(64.0, sections, layout), 6), expected, atol=1e-6)


def test_equal_positions_on_all_axes_need_no_axes():
    x = np.random.default_rng(4).normal(size=(2, 3, 1, 12)).astype(np.float32)
    positions = np.array([[0, 1, 5], [7, 300, 2]])
    config = RotaryConfig(100.0, (2, 3, 1), "interleaved")
    spread = np.broadcast_to(positions[..., None], (2, 3, 3))
    np.testing.assert_array_equal(turn(x, positions, config), turn(x, spread, config))


def test_stretched_positions_turn_less():
    x = np.random.default_rng(5).normal(size=(4, 1, 8)).astype(np.float32)
    positions = np.arange(4)
    stretched = turn(x, 8 * positions, RotaryConfig(100.0, stretch=8.0))
    np.testing.assert_allclose(stretched, turn(x, positions, RotaryConfig(100.0)), atol=1e-5)


def test_a_band_of_frequencies_is_stretched_in_part():
    # Frequencies 1, 1/10, 1/100, 1/1000 radians per position; the band goes from 0.01 to 0.19.
    config = RotaryConfig(10_000.0, stretch=4.0, stretch_band=(0.01, 0.19))
    # The first is above the band, the second in its middle, the third at its edge, the last below.
    expected = [1.0, 0.5 * 0.1 + 0.5 * 0.025, 0.0025, 0.00025]
    np.testing.assert_allclose(rotary_frequencies(config, 4), expected, rtol=1e-6)


def test_sections_must_fill_the_head():
    sizes = dict(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8)
    with pytest.raises(ValueError, match=r"sections \(1, 2\) must add up to half of head_dim \(8\)"):
        TransformerConfig(rope=RotaryConfig(sections=(1, 2)), **sizes)
    with pytest.raises(ValueError, match="layout is 'mixed'; it must be one of 'chunked', 'inter"):
        RotaryConfig(layout="mixed")
