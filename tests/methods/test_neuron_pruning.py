"""Neuron pruning: whole neurons, by norm, the schedule in neurons, what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def network(width=20):
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "hidden": {
            "kernel": jax.random.normal(keys[0], (6, width)),
            "bias": jnp.ones(width),
        },
        "head": {"kernel": jax.random.normal(keys[1], (width, 3))},
    }


def train(tx, params, steps):
    state, update = tx.init(params), jax.jit(tx.update)
    left = []
    for _ in range(steps):
        gradients = jax.tree.map(lambda leaf: 0.1 * jnp.sign(leaf), params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        mask = sj.masks(state)["hidden"]["kernel"]
        assert (mask.all(0) == mask.any(0)).all(), "a neuron is whole or gone"
        left.append(int(mask.all(0).sum()))
    return params, state, left


def test_neurons_go_by_the_cubic_schedule_and_stay_away():
    tx = sj.neuron_pruning(
        optax.sgd(1e-3),
        sparsity=0.9,
        where="hidden/kernel",
        start=0,
        stop=100,
        every=25,
    )
    _, _, left = train(tx, network(200), 103)
    # 200 (1 - 0.9 (1 - (1 - p)^3)) = 200, 95.9, 42.5, 22.8, 20, in whole neurons.
    assert [left[t] for t in (0, 25, 50, 75, 100, 102)] == [200, 96, 43, 23, 20, 20]


def test_the_smallest_norms_go_and_the_reader_and_bias_stay():
    params = network()
    before = np.linalg.norm(params["hidden"]["kernel"], axis=0)
    tx = sj.neuron_pruning(optax.sgd(0.0), sparsity=0.5, where="hidden/kernel", start=0)
    after, state, _ = train(tx, params, 1)
    kept = np.asarray(sj.masks(state)["hidden"]["kernel"].all(0))
    assert kept.sum() == 10 and before[kept].min() > before[~kept].max()
    assert sj.masks(state)["head"]["kernel"] is None
    for path in (("hidden", "bias"), ("head", "kernel")):
        np.testing.assert_array_equal(after[path[0]][path[1]], params[path[0]][path[1]])


def test_the_norm_is_a_choice():
    # By sums 3 and 4, by roots of squares 3 and 2.8.
    params = {"hidden": jnp.array([[3.0, 2.0], [0.0, 2.0]])}
    for norm, kept in (("l2", 0), ("l1", 1)):
        tx = sj.neuron_pruning(
            optax.sgd(0.0),
            sparsity=0.5,
            where="hidden",
            start=0,
            structure=sj.neuron(norm=norm),
        )
        _, state = tx.update(params, tx.init(params), params)
        assert sj.masks(state)["hidden"][0].tolist() == [kept == 0, kept == 1]


def test_it_asks_whose_neurons_and_has_its_structure():
    with pytest.raises(TypeError, match="where"):
        sj.neuron_pruning(optax.sgd(0.1), sparsity=0.5, start=0)
    with pytest.raises(ValueError, match="structure=2:4 does not go with neuron_prun"):
        sj.neuron_pruning(
            optax.sgd(0.1),
            sparsity=0.5,
            start=0,
            where="hidden",
            structure=sj.n_m(2, 4),
        )
