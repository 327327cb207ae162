"""Wrapped diagonals: golden entries for tall and wide matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.layers import Layer, by_name
from sparsejax.structures.diagonal import diagonal_offsets


def layer_of(shape, path="kernel"):
    return Layer(path, shape, by_name()(path, shape))


def chosen(shape, entry):
    """The diagonal through one entry of ``[neurons, inputs]``, as entries of it."""
    layer = layer_of(shape[::-1])
    scores = jnp.zeros(shape).at[entry].set(1.0).T
    [mask] = sj.diagonal().select([layer], [scores], [jnp.int32(min(shape))])
    return [tuple(one) for one in np.argwhere(np.asarray(mask).T).tolist()]


def test_golden_diagonal_of_a_tall_matrix():
    # Diagonal 2 of 4 neurons by 3 inputs.
    assert chosen((4, 3), (2, 0)) == [(0, 2), (2, 0), (3, 1)]


def test_a_wide_matrix_wraps_around_its_inputs():
    assert chosen((3, 4), (0, 2)) == [(0, 2), (1, 3), (2, 0)]


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (5, 5), (1, 6), (6, 1)])
def test_diagonals_partition_the_matrix(shape):
    layer = layer_of(shape[::-1])
    offsets = diagonal_offsets(layer)
    assert offsets.shape == shape
    assert (np.bincount(offsets.reshape(-1)) == min(shape)).all()
    assert offsets.max() + 1 == max(shape)


def test_square_matrices_have_one_fan_in_and_one_fan_out():
    layer = layer_of((6, 6))
    scores = jnp.asarray(np.random.default_rng(0).random((6, 6), np.float32))
    [mask] = sj.diagonal().select([layer], [scores], [jnp.int32(18)])
    assert mask.sum(axis=0).tolist() == [3] * 6
    assert mask.sum(axis=1).tolist() == [3] * 6


def test_the_orientation_is_that_of_neurons():
    scores = jnp.zeros((3, 4)).at[0, 2].set(1.0)
    structure = sj.diagonal()
    [flax] = structure.select([layer_of((4, 3))], [scores.T], [jnp.int32(3)])
    [equinox] = structure.select([layer_of((3, 4), "weight")], [scores], [jnp.int32(3)])
    np.testing.assert_array_equal(flax.T, equinox)


def test_budgets_are_rounded_to_whole_diagonals_or_refused():
    structure, layer = sj.diagonal(), layer_of((8, 4))
    assert structure.fit([layer], [(13,)]) == [(12,)]
    assert structure.fit([layer], [(32,)]) == [(32,)]
    with pytest.raises(ValueError, match=r"may keep 1 weights.*diagonal.*4"):
        structure.fit([layer], [(1,)])
