"""AutoSparse: the backward rule, the annealing table, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.methods.autosparse import sigmoid_cosine

W = jnp.array([[0.5], [-0.002], [0.006], [-0.3]])
UPSTREAM = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])


@pytest.mark.parametrize(
    ("alpha", "of_weights", "of_threshold"),
    [(0.5, [1, -0.5, 0.5, -1], -0.0199442), (0.0, [1, 0, 0, -1], -0.0132961)],
)
def test_view_and_backward_rule(alpha, of_weights, of_threshold):
    tx = sj.autosparse(optax.sgd(1.0), stop=100, alpha=alpha)
    state = tx.init({"kernel": W})
    view = sj.sparsify({"kernel": W}, state)
    np.testing.assert_allclose(
        view["kernel"][:, 0], [0.493307, 0, 0, -0.293307], atol=1e-6
    )
    _, after = tx.update({"kernel": UPSTREAM}, state, view)
    np.testing.assert_allclose(
        (W - after.latents["kernel"])[:, 0], of_weights, atol=1e-6
    )
    moved = state.extra[0] - after.extra[0]
    np.testing.assert_allclose(moved, [[of_threshold]], atol=1e-6)


def test_annealing_table():
    progress = jnp.array([0, 0.10, 0.25, 0.50, 0.75, 0.90, 1.0])
    want = [1, 0.991837, 0.952574, 0.5, 0.146447, 0.0244717, 0.0024726]
    np.testing.assert_allclose(jax.vmap(sigmoid_cosine)(progress), want, rtol=2e-5)


def test_alpha_is_of_the_step_and_zero_from_the_reset_on():
    tx = sj.autosparse(optax.sgd(0.1), stop=20, alpha=0.5)
    params = {"kernel": W}
    state, update, alphas = tx.init(params), jax.jit(tx.update), []
    for _ in range(21):
        alphas.append(float(state.values["alpha"]))
        _, state = update({"kernel": UPSTREAM}, state, params)
    assert alphas[0] == 0.5
    np.testing.assert_allclose(alphas[5], 0.5 * 0.952574, rtol=1e-5)
    np.testing.assert_allclose(alphas[10], 0.25, rtol=1e-5)
    assert alphas[17] > 0
    assert alphas[18:] == [0, 0, 0]
    assert update._cache_size() == 1


def run(tx, params, steps=8):
    state = tx.init(params)
    params, update = sj.sparsify(params, state), jax.jit(tx.update)
    random = np.random.default_rng(0)
    for _ in range(steps):
        values = jnp.asarray(random.normal(size=params["kernel"].shape), jnp.float32)
        updates, state = update({"kernel": values}, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_alpha_zero_is_str():
    params = {"kernel": jax.random.normal(jax.random.key(0), (6, 5))}
    common = {"initial_threshold": 0.0, "granularity": "channel"}
    first, state = run(
        sj.autosparse(optax.adam(0.1), stop=10, alpha=0.0, **common), params
    )
    second, other = run(sj.soft_threshold(optax.adam(0.1), **common), params)
    np.testing.assert_allclose(first["kernel"], second["kernel"], atol=1e-6)
    np.testing.assert_allclose(state.extra[0], other.extra[0], atol=1e-6)
    active, size = sj.counts(state)["kernel"]
    assert 0 < active < size


def test_thresholds_feel_no_weight_decay_and_weights_do():
    params = {"kernel": jnp.full((2, 2), 0.5)}
    tx = sj.autosparse(optax.adamw(0.1, weight_decay=1.0), stop=10)
    nothing = {"kernel": jnp.zeros((2, 2))}
    _, after = tx.update(nothing, tx.init(params), params)
    np.testing.assert_array_equal(after.extra[0], -5)
    np.testing.assert_allclose(after.latents["kernel"], 0.45, rtol=1e-6)


def test_fixed_budget_scales_the_gradient_of_the_pruned():
    params = {"kernel": jnp.array([[3.0, -2.0, 1.0, 0.0]])}
    tx = sj.autosparse(optax.sgd(1.0), stop=100, alpha=0.5, sparsity=0.5)
    state = tx.init(params)
    view = sj.sparsify(params, state)
    np.testing.assert_array_equal(view["kernel"], [[3, -2, 0, 0]])
    _, after = tx.update({"kernel": jnp.full((1, 4), -1.0)}, state, view)
    np.testing.assert_array_equal(after.latents["kernel"], [[4, -1, 1.5, 0.5]])
    assert after.extra is None
