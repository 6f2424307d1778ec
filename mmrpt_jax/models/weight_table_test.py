import re

import jax
import numpy as np
import pytest

from mmrpt_jax.models.patches import patchify
from mmrpt_jax.models.weight_table import (
    AS_IS,
    TRANSPOSE,
    Weight,
    flatten,
    match_table,
    own_names,
    patches,
    permuted,
)

SIX = np.arange(6).reshape(2, 3)


def leaves(**shapes):
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}


def test_layouts_by_hand():
    assert AS_IS.to_ours(SIX) is SIX
    np.testing.assert_array_equal(TRANSPOSE.to_ours(SIX), [[0, 3], [1, 4], [2, 5]])
    # One input channel, one row, two columns; three outputs.
    kernel = np.array([[[[0, 1]]], [[[2, 3]]], [[[4, 5]]]])
    np.testing.assert_array_equal(permuted(2, 3, 1, 0).to_ours(kernel), [[[[0, 2, 4]], [[1, 3, 5]]]])


def test_patches_by_hand():
    # Two channels of 1 x 2 pixels, one output: numbers tell (channel, column).
    kernel = np.array([[[[00, 1]], [[10, 11]]]])
    assert patches((2, 1, 2), (0, 1, 2)).to_ours(kernel).tolist() == [[0], [1], [10], [11]]
    # Columns before channels.
    assert patches((2, 1, 2), (1, 2, 0)).to_ours(kernel).tolist() == [[0], [10], [1], [11]]
    # One channel, two frames, one row, two columns; two outputs, the second negative.
    film = np.array([[[[0, 1]], [[10, 11]]]])
    both = np.stack([film, -film])
    assert patches((1, 2, 1, 2), (0, 1, 2, 3)).to_ours(both).tolist() == [
        [0, 0],
        [1, -1],
        [10, -10],
        [11, -11],
    ]
    assert patches((1, 2, 1, 2), (2, 3, 1, 0)).to_ours(both).tolist() == [
        [0, 0],
        [10, -10],
        [1, -1],
        [11, -11],
    ]


def test_a_patch_matrix_is_the_convolution():
    rng = np.random.default_rng(0)
    kernel, images = rng.normal(size=(5, 3, 2, 2)), rng.normal(size=(1, 4, 6, 3))
    # XLA's convolution takes their kernel as it is.
    convolved = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    ours = patches((3, 2, 2), (1, 2, 0)).to_ours(kernel)
    np.testing.assert_allclose(patchify(images, 2) @ ours, convolved.reshape(1, 6, 5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (AS_IS, (4, 3)),
        (TRANSPOSE, (4, 3)),
        (permuted(2, 3, 1, 0), (5, 4, 3, 2)),
        (patches((3, 2, 2), (1, 2, 0)), (5, 3, 2, 2)),
        (patches((3, 2, 4, 4), (0, 1, 2, 3)), (5, 3, 2, 4, 4)),
        (patches((3, 2, 4, 4), (2, 3, 1, 0)), (5, 3, 2, 4, 4)),
    ],
)
def test_there_and_back(layout, shape):
    theirs = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(layout.to_theirs(layout.to_ours(theirs)), theirs)


def test_names_and_shapes_of_theirs():
    plain = Weight("head", "lm_head.weight", TRANSPOSE)
    assert plain.their_names((3, 7)) == ["lm_head.weight"]
    assert plain.their_shape((3, 7)) == (7, 3)
    stacked = Weight("up", "layers.{layer}.up.weight", TRANSPOSE)
    assert stacked.their_names((2, 3, 7)) == ["layers.0.up.weight", "layers.1.up.weight"]
    assert stacked.their_shape((2, 3, 7)) == (7, 3)
    assert stacked._replace(layers=(5, 11)).their_names((2, 3, 7)) == [
        "layers.5.up.weight",
        "layers.11.up.weight",
    ]
    fused = Weight("key", "layers.{layer}.qkv.weight", TRANSPOSE, part=(1, 3))
    assert fused.their_shape((2, 4, 4)) == (12, 4)
    kernel = Weight("patches", "proj.weight", patches((3, 2, 14, 14), (0, 1, 2, 3)))
    assert kernel.their_shape((3 * 2 * 14 * 14, 8)) == (8, 3, 2, 14, 14)
    assert Weight("scale", "logit_scale").their_shape(()) == ()


def test_parts_are_slices_of_the_first_axis():
    fused = np.arange(12).reshape(6, 2)
    middle = Weight("key", "qkv", TRANSPOSE, part=(1, 3))
    assert middle.to_ours(fused).tolist() == [[4, 6], [5, 7]]


def test_layers_that_do_not_add_up():
    weight = Weight("up", "layers.{layer}.up", layers=(1, 2, 3))
    with pytest.raises(ValueError, match="up stacks 2 layers, its table lists 3 of theirs"):
        weight.their_names((2, 4))


def test_own_names():
    tree = {"a": {"b.0": {"kernel": SIX}}, "c": SIX}
    assert list(flatten(tree)) == ["a/b.0/kernel", "c"]
    assert own_names(tree) == [Weight("a/b.0/kernel", "a.b.0.kernel"), Weight("c", "c")]


def test_entries_of_absent_weights_are_left_out():
    table = [Weight("kernel", "weight"), Weight("bias", "bias")]
    assert match_table(table, leaves(kernel=(2,))) == {"kernel": table[0]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([Weight("a", "x")], "one entry in the table of names, but b has 0"),
        ([Weight("a", "x"), Weight("a", "y"), Weight("b", "z")], "but a has 2"),
        ([Weight("a", "x", part=(0, 3)), Weight("b", "x", part=(2, 3))], "uses only some parts of x"),
        ([Weight("a", "x", part=(0, 2)), Weight("b", "x", part=(1, 3))], "uses only some parts of x"),
    ],
)
def test_tables_that_do_not_work_both_ways(table, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        match_table(table, leaves(a=(2,), b=(2,)))
