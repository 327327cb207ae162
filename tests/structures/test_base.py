"""Rows of neurons: the view of a weight that all structures share."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.layers import Layer, by_name, equinox, flax
from sparsejax.structures.base import active_count, from_rows, to_rows

STACKED = {"stacked": {"blocks": 2}}
# Path, shape, layout, and where the row of neuron 1 is.
LEAVES = {
    "dense": ("kernel", (5, 3), flax(), lambda w: w[:, 1]),
    "convolution": ("kernel", (3, 2, 5, 4), flax(), lambda w: w[..., 1]),
    "query": ("query/kernel", (5, 2, 3), flax(), lambda w: w[:, 0, 1]),
    "attention out": ("out/kernel", (2, 3, 5), flax(), lambda w: w[..., 1]),
    "equinox linear": ("weight", (3, 5), equinox(), lambda w: w[1]),
    # Positions first and channels last, whatever the order in memory.
    "equinox convolution": (
        "weight",
        (4, 5, 3, 2),
        by_name(),
        lambda w: w[1].transpose(1, 2, 0),
    ),
    "stacked": (
        "blocks/kernel",
        (2, 3, 5, 4),
        flax(**STACKED),
        lambda w: w[..., 1].transpose(0, 1, 2),
    ),
    "stacked equinox": ("blocks/weight", (2, 3, 4, 5), by_name(**STACKED), None),
}


@pytest.mark.parametrize("name", LEAVES)
def test_rows_are_neurons_by_their_inputs(name):
    path, shape, layout, row_of_1 = LEAVES[name]
    layer = Layer(path, shape, layout(path, shape))
    weight = jnp.arange(layer.size).reshape(shape)
    rows = to_rows(layer, weight)
    assert rows.shape == (*layer.stacked_shape, layer.fan_out, layer.fan_in)
    np.testing.assert_array_equal(from_rows(layer, rows), weight)
    if row_of_1 is not None:
        want = np.asarray(row_of_1(weight)).reshape(*layer.stacked_shape, layer.fan_in)
        np.testing.assert_array_equal(rows[..., 1, :], want)
    else:
        np.testing.assert_array_equal(rows, weight)


def test_active_weights_are_counted_per_stacked_layer():
    layer = Layer("blocks", (2, 3, 4), flax(stacked={"blocks": 1})("blocks", (2, 3, 4)))
    mask = jnp.zeros((2, 3, 4), bool).at[0, :, 1].set(True).at[1, 0].set(True)
    assert active_count(layer, mask).tolist() == [3, 4]
