import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.graph import uses
from sparsejax.layers import leaves_with_paths
from sparsejax.models.layers import Depthwise
from sparsejax.models.mobilenet_v1 import mobilenet_v1


def abstract(*args, **options):
    return nnx.eval_shape(lambda: mobilenet_v1(*args, **options, rngs=nnx.Rngs(0)))


def parameters(model):
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {path: leaf.shape for path, leaf in leaves_with_paths(params)}


# 4,231,976 and 1,331,592 are the trainable parameters that Keras reports.
@pytest.mark.parametrize(("width", "size"), [(1.0, 4_231_976), (0.5, 1_331_592)])
def test_published_sizes(width, size):
    found = parameters(abstract((224, 224, 3), 1000, width=width))
    assert sum(np.prod(shape) for shape in found.values()) == size


def test_multiplications_of_the_paper():
    graph, state = nnx.split(abstract((224, 224, 3), 1000))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    found = uses(lambda state, x: nnx.merge(graph, state)(x), state, images)
    total = sum(use.macs for use in found)
    assert round(total / 1e6) == 569, "million, table 8 of Howard et al., 2017"
    depthwise = [use for use in found if "depthwise" in use.path]
    assert len(depthwise) == 13
    assert all(use.weights_per_output == 9 for use in depthwise)


def test_depthwise_kernels_stay_dense():
    model = abstract((32, 32, 3), 10, stem="small")
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = sj.rigl(optax.sgd(0.1), sparsity=0.9, stop=100)
    state = jax.eval_shape(tx.init, params)
    masked = [path for path, _ in leaves_with_paths(sj.masks(state))]
    masked = [path for path in masked if path.endswith("kernel")]
    assert not any("depthwise" in path for path in masked)
    assert sum("pointwise" in path for path in masked) == 13


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 7, 6, 5), (1, 8, 8, 3)])
def test_both_forms_of_the_depthwise_convolution_agree(stride, shape):
    layer = Depthwise(shape[-1], stride, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), shape)
    kernel = layer.kernel.get_value()
    np.testing.assert_allclose(
        layer._shifted(images, kernel), layer._grouped(images, kernel), atol=1e-5
    )
    np.testing.assert_array_equal(layer(images), layer._shifted(images, kernel))


@pytest.mark.parametrize(
    ("stem", "side", "left"), [("imagenet", 64, 2), ("small", 32, 8), ("small", 8, 2)]
)
def test_strides(stem, side, left):
    graph, state = nnx.split(abstract((side, side, 3), 10, stem=stem, width=0.25))

    def run(state, images):
        model = nnx.merge(graph, state)
        hidden = model.stem(images)
        for index in range(13):
            hidden = getattr(model, f"block{index}")(hidden)
        return hidden

    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    assert jax.eval_shape(run, state, images).shape == (1, left, left, 256)


def test_bfloat16_keeps_float32_parameters_and_logits():
    graph, state = nnx.split(
        abstract((8, 8, 1), 10, stem="small", width=0.25, dtype="bfloat16")
    )

    def run(state, images):
        model = nnx.merge(graph, state)
        return model.stem(images), model(images, train=True), nnx.state(model)

    images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    convolved, logits, new_state = jax.eval_shape(run, state, images)
    assert (convolved.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(new_state)} == {jnp.dtype("float32")}


def test_bad_arguments():
    with pytest.raises(ValueError, match="width = 0: use a number above 0"):
        mobilenet_v1((8, 8, 1), 10, width=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="stem = 'tiny': use one of"):
        mobilenet_v1((8, 8, 1), 10, stem="tiny", rngs=nnx.Rngs(0))
