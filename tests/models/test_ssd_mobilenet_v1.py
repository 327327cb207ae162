import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax import recipes
from sparsejax.graph import uses
from sparsejax.layers import leaves_with_paths
from sparsejax.models.ssd_mobilenet_v1 import ssd_mobilenet_v1


def abstract(*args, **options):
    return nnx.eval_shape(lambda: ssd_mobilenet_v1(*args, **options, rngs=nnx.Rngs(0)))


def parameters(model):
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {path: leaf.shape for path, leaf in leaves_with_paths(params)}


def test_published_size_and_multiplications():
    """5.1 M parameters and 1.3 G of SSDLite on MobileNetV1 (Sandler et al., 2018).

    Theirs has three anchors in each cell of the finest map, ours has six.
    """
    graph, state = nnx.split(model := abstract((320, 320, 3), 80))
    images = jax.ShapeDtypeStruct((1, 320, 320, 3), jnp.float32)
    found = uses(lambda state, x: nnx.merge(graph, state)(x), state, images)
    finest = 512 * 6 * (81 + 4)
    size = sum(np.prod(shape) for shape in parameters(model).values())
    assert round((size - finest / 2) / 1e6, 1) == 5.1
    macs = sum(use.macs for use in found)
    assert round((macs - 20 * 20 * finest / 2) / 1e9, 1) == 1.3


@pytest.mark.parametrize(
    ("side", "options", "grids"),
    [
        (300, {"width": 0.5}, (19, 10, 5, 3, 2, 1)),
        (96, {"stem": "small"}, (12, 6, 3, 2)),
    ],
)
def test_there_is_an_anchor_for_every_prediction(side, options, grids):
    model = abstract((side, side, 1), 7, **options)
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
    run = jax.eval_shape(lambda s, x: nnx.merge(graph, s)(x), state, images)
    anchors = model.anchors()
    assert run.shape == (2, len(anchors), 12)
    assert len(anchors) == 6 * sum(n * n for n in grids)
    # Neighbouring cells of the finest map are neighbours in the image.
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [(0.5 / grids[0], x / grids[0]) for x in (0.5, 1.5)]
    np.testing.assert_allclose(centres[[0, 6]], expected, rtol=1e-5)


@pytest.mark.slow
def test_predictions_are_in_the_order_of_the_anchors():
    """What is seen in one corner of the image moves the anchors of that corner most."""
    options = {"stem": "small", "width": 0.1}
    empty = jnp.zeros((1, 64, 64, 1))
    seen = empty.at[0, 48:60, 4:16].set(5.0)

    @jax.jit
    def run(images):
        model = ssd_mobilenet_v1((64, 64, 1), 3, **options, rngs=nnx.Rngs(0))
        return model(images)

    change = np.diff(np.asarray(run(jnp.concatenate([empty, seen]))), axis=0)
    change = np.abs(change)[0].sum(axis=-1)
    finest = change[: 8 * 8 * 6].reshape(8, 8, 6).sum(axis=-1)
    row, column = np.unravel_index(finest.argmax(), finest.shape)
    assert row >= 5 and column <= 2


def test_the_recipe_leaves_first_and_depthwise_kernels_dense():
    where = recipes.ssd_mobilenet_v1("rigl").method.where
    model = abstract((64, 64, 1), 10, stem="small", width=0.25)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = sj.rigl(optax.sgd(0.1), sparsity=0.9, stop=100, where=where)
    masks = leaves_with_paths(sj.masks(jax.eval_shape(tx.init, params)))
    kernels = {path for path, shape in parameters(model).items() if len(shape) == 4}
    dense = {p for p in kernels if p.startswith("stem/") or "depthwise" in p}
    assert len(dense) == 1 + 13 + 1 + 8
    assert {path for path, _ in masks} == kernels - dense


def test_bad_arguments():
    with pytest.raises(ValueError, match="width = 0: use a number above 0"):
        ssd_mobilenet_v1((64, 64, 1), 10, width=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="stem = 'tiny': use one of"):
        ssd_mobilenet_v1((64, 64, 1), 10, stem="tiny", rngs=nnx.Rngs(0))
