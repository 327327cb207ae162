"""Proximal penalties: golden shrinkage, exact zeros, weights that return."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def step(tx, params, gradients, state=None):
    state = tx.init(params) if state is None else state
    updates, state = jax.jit(tx.update)(gradients, state, params)
    return optax.apply_updates(params, updates), state


def after(tx, kernel):
    """A kernel after one step of zero gradient."""
    params = {"kernel": jnp.asarray(kernel)}
    params, state = step(tx, params, jax.tree.map(jnp.zeros_like, params))
    sj.verify(params, state)
    np.testing.assert_array_equal(sj.masks(state)["kernel"], params["kernel"] != 0)
    return params["kernel"]


def test_l1_shrinks_towards_zero_and_stops_there():
    tx = sj.l1(optax.sgd(0.1), shrinkage=0.5)
    found = after(tx, [[1.5, -0.75, 0.5, 0.25, -0.1, 0.0]])
    np.testing.assert_allclose(found, [[1.0, -0.25, 0, 0, 0, 0]])


@pytest.mark.parametrize(("scale", "expected"), [(1.0, (2.4, 3.2)), (5.0, (0, 0))])
def test_group_lasso_of_three_and_four(scale, expected):
    """w = (3, 4): lr * strength * sqrt(p) = 1 leaves (2.4, 3.2), 5 nothing."""
    shrinkage = scale / 2**0.5
    tx = sj.group_lasso(optax.sgd(0.1), shrinkage=shrinkage)
    neurons = after(tx, [[3.0, 0.0], [4.0, 0.0]])
    np.testing.assert_allclose(neurons[:, 0], expected, rtol=1e-6, atol=1e-6)
    assert neurons[:, 1].tolist() == [0, 0]  # not NaN
    tx = sj.group_lasso(optax.sgd(0.1), shrinkage=shrinkage, groups="input")
    inputs = after(tx, [[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(inputs[0], expected, rtol=1e-6, atol=1e-6)


def test_groups_of_convolutions_and_stacked_layers():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32)
    kernel[:, :, 1] *= 0.01
    kernel[..., 2] *= 0.01
    neurons = after(sj.group_lasso(optax.sgd(0.1), shrinkage=0.2), kernel)
    assert (np.asarray(neurons) != 0).all(axis=(0, 1, 2)).tolist() == [1, 1, 0, 1, 1]
    inputs = after(
        sj.group_lasso(optax.sgd(0.1), shrinkage=0.2, groups="input"), kernel
    )
    assert (np.asarray(inputs) != 0).all(axis=(0, 1, 3)).tolist() == [1, 0, 1, 1]
    norm = np.linalg.norm(kernel[..., 0])
    ratio = 1 - 0.2 * np.sqrt(36) / norm
    np.testing.assert_allclose(neurons[..., 0], kernel[..., 0] * ratio, rtol=1e-5)
    layout = sj.flax(stacked={"kernel": 1})
    tx = sj.group_lasso(optax.sgd(0.1), shrinkage=0.2, layout=layout)
    stacked = after(tx, np.stack([kernel[0, 0], 100 * kernel[0, 0]]))
    one = after(sj.group_lasso(optax.sgd(0.1), shrinkage=0.2), kernel[0, 0])
    np.testing.assert_allclose(stacked[0], one, rtol=1e-6)
    assert bool((stacked[1] != 0).all())


@pytest.mark.parametrize("method", [sj.l1, sj.group_lasso])
def test_zero_weights_return(method):
    tx = method(optax.sgd(1.0), shrinkage=0.5)
    params = {"kernel": jnp.array([[0.25]])}
    params, state = step(tx, params, {"kernel": jnp.zeros((1, 1))})
    assert sj.counts(state) == {"kernel": (0, 1)}
    for gradient, left in ((0.4, 0.0), (-0.75, 0.25)):
        params, state = step(tx, params, {"kernel": jnp.full((1, 1), gradient)}, state)
        assert float(params["kernel"][0, 0]) == pytest.approx(left)
    assert sj.counts(state) == {"kernel": (1, 1)}


def test_it_solves_the_lasso():
    """Against coordinate descent, written out."""
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 10)).astype(np.float32)
    target = features[:, :3] @ [1.0, -2.0, 0.5] + 0.1 * random.normal(size=40)
    strength = 8.0
    best = np.zeros(10)
    for _ in range(200):
        for j in range(10):
            rest = target - features @ best + features[:, j] * best[j]
            score = features[:, j] @ rest
            size = np.sign(score) * max(abs(score) - strength, 0)
            best[j] = size / (features[:, j] @ features[:, j])
    rate = 0.5 / np.linalg.norm(features, 2) ** 2
    tx = sj.l1(optax.sgd(rate), shrinkage=lambda step: rate * strength, track=True)

    def body(carry, _):
        params, state = carry
        residual = features @ params["kernel"] - target[:, None]
        gradients = {"kernel": features.T @ residual.astype(np.float32)}
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = {"kernel": jnp.zeros((10, 1))}
    (params, state), _ = jax.lax.scan(body, (params, tx.init(params)), length=2000)
    np.testing.assert_allclose(params["kernel"][:, 0], best, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(sj.masks(state)["kernel"][:, 0], best != 0)
    assert 0 < sj.counts(state)["kernel"][0] < 10
    assert sj.exploration(state)["kernel"] >= sj.densities(state)["kernel"]


def test_bad_arguments_are_named(any_type):
    with pytest.raises(ValueError, match="shrinkage=-1"):
        sj.l1(optax.sgd(0.1), shrinkage=-1.0)
    with pytest.raises(ValueError, match="groups='row'"):
        sj.group_lasso(optax.sgd(0.1), groups="row")
