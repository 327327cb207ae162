import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.initialization import (
    fan_in_corrected,
    gradient_flow,
    srigl_gradient_flow,
)
from sparsejax.layers import equinox


def masked_layer(inputs_per_neuron, fan_in=512, neurons=400):
    """A mask with the same number of inputs, at random places, for every neuron."""
    ranks = jax.random.uniform(jax.random.key(1), (fan_in, neurons)).argsort(axis=0)
    return ranks < inputs_per_neuron


def deviation(weights, mask):
    return float(jnp.std(weights[mask]))


def test_he_values_get_the_deviation_of_their_own_fan_in():
    mask = masked_layer(64)
    dense = jax.random.normal(jax.random.key(0), mask.shape) * np.sqrt(2 / 512)
    new = fan_in_corrected({"kernel": dense}, {"kernel": mask})["kernel"]
    assert deviation(new, mask) == pytest.approx(0.17678, rel=0.02)
    np.testing.assert_allclose(new, dense * np.sqrt(8), rtol=1e-6)


def test_both_gradient_flows_at_64_inputs():
    mask = masked_layer(64)
    params, masks = {"kernel": jnp.zeros(mask.shape)}, {"kernel": mask}
    paper = gradient_flow(params, masks, key=jax.random.key(0))["kernel"]
    released = srigl_gradient_flow(params, masks, key=jax.random.key(0))["kernel"]
    assert deviation(paper, mask) == pytest.approx(0.17678, rel=0.02)
    assert deviation(released, mask) == pytest.approx(0.03125, rel=0.02)
    assert not paper[~mask].any()
    assert not released[~mask].any()


def test_each_neuron_by_its_own_inputs_and_none_without():
    mask = jnp.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    new = fan_in_corrected({"kernel": jnp.ones((4, 3))}, {"kernel": mask})["kernel"]
    np.testing.assert_allclose(new[0], [2.0, 1.0, 1.0])


def test_convolutions_sum_over_all_axes_but_the_last():
    mask = jnp.zeros((3, 3, 2, 5), bool).at[0, 0].set(True)
    new = fan_in_corrected({"kernel": jnp.ones(mask.shape)}, {"kernel": mask})
    np.testing.assert_allclose(new["kernel"], np.full(mask.shape, 3.0), rtol=1e-6)


def test_outputs_first_layouts():
    mask = jnp.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool)
    for name, layout in (("weight", None), ("kernel", equinox())):
        params, masks = {name: jnp.ones((2, 4))}, {name: mask}
        new = fan_in_corrected(params, masks, layout=layout)[name]
        np.testing.assert_allclose(new[:, 0], [2.0, 1.0])


def test_dense_leaves_and_dtypes_stay():
    params = {"a": {"kernel": jnp.ones((4, 2), jnp.bfloat16), "bias": jnp.ones(2)}}
    masks = {"a": {"kernel": jnp.ones((4, 2), bool).at[1:].set(False), "bias": None}}
    for new in (
        fan_in_corrected(params, masks),
        gradient_flow(params, masks, key=jax.random.key(0)),
    ):
        assert new["a"]["kernel"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(new["a"]["bias"], params["a"]["bias"])


def test_leaves_of_one_shape_get_different_values():
    params = {"a": jnp.zeros((4, 4)), "b": jnp.zeros((4, 4))}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    new = gradient_flow(params, masks, key=jax.random.key(0))
    assert not np.allclose(new["a"], new["b"])


def test_works_jitted_and_vmapped_over_masks():
    masks = {"kernel": jnp.stack([masked_layer(k, 16, 8) for k in (4, 16)])}
    params = {"kernel": jnp.ones((2, 16, 8))}
    new = jax.jit(jax.vmap(fan_in_corrected))(params, masks)["kernel"]
    np.testing.assert_allclose(new[:, 0, 0], [2.0, 1.0])
