"""Magnitude pruning: the schedule's table, global ranking, exact ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def train(tx, params, steps, gradient=0.0):
    state = tx.init(params)
    history = []
    step = jax.jit(tx.update)
    for _ in range(steps):
        gradients = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
        updates, state = step(gradients, state, params)
        params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        history.append({path: n for path, (n, _) in sj.counts(state).items()})
    return params, state, history


def test_cubic_table_as_exact_counts():
    params = {"kernel": jax.random.normal(jax.random.key(0), (100, 100))}
    tx = sj.magnitude(optax.sgd(0.1), sparsity=0.9, start=0, stop=100, every=25)
    _, _, history = train(tx, params, 103)
    zeros = [10_000 - history[t]["kernel"] for t in (0, 25, 50, 75, 100, 102)]
    assert zeros == [0, 5203, 7875, 8859, 9000, 9000]


@pytest.mark.parametrize("every", [3, 7, 50])
def test_target_is_reached_whatever_the_interval(every):
    params = {"a": jnp.ones((33, 3)), "b": jax.random.normal(jax.random.key(0), (9, 9))}
    tx = sj.magnitude(optax.sgd(0.1), sparsity=0.77, start=2, stop=20, every=every)
    budgets = sj.counts(sj.static(optax.sgd(0.1), sparsity=0.77).init(params))
    _, state, _ = train(tx, params, 22)
    assert sj.counts(state) == budgets


def test_one_shot_prunes_once():
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}
    tx = sj.magnitude(optax.sgd(0.1), sparsity=0.5, start=3)
    _, _, history = train(tx, params, 6)
    assert [row["kernel"] for row in history] == [64, 64, 64, 32, 32, 32]


def test_ranks_the_weights_after_the_step():
    # The step turns 0.5 into 0.1 and -0.3 into -0.7: the old order would keep 0.5.
    params = {"kernel": jnp.array([[0.5, -0.3]])}
    tx = sj.magnitude(optax.sgd(1.0), sparsity=0.5, start=0)
    params, _, _ = train(tx, params, 1, gradient=0.4)
    np.testing.assert_allclose(params["kernel"], [[0.0, -0.7]], rtol=1e-6)


def test_global_ranking_is_plain_magnitude():
    params = {"w1": jnp.array([[10.0, 9, 8, 7]]), "w2": jnp.array([[1.0, 0.2]])}
    tx = sj.magnitude(
        optax.sgd(0.1), sparsity=0.5, start=0, scope="global", distribution=sj.uniform()
    )
    params, state, _ = train(tx, params, 1)
    np.testing.assert_array_equal(params["w1"], [[10, 9, 8, 0]])
    np.testing.assert_array_equal(params["w2"], [[0, 0]])
    assert sj.counts(state) == {"w1": (3, 4), "w2": (0, 2)}


def test_masks_are_nested():
    params = {"kernel": jax.random.normal(jax.random.key(0), (20, 20))}
    tx = sj.magnitude(optax.adam(1e-1), sparsity=0.8, start=1, stop=19, every=2)
    state, before = tx.init(params), jnp.ones((20, 20), bool)
    update, random = jax.jit(tx.update), np.random.default_rng(0)
    for _ in range(21):
        gradients = {"kernel": random.normal(size=(20, 20)).astype(np.float32)}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        mask = sj.masks(state)["kernel"]
        assert not bool(jnp.any(mask & ~before)), "a pruned weight came back"
        before = mask


def test_stacked_layers_are_pruned_apart():
    weights = jnp.stack([jnp.full((4, 4), 10.0), jnp.full((4, 4), 0.1)])
    tx = sj.magnitude(
        optax.sgd(0.1),
        sparsity=0.5,
        start=0,
        layout=sj.flax(stacked={"blocks": 1}),
    )
    _, state, _ = train(tx, {"blocks": weights}, 1)
    per_layer = np.asarray(sj.masks(state)["blocks"]).sum(axis=(1, 2))
    assert per_layer.tolist() == [8, 8]
