"""GraSP: golden scores, and the Hessian product against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

MATRIX = jnp.array([[2.0, -1.0], [-1.0, 1.0]])


def quadratic(params):
    weights = params["kernel"][0]
    return weights @ MATRIX @ weights / 2


def mask_after_first(tx, params, loss, batches=1):
    state, grad_fn = tx.init(params), jax.grad(loss)
    for _ in range(batches):
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    sj.verify(params, state)
    return sj.masks(state), params


def test_golden_quadratic_removes_what_lets_the_gradient_flow():
    params = {"kernel": jnp.ones((1, 2))}
    np.testing.assert_array_equal(jax.grad(quadratic)(params)["kernel"], [[1, 0]])
    tx = sj.grasp(optax.sgd(0.1), sparsity=0.5)
    masks, after = mask_after_first(tx, params, quadratic)
    # S = (-2, 1): index 1 goes, and |g|^2 becomes 5; without index 0 it would be 2.
    assert masks["kernel"].tolist() == [[True, False]]
    assert float(jnp.sum(jax.grad(quadratic)(after)["kernel"] ** 2)) == 5


def smooth_loss(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params["first"] + params["bias"][None])
    return jnp.mean((hidden @ params["second"] - targets) ** 2)


def test_hessian_product_agrees_with_finite_differences():
    random = np.random.default_rng(0)
    params = {
        "first": jnp.asarray(random.normal(size=(5, 6)), jnp.float32),
        "second": jnp.asarray(random.normal(size=(6, 3)), jnp.float32),
        "bias": jnp.asarray(random.normal(size=6), jnp.float32),
    }
    batch = random.normal(size=(8, 5)), random.normal(size=(8, 3))
    inputs, targets = (jnp.asarray(part, jnp.float32) for part in batch)

    def loss(params):
        return smooth_loss(params, inputs, targets)

    # Central differences along the gradient of the matrices alone, not of the bias.
    gradient = jax.grad(loss)(params)
    step = 1e-2
    ends = []
    for sign in (1, -1):
        moved = {n: params[n] + sign * step * gradient[n] for n in ("first", "second")}
        ends.append(jax.grad(loss)({**params, **moved}))
    scores = {
        name: -params[name] * (ends[0][name] - ends[1][name]) / (2 * step)
        for name in ("first", "second")
    }
    tx = sj.grasp(optax.sgd(0.1), sparsity=0.5, distribution=sj.uniform())
    masks, _ = mask_after_first(tx, params, loss)
    every = np.concatenate([np.ravel(scores[name]) for name in ("first", "second")])
    kept = np.concatenate([np.ravel(masks[name]) for name in ("first", "second")])
    lowest = np.zeros(48, bool)
    lowest[np.argsort(every, kind="stable")[:24]] = True
    # The differences are good to about 1e-3; no score is that near to the threshold.
    assert np.diff(np.sort(every)[23:25]) > 4e-3
    np.testing.assert_array_equal(kept, lowest)


def test_batches_sum_the_gradient_and_take_the_last_hessian():
    params = {"kernel": jnp.ones((1, 2))}
    tx = sj.grasp(optax.sgd(0.1), sparsity=0.5, batches=2)
    state = tx.init(params)
    grad_fn = jax.grad(quadratic)
    # g = (0, 3) in all, H of the last batch: H g = (-3, 3), S = (3, -3).
    for row in ([-1.0, 2.0], [1.0, 1.0]):
        gradients = {"kernel": jnp.array([row])}
        updates, state = tx.update(gradients, state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["kernel"], [[0, 1]])


def test_a_linear_loss_has_nothing_to_rank_by():
    params = {"kernel": jnp.ones((2, 2))}
    tx = sj.grasp(optax.sgd(0.1), sparsity=0.5)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Hessian and gradient of ker"):
        jax.block_until_ready(
            mask_after_first(tx, params, lambda p: 3 * p["kernel"].sum())
        )


def test_the_missing_argument_is_named():
    params = {"kernel": jnp.ones((2, 2))}
    tx = sj.grasp(optax.sgd(0.1), sparsity=0.5)
    with pytest.raises(ValueError, match=r"^grad_fn=None: .*grad_fn=\.\.\.\)"):
        tx.update(params, tx.init(params), params)
