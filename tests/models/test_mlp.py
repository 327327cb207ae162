import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.layers import leaves_with_paths
from sparsejax.models.mlp import mlp


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def test_names_and_shapes():
    model = nnx.eval_shape(lambda: mlp((8, 8, 1), 10, rngs=nnx.Rngs(0)))
    shapes = {path: x.shape for path, x in leaves_with_paths(parameters(model))}
    assert shapes == {
        "hidden0/kernel": (64, 128),
        "hidden0/bias": (128,),
        "hidden1/kernel": (128, 128),
        "hidden1/bias": (128,),
        "head/kernel": (128, 10),
        "head/bias": (10,),
    }


def test_computes_affine_maps_with_relu_between():
    model = mlp((2, 3), 4, hidden=(5,), rngs=nnx.Rngs(1))
    params = jax.tree.map(np.asarray, parameters(model))
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    first, last = params["hidden0"], params["head"]
    hidden = np.maximum(x.reshape(7, 6) @ first["kernel"] + first["bias"], 0)
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(model(jnp.asarray(x), train=True), expected, atol=1e-5)


def test_hidden_kernels_have_he_variance_and_the_head_unit_gain():
    model = mlp((400,), 300, hidden=(300,), rngs=nnx.Rngs(0))
    params = parameters(model)
    assert np.std(params["hidden0"]["kernel"]) == pytest.approx(
        np.sqrt(2 / 400), rel=0.02
    )
    assert np.std(params["head"]["kernel"]) == pytest.approx(np.sqrt(1 / 300), rel=0.02)


def test_bfloat16_computes_so_but_keeps_float32_parameters_and_logits():
    model = mlp((4,), 3, hidden=(8,), dtype="bfloat16", rngs=nnx.Rngs(0))
    x = jnp.ones((1, 4))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters(model))} == {
        jnp.dtype("float32")
    }
    assert model(x).dtype == jnp.float32
    np.testing.assert_array_equal(model(x), model(x).astype(jnp.bfloat16))


def test_width_below_one_is_rejected():
    with pytest.raises(ValueError, match=r"hidden = \(8, 0\) has a width below 1"):
        mlp((4,), 3, hidden=(8, 0), rngs=nnx.Rngs(0))
