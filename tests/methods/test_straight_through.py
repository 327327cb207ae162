"""Straight-through: the gradient passes to all, and its neighbours' limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def train(tx, params, steps=6):
    """Latents and parameters after some steps with random gradients."""
    state = tx.init(params)
    params, update = sj.sparsify(params, state), jax.jit(tx.update)
    random = np.random.default_rng(0)
    for _ in range(steps):
        gradients = jax.tree.map(
            lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params
        )
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state.latents


@pytest.fixture
def params():
    return {"kernel": jax.random.normal(jax.random.key(0), (8, 6))}


def test_pruned_weights_learn_and_return():
    params = {"kernel": jnp.array([[3.0, -2.0, 1.0, 0.5]])}
    tx = sj.straight_through(optax.sgd(1.0), sparsity=0.5)
    state = tx.init(params)
    view = sj.sparsify(params, state)
    np.testing.assert_array_equal(view["kernel"], [[3, -2, 0, 0]])
    gradients = {"kernel": jnp.array([[0.0, -1.5, 0.0, 2.0]])}
    updates, state = tx.update(gradients, state, view)
    view = optax.apply_updates(view, updates)
    # w = (3, -0.5, 1, -1.5): the fourth is large now, the second small.
    np.testing.assert_array_equal(state.latents["kernel"], [[3, -0.5, 1, -1.5]])
    np.testing.assert_array_equal(view["kernel"], [[3, 0, 0, -1.5]])


@pytest.mark.parametrize("structure", [sj.n_m(2, 4), sj.fan_in(), sj.unstructured()])
def test_limits_of_other_methods_are_straight_through(params, structure):
    """Section 6.8 of the contract: equality of limits."""
    adam = optax.adam(1e-1)
    common = {"sparsity": 0.5, "structure": structure}
    want = train(sj.straight_through(adam, **common), params)
    limits = {
        "SR-STE, decay 0": sj.sr_ste(adam, decay=0.0, **common),
        "AutoSparse top-k, alpha 1": sj.autosparse(
            adam, stop=10**9, alpha=1.0, **common
        ),
        "Top-KAST, all learn": sj.top_kast(
            adam, backward_sparsity=0.0, penalty=0.0, every=1, **common
        ),
    }
    for name, tx in limits.items():
        jax.tree.map(
            lambda a, b, name=name: np.testing.assert_allclose(
                a, b, rtol=1e-6, err_msg=name
            ),
            train(tx, params),
            want,
        )
    assert not np.array_equal(want[1]["kernel"], params["kernel"])


def test_gradual_counts_are_the_cubic_table():
    params = {"kernel": jax.random.normal(jax.random.key(0), (100, 100))}
    tx = sj.straight_through(optax.sgd(0.1), sparsity=0.9, stop=100, every=25)
    state, update = tx.init(params), jax.jit(tx.update)
    zeros = {0: 10_000 - sj.counts(state)["kernel"][0]}
    for step in range(1, 103):
        _, state = update(params, state, params)
        zeros[step] = 10_000 - sj.counts(state)["kernel"][0]
    table = [zeros[t] for t in (0, 25, 50, 75, 100, 102)]
    assert table == [0, 5203, 7875, 8859, 9000, 9000]
