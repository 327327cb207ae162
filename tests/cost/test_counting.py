"""Costs against published numbers and hand arithmetic."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.cost import cost, training_cost
from sparsejax.distributions import erk, uniform
from sparsejax.layers import choose_layers, flax, matmul_weights

# The programs are those of users.
pytestmark = pytest.mark.usefixtures("implicit_promotion")

FIRST = "stem/conv/kernel"


@pytest.fixture(scope="module")
def resnet50():
    """The forward pass, parameters and further inputs of ResNet-50, as shapes only."""
    nnx = pytest.importorskip("flax.nnx")
    from sparsejax.models.resnet import resnet

    model = nnx.eval_shape(lambda: resnet((224, 224, 3), 1000, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def forward(params, rest, images):
        return nnx.merge(graph, params, rest)(images, False)

    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    return forward, nnx.to_pure_dict(params), (nnx.to_pure_dict(rest), images)


def budgets(params, distribution, sparsity):
    layers = choose_layers(params, where=matmul_weights, layout=flax())
    counts = distribution(layers, sparsity)
    return {
        layer.path: (sum(count), layer.size)
        for layer, count in zip(layers, counts, strict=True)
    }


@pytest.mark.parametrize(
    ("mode", "flops"), [("exact", 8_178_368_512), ("micronet", 8_202_340_776)]
)
def test_dense_resnet50(resnet50, mode, flops):
    forward, params, inputs = resnet50
    report = cost(forward, params, None, *inputs, mode=mode)
    assert report.dense_flops == report.sparse_flops == flops
    assert len(report.layers) == 54
    assert sum(layer.weights for layer in report.layers) == 25_502_912
    assert report.unattributed_flops == 0
    assert report.layers[0].path == FIRST
    assert report.layers[-1].path == "head/kernel"


@pytest.mark.parametrize(
    ("name", "sparsity", "exact", "micronet"),
    [
        ("uniform", 0.8, 1824.496e6, 1848.468e6),
        ("uniform", 0.9, 1030.262e6, 1054.234e6),
        ("erk", 0.8, 3384.178e6, 3406.320e6),
        ("erk", 0.9, 1977.848e6, 1994.388e6),
        ("erk", 0.95, 995.103e6, 1008.951e6),
        ("erk", 0.965, 696.580e6, 709.621e6),
    ],
)
def test_sparse_resnet50(resnet50, name, sparsity, exact, micronet):
    forward, params, inputs = resnet50
    distribution = erk() if name == "erk" else uniform(dense=[FIRST])
    counts = budgets(params, distribution, sparsity)
    for mode, flops in (("exact", exact), ("micronet", micronet)):
        report = cost(forward, params, counts, *inputs, mode=mode)
        assert report.sparse_flops == pytest.approx(flops, rel=1e-3)


def test_erk_leaves_eight_pointwise_layers_of_resnet50_dense(resnet50):
    forward, params, inputs = resnet50
    report = cost(forward, params, budgets(params, erk(), 0.8), *inputs)
    dense = [layer for layer in report.layers if layer.active == layer.weights]
    assert len(dense) == 8
    assert {layer.shape[:2] for layer in dense} == {(1, 1)}
    densities = {layer.path: layer.density for layer in report.layers}
    assert densities[FIRST] == pytest.approx(1 - 0.1428, abs=1e-4)
    assert densities["head/kernel"] == pytest.approx(1 - 0.8518, abs=1e-4)


def test_erk_budgets_of_resnet50_by_hand(resnet50):
    # Epsilon of 99.5617 at 80 %, as published: eps * sum(shape) weights a layer.
    forward, params, inputs = resnet50
    report = cost(forward, params, budgets(params, erk(), 0.8), *inputs)
    sparse = [layer for layer in report.layers if layer.active < layer.weights]
    assert len(sparse) == 46
    for layer in sparse:
        assert layer.active == pytest.approx(99.5617 * sum(layer.shape), rel=1e-4)


def test_activations_of_resnet50(resnet50):
    forward, params, inputs = resnet50
    report = cost(forward, params, None, *inputs)
    # The largest convolution's input and output, after the pooling of the stem:
    # 64 and 256 channels of 56x56, and the shortcut's 256.
    assert report.activation_bytes.peak == 56 * 56 * (64 + 256 + 256) * 4


def test_mobilenet_v1_comes_out_of_the_same_code():
    nnx = pytest.importorskip("flax.nnx")
    from sparsejax.models.mobilenet_v1 import mobilenet_v1

    model = nnx.eval_shape(lambda: mobilenet_v1((224, 224, 3), 1000, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = (nnx.to_pure_dict(tree) for tree in (params, rest))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    counts = budgets(params, uniform(dense=["stem/kernel"]), 0.9)

    def forward(params, rest, images):
        return nnx.merge(graph, params, rest)(images, False)

    report = cost(forward, params, counts, rest, images)
    # Howard et al., 2017: 569 million, and the shares of kinds of layers in table 2
    # (which has 1.19 for 1.91, and so does not add up to 100).
    assert round(report.dense_macs / 1e6) == 569
    kinds = {"depthwise": 0, "pointwise": 0, "stem": 0, "head": 0}
    for layer in report.layers:
        kinds[next(kind for kind in kinds if kind in layer.path)] += layer.dense_macs
    shares = [round(100 * macs / report.dense_macs, 2) for macs in kinds.values()]
    assert shares == pytest.approx([3.06, 94.86, 1.91, 0.18], abs=0.01)
    dense = [row.path for row in report.layers if row.active == row.weights]
    assert len(dense) == 14
    assert all("depthwise" in path or path == "stem/kernel" for path in dense)
    sparse = kinds["depthwise"] + kinds["stem"]
    sparse += (kinds["pointwise"] + kinds["head"]) / 10
    assert report.sparse_macs == pytest.approx(sparse, rel=1e-5)
    # Nominally 90 %, but of all weights 89 %.
    weights = sum(row.weights for row in report.layers)
    active = sum(row.active for row in report.layers)
    assert 1 - active / weights == pytest.approx(0.89, abs=0.003)


def test_examples_divide_flops_but_not_parameters():
    params = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}

    def forward(params, x):
        return x @ params["kernel"] + params["bias"]

    x = jax.ShapeDtypeStruct((32, 4), "float32")
    report = cost(forward, params, {"kernel": (6, 24)}, x, examples=32)
    assert (report.dense_flops, report.sparse_flops) == (48, 12)
    assert (report.dense_macs, report.sparse_macs) == (24, 6)
    assert (report.parameters, report.active_parameters) == (30, 12)
    assert report.ratio == 0.25


def test_masks_as_a_tree_and_as_counts_say_the_same():
    params = {"a": {"kernel": jnp.ones((4, 6))}, "b": {"kernel": jnp.ones((6, 2))}}
    mask = np.zeros((4, 6), bool)
    mask[1, :5] = True

    def forward(params, x):
        return x @ params["a"]["kernel"] @ params["b"]["kernel"]

    x = jax.ShapeDtypeStruct((1, 4), "float32")
    tree = {"a": {"kernel": mask}, "b": {"kernel": None}}
    reports = [
        cost(forward, params, masks, x)
        for masks in (tree, {"a/kernel": 5}, {"a/kernel": (5, 24)})
    ]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0].sparse_macs == 5 + 12


def test_shared_weights_cost_at_each_use_but_are_stored_once():
    def forward(w, x):
        return x @ w @ w

    x = jax.ShapeDtypeStruct((1, 4), "float32")
    report = cost(forward, jnp.ones((4, 4)), None, x)
    assert report.dense_macs == 32
    assert report.stored_bytes.dense == 64


def test_products_of_activations_cost_the_same_dense_and_sparse():
    def forward(params, x):
        h = x @ params["w"]
        return h @ h.T

    x = jax.ShapeDtypeStruct((2, 3), "float32")
    report = cost(forward, {"w": jnp.ones((3, 5))}, {"w": 3}, x, examples=2)
    assert report.unattributed_flops == 2 * 2 * 2 * 5 / 2
    assert report.dense_flops == 2 * 15 + 20
    assert report.sparse_flops == 2 * 3 + 20


def test_bytes():
    params = {"kernel": jnp.ones((300, 10)), "bias": jnp.ones(10, "bfloat16")}

    def forward(params, x):
        return x @ params["kernel"] + params["bias"]

    x = jax.ShapeDtypeStruct((1, 300), "float32")
    stored = cost(forward, params, {"kernel": 100}, x).stored_bytes
    dense = 3000 * 4 + 10 * 2
    assert stored.dense == dense
    assert stored.masked == dense + 3000
    assert stored.packed == dense + 375
    # A fan-in of 300 needs two bytes per index.
    assert stored.condensed == 100 * (4 + 2) + 20
    # 32-bit indices, and a pointer to each of ten rows and behind the last.
    assert stored.csr == 100 * (4 + 4) + 11 * 4 + 20
    small = {**params, "kernel": jnp.ones((256, 10))}
    x = jax.ShapeDtypeStruct((1, 256), "float32")
    assert cost(forward, small, {"kernel": 100}, x).stored_bytes.condensed == 520
    full = cost(forward, small, {"kernel": 2560}, x).stored_bytes
    assert full.condensed == full.csr == full.dense


@pytest.mark.parametrize(("density", "ratio"), [(0.2, 0.2026), (0.1, 0.1030)])
def test_training_cost_of_rigl(density, ratio):
    found = training_cost(1000, 1000 * density, dense_gradient_every=100)
    assert found.ratio == pytest.approx(ratio, abs=5e-5)
    assert found.dense_flops == 3000


def test_training_cost_of_other_methods():
    assert training_cost(1000, 200).ratio == pytest.approx(0.2)
    # The weight gradient, a third of a dense step, is dense at every step.
    every_step = training_cost(1000, 100, dense_gradient_every=0)
    assert every_step.flops == 2 * 100 + 1000
    # Sparsity rises linearly from 0: on average half of the saving.
    assert training_cost(1000, 200, mean_progress=0.5).ratio == pytest.approx(0.6)
    assert training_cost(1000, 1000).flops == 3000


def test_as_dict_is_json():
    x = jax.ShapeDtypeStruct((1, 4), "float32")
    report = cost(lambda w, x: x @ w["w"], {"w": jnp.ones((4, 4))}, {"w": 3}, x)
    loaded = json.loads(json.dumps(report.as_dict()))
    assert loaded["layers"] == [
        {
            "path": "w",
            "shape": [4, 4],
            "weights": 16,
            "active": 3,
            "dense_macs": 16,
            "sparse_macs": 3,
            "dense_flops": 32,
            "sparse_flops": 6,
        }
    ]
    assert loaded["stored_bytes"]["dense"] == 64
    assert loaded["training"]["ratio"] == pytest.approx(3 / 16)


@pytest.mark.parametrize(
    ("masks", "settings", "message"),
    [
        ({"v": 1}, {}, "masks has an entry 'v', which is no leaf of params"),
        ({"w": 17}, {}, r"masks\['w'\] keeps 17 of 16"),
        ({"w": np.ones((2, 2), bool)}, {}, r"shape \(2, 2\), params have \(4, 4\)"),
        (None, {"mode": "fast"}, "mode='fast'"),
        (None, {"examples": 0}, "examples=0"),
        (None, {"dense_gradient_every": -1}, "dense_gradient_every=-1"),
        (None, {"mean_progress": 1.5}, r"mean_progress=1\.5"),
    ],
)
def test_bad_arguments(masks, settings, message):
    x = jax.ShapeDtypeStruct((1, 4), "float32")
    with pytest.raises(ValueError, match=message):
        cost(lambda w, x: x @ w["w"], {"w": jnp.ones((4, 4))}, masks, x, **settings)
