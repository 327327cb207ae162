"""Soft top-k: masks that sum to the budget, and their derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from sparsejax.views import snapshot


def test_soft_masks_sum_to_the_budget_of_each_layer():
    values = jax.random.normal(jax.random.key(0), (2, 8, 6))
    layout = sj.flax(stacked={"kernel": 1})
    for sharpness in (1.0, 300.0):
        tx = sj.soft_top_k(
            optax.sgd(0.1),
            sparsity=0.75,
            stop=10,
            initial_sharpness=sharpness,
            final_sharpness=300.0,
            layout=layout,
        )
        state = tx.init({"kernel": values})
        [masks] = state.design.view.soft_masks(snapshot(state))
        np.testing.assert_allclose(masks.sum((1, 2)), [12, 12], rtol=1e-4)
        view = np.asarray(sj.sparsify({"kernel": values}, state)["kernel"])
        assert (view != 0).sum(axis=(1, 2)).tolist() == [12, 12]
        np.testing.assert_allclose(
            view, np.where(view != 0, masks * values, 0), rtol=1e-6
        )
    # Sharp masks are hard ones: the view is straight-through's.
    hard = sj.straight_through(optax.sgd(0.1), sparsity=0.75, layout=layout)
    want = sj.sparsify({"kernel": values}, hard.init({"kernel": values}))["kernel"]
    np.testing.assert_allclose(view, want, atol=0.15)


def test_gradient_is_that_of_the_soft_mask():
    """Central differences of ``sum(g w m(w))``, each with its own threshold."""
    w = np.array([[1.0, -0.6, 0.4, 0.2, -0.9, 0.5]])
    g = np.array([[1.0, 2.0, -1.0, 3.0, 0.5, -2.0]])
    tx = sj.soft_top_k(optax.sgd(1.0), sparsity=0.5, stop=10, initial_sharpness=4.0)

    def soft(w, sharpness=4.0, budget=3):
        low, high = -10.0, 10.0
        for _ in range(80):
            middle = (low + high) / 2
            mask = 1 / (1 + np.exp(-sharpness * (np.abs(w) - middle)))
            low, high = (middle, high) if mask.sum() > budget else (low, middle)
        return (g * w * mask).sum()

    want = np.zeros_like(w)
    for i in range(w.size):
        step = np.zeros_like(w)
        step[0, i] = 1e-5
        want[0, i] = (soft(w + step) - soft(w - step)) / 2e-5
    params = {"kernel": jnp.asarray(w, jnp.float32)}
    state = tx.init(params)
    view = sj.sparsify(params, state)
    gradients = {"kernel": jnp.asarray(g, jnp.float32)}
    _, after = tx.update(gradients, state, view)
    got = params["kernel"] - after.latents["kernel"]
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_sharpness_rises_and_the_topology_stays_from_the_stop_on():
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}
    tx = sj.soft_top_k(optax.sgd(0.3), sparsity=0.75, stop=4)
    state, update = tx.init(params), jax.jit(tx.update)
    params, masks, sharpness = sj.sparsify(params, state), [], []
    for step in range(8):
        sharpness.append(float(state.values["sharpness"]))
        masks.append(np.asarray(sj.masks(state)["kernel"]))
        random = np.random.default_rng(step).normal(size=(8, 8))
        gradients = {"kernel": jnp.asarray(random, jnp.float32)}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert sj.counts(state) == {"kernel": (16, 64)}
    assert sharpness == [1, 5.75, 10.5, 15.25, 20, 20, 20, 20]
    assert (masks[3] != masks[4]).any()
    assert all((masks[4] == later).all() for later in masks[5:])
