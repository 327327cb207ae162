"""FORCE and Iterative SNIP: the schedule, and weights that come back or do not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.rules import exponential_count


def masks_after_first(tx, params, grad_fn):
    updates, state = tx.update(
        grad_fn(params), tx.init(params), params, grad_fn=grad_fn
    )
    params = optax.apply_updates(params, updates)
    sj.verify(params, state)
    return sj.masks(state)


def test_golden_schedule():
    kept = [
        int(exponential_count(k, 5, 10_000, jnp.array(100))) / 10_000
        for k in range(1, 6)
    ]
    assert kept == [0.3981, 0.1585, 0.0631, 0.0251, 0.01]


def test_schedule_ends_at_the_budget_whatever_the_rounding():
    for size, budget, rounds in ((7, 3, 4), (1_000_003, 999_983, 3), (50, 50, 2)):
        counts = [
            int(exponential_count(k, rounds, size, jnp.array(budget)))
            for k in range(rounds + 1)
        ]
        assert counts[0] == size and counts[-1] == budget
        assert counts == sorted(counts, reverse=True)


# Weights (1, 2, 3, 4), one left of four in two rounds of 2 and 1. The gradient of the
# dense network keeps the first two; that of the pruned one favours the last.
PARAMS = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}


def changing_gradient(params):
    is_dense = (params["kernel"] != 0).all()
    first, second = jnp.array([[9.0, 8.0, 1.0, 1.0]]), jnp.array([[1.0, 2.0, 0.0, 3.0]])
    return {"kernel": jnp.where(is_dense, first, second)}


@pytest.mark.parametrize(
    ("regrow_dropped", "kept"),
    [(True, [0, 0, 0, 1]), (False, [0, 1, 0, 0])],
)
def test_dropped_weights_come_back_only_in_force(regrow_dropped, kept):
    tx = sj.force(
        optax.sgd(0.1), sparsity=0.75, iterations=2, regrow_dropped=regrow_dropped
    )
    masks = masks_after_first(tx, PARAMS, changing_gradient)
    np.testing.assert_array_equal(masks["kernel"][0], kept)


def test_one_round_is_snip():
    random = np.random.default_rng(0)
    params = {
        name: jnp.asarray(random.normal(size=shape), jnp.float32)
        for name, shape in {"first": (4, 6), "second": (6, 2)}.items()
    }

    def loss(params):
        return jnp.sum(jnp.tanh(params["first"] @ params["second"]) ** 2)

    arguments = {"sparsity": 0.5, "distribution": sj.uniform()}
    force = sj.force(optax.sgd(0.1), iterations=1, **arguments)
    snip = sj.snip(optax.sgd(0.1), **arguments)
    found = [masks_after_first(tx, params, jax.grad(loss)) for tx in (force, snip)]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_collapse_and_silence_are_named():
    params = {"first": jnp.ones((4, 4)), "second": jnp.full((2, 2), 1e-3)}
    tx = sj.force(optax.sgd(0.1), sparsity=0.5, iterations=2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="leaves second without a"):
        jax.block_until_ready(masks_after_first(tx, params, lambda p: p))
    gradients = {"first": jnp.zeros((4, 4)), "second": jnp.ones((2, 2))}
    with pytest.raises(jax.errors.JaxRuntimeError, match="gradient of first is zero"):
        jax.block_until_ready(masks_after_first(tx, params, lambda _: gradients))
