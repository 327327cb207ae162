"""Pruning of trained networks: golden scores, exact counts, layers found by walking."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.layers import Layer, LeafSpec

KEY = jax.random.key(0)


def network(seed=0, sizes=(12, 16, 8)):
    """An MLP whose inputs are correlated and of different sizes."""
    random = np.random.default_rng(seed)
    params = {
        f"dense{i}": {
            "kernel": jnp.asarray(random.normal(size=shape), jnp.float32),
            "bias": jnp.asarray(random.normal(size=shape[1:]), jnp.float32),
        }
        for i, shape in enumerate(itertools.pairwise(sizes))
    }
    mixed = random.normal(size=(64, 4)) @ random.normal(size=(4, sizes[0]))
    noise = random.normal(size=(64, sizes[0]))
    batch = (mixed + 0.3 * noise) * np.logspace(-1, 1, sizes[0])
    return params, jnp.asarray(batch, jnp.float32)


def mlp(params, inputs):
    for layer in params.values():
        inputs = jax.nn.relu(inputs @ layer["kernel"] + layer["bias"][None])
    return inputs


def per_neuron(masks):
    counts = {name: one["kernel"].sum(axis=0) for name, one in masks.items()}
    return {name: set(count.tolist()) for name, count in counts.items()}


# The pure functions


def test_wanda_is_the_square_root_of_sparsegpt_on_a_diagonal():
    layer = Layer("w", (3, 1), LeafSpec((0,), (1,)))
    weight = jnp.array([[1.0], [2.0], [0.5]])
    diagonal = jnp.array([4.0, 1.0, 9.0])
    scores = sj.pruning.input_scores(layer, weight, jnp.sqrt(diagonal))
    np.testing.assert_allclose(jnp.square(scores).ravel(), [4, 4, 2.25])
    # The smallest goes first; of the two that tie, the right one.
    for budget, kept in ((2, [1, 1, 0]), (1, [1, 0, 0])):
        rows, mask = sj.pruning.prune_rows(
            weight.T, jnp.diag(diagonal), budget, structure=sj.unstructured(), damping=0
        )
        assert mask.astype(int).tolist() == [kept]
        np.testing.assert_allclose(rows, weight.T * mask, rtol=1e-6)


def test_what_is_left_is_the_least_squares_fit():
    samples = jax.random.normal(KEY, (50, 6)) @ jax.random.normal(KEY, (6, 6))
    hessian = samples.T @ samples
    # The first input is pruned: all others may make up for it.
    weights = jnp.array([[1e-3, 3.0, -2.0, 1.0, 2.0, -4.0]])
    rows, mask = sj.pruning.prune_rows(
        weights, hessian, 5, structure=sj.unstructured(), damping=0
    )
    assert mask.tolist() == [[False] + [True] * 5]
    best = np.linalg.lstsq(samples[:, 1:], samples @ weights[0], rcond=None)[0]
    np.testing.assert_allclose(rows[0, 1:], best, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [1, 4, 5, 128])
@pytest.mark.parametrize("budget", [35, 37])
def test_counts_are_exact_whatever_the_block(block, budget):
    rows = jax.random.normal(KEY, (5, 14))
    samples = jax.random.normal(KEY, (40, 14))
    structure = sj.fan_in() if budget == 35 else sj.unstructured()
    new, mask = sj.pruning.prune_rows(
        rows, samples.T @ samples, budget, structure=structure, block=block
    )
    assert int(mask.sum()) == budget
    assert not bool((new[~mask] != 0).any())
    if budget == 35:
        assert set(mask.sum(axis=1).tolist()) == {7}


def test_blocks_only_change_when_columns_are_chosen():
    """With the mask given, the lazy updates of blocks are those of columns."""
    rows = jax.random.normal(KEY, (3, 8))
    samples = jax.random.normal(KEY, (40, 8))
    hessian = samples.T @ samples
    groups = functools.partial(
        sj.pruning.prune_rows, rows, hessian, 12, structure=sj.n_m(2, 4), damping=0.0
    )
    new, mask = groups(block=4)
    # The second group is chosen by weights that the first has changed.
    assert set(mask.reshape(3, 2, 4).sum(-1).ravel().tolist()) == {2}
    inverse = np.linalg.inv(np.asarray(hessian, np.float64))
    factor = np.linalg.cholesky(inverse).T
    expected = np.asarray(rows, np.float64).copy()
    for j in range(8):
        error = np.where(np.asarray(mask)[:, j], 0, expected[:, j]) / factor[j, j]
        expected -= error[:, None] * factor[j]
    np.testing.assert_allclose(new, expected, rtol=1e-3, atol=1e-4)


# Whole networks


def test_wanda_prunes_every_neuron_by_its_inputs():
    params, batch = network()
    pruned, masks = sj.pruning.wanda(mlp, params, [batch], sparsity=0.75)
    assert per_neuron(masks) == {"dense0": {3}, "dense1": {4}}
    kernel = np.asarray(params["dense0"]["kernel"])
    scores = np.abs(kernel) * np.linalg.norm(batch, axis=0)[:, None]
    expected = np.argsort(np.argsort(-scores, axis=0), axis=0) < 3
    np.testing.assert_array_equal(masks["dense0"]["kernel"], expected)
    np.testing.assert_array_equal(pruned["dense0"]["kernel"], kernel * expected)
    np.testing.assert_array_equal(pruned["dense0"]["bias"], params["dense0"]["bias"])
    assert masks["dense0"]["bias"] is None
    # The second layer sees what the pruned first one computes, or not.
    for layer_by_layer, first in ((True, pruned), (False, params)):
        hidden = mlp({"dense0": first["dense0"]}, batch)
        norms = np.linalg.norm(hidden, axis=0)[:, None]
        scores = np.abs(np.asarray(params["dense1"]["kernel"])) * norms
        expected = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0) < 4
        _, masks = sj.pruning.wanda(
            mlp, params, [batch], sparsity=0.75, layer_by_layer=layer_by_layer
        )
        np.testing.assert_array_equal(masks["dense1"]["kernel"], expected)


@pytest.mark.parametrize("method", [sj.pruning.wanda, sj.pruning.sparsegpt])
def test_batches_of_any_sizes_are_one_batch(method):
    params, batch = network()
    whole = method(mlp, params, [batch], sparsity=0.5)
    parts = method(mlp, params, [batch[:7], batch[7:40], batch[40:]], sparsity=0.5)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("structure", [sj.fan_in(), sj.n_m(2, 4)])
def test_the_better_informed_the_smaller_the_error(structure):
    params, batch = network()
    dense = mlp(params, batch)
    settings = {"sparsity": 0.5, "structure": structure}
    found = [
        sj.pruning.magnitude(params, **settings),
        sj.pruning.wanda(mlp, params, [batch], **settings),
        sj.pruning.sparsegpt(mlp, params, [batch], **settings),
    ]
    errors = [float(jnp.square(mlp(one, batch) - dense).mean()) for one, _ in found]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]
    for _, masks in found:
        assert per_neuron(masks) == {"dense0": {6}, "dense1": {8}}


def test_inputs_that_are_always_zero():
    params, batch = network()
    batch = batch.at[:, 3].set(0)
    _, masks = sj.pruning.wanda(mlp, params, [batch], sparsity=0.5)
    assert not bool(masks["dense0"]["kernel"][3].any())
    pruned, masks = sj.pruning.sparsegpt(mlp, params, [batch], sparsity=0.5)
    assert int(masks["dense0"]["kernel"].sum()) == 96
    assert not bool(pruned["dense0"]["kernel"][3].any())
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(pruned))


def test_magnitude_per_layer_and_globally():
    params = {"w1": jnp.array([[10.0, 9, 8, 7]]), "w2": jnp.array([[1.0, 0.2]])}
    pruned, masks = sj.pruning.magnitude(params, sparsity=0.5)
    assert [leaf.tolist() for leaf in pruned.values()] == [[[10, 9, 0, 0]], [[1, 0]]]
    pruned, masks = sj.pruning.magnitude(params, sparsity=0.5, scope="global")
    assert [leaf.tolist() for leaf in pruned.values()] == [[[10, 9, 8, 0]], [[0, 0]]]
    assert masks["w1"].tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    ("method", "settings"),
    [(sj.rigl, {"every": 2, "stop": 20}), (sj.static, {})],
)
def test_training_goes_on_from_the_masks(method, settings):
    params, batch = network()
    target = mlp(params, batch)
    pruned, masks = sj.pruning.wanda(mlp, params, [batch], sparsity=0.5)
    tx = method(optax.sgd(1e-6), sparsity=None, initial_masks=masks, **settings)
    state = tx.init(pruned)

    @jax.jit
    def step(params, state):
        def loss(params):
            return jnp.square(mlp(params, batch) - target).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(8):
        pruned, state, value = step(pruned, state)
        losses.append(float(value))
    sj.verify(pruned, state)
    assert losses[1] < losses[0]
    assert sj.counts(state) == {"dense0/kernel": (96, 192), "dense1/kernel": (64, 128)}
    moved = sj.masks(state)["dense0"]["kernel"] != masks["dense0"]["kernel"]
    assert bool(moved.any()) == (method is sj.rigl)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"batches": []}, "batches is empty"),
        ({"block": 0}, "block=0"),
        ({"damping": 0.0}, "damping=0.0"),
        ({"structure": sj.neuron()}, "structure=neuron"),
        ({"structure": sj.n_m(5, 10), "sparsity": 0.4}, "no multiple of 10"),
        (
            {"apply": lambda p, x: mlp({"dense0": p["dense0"]}, x)},
            "no product reads dense1/kernel",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    params, batch = network()
    settings = {"apply": mlp, "batches": [batch], "sparsity": 0.5, **change}
    with pytest.raises(ValueError, match=message):
        sj.pruning.sparsegpt(params=params, **settings)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_every_layer_is_reported_when_it_is_pruned(method):
    params, batch = network(sizes=(12, 16, 16, 8))
    found = []
    getattr(sj.pruning, method)(
        mlp, params, [batch], sparsity=0.5, report=lambda *one: found.append(one)
    )
    assert found == [(f"dense{i}/kernel", 0) for i in range(3)]
