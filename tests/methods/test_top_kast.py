"""Top-KAST: which weights are used, which learn, which are frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.views import snapshot

THETA = {"kernel": jnp.array([[3.0, -2.0, 1.0, 0.5]])}
SETS = {"sparsity": 0.5, "backward_sparsity": 0.25}


def penalty_of(state):
    return float(state.design.view.penalty(snapshot(state)))


def test_forward_and_backward_sets():
    state = sj.top_kast(optax.sgd(1.0), **SETS).init(THETA)
    assert sj.masks(state)["kernel"].tolist() == [[True, True, False, False]]
    assert state.memory[0].tolist() == [[True, True, True, False]]
    np.testing.assert_array_equal(sj.sparsify(THETA, state)["kernel"], [[3, -2, 0, 0]])


def test_penalty():
    absolute = sj.top_kast(optax.sgd(1.0), norm="l1", penalty=1.0, **SETS).init(THETA)
    assert penalty_of(absolute) == 3 + 2 + 1 / 0.5
    square = sj.top_kast(optax.sgd(1.0), penalty=1.0, **SETS).init(THETA)
    assert penalty_of(square) == 9 + 4 + 1 / 0.5


@pytest.mark.parametrize(
    ("norm", "gradient"), [("l1", [1, -1, 2, 0]), ("l2", [6, -4, 4, 0])]
)
def test_gradient_of_the_penalty(norm, gradient):
    tx = sj.top_kast(optax.sgd(1.0), norm=norm, penalty=0.1, **SETS)
    state = tx.init(THETA)
    nothing = {"kernel": jnp.zeros((1, 4))}
    _, after = tx.update(nothing, state, sj.sparsify(THETA, state))
    moved = np.asarray(THETA["kernel"] - after.latents["kernel"])[0]
    np.testing.assert_allclose(moved, 0.1 * np.array(gradient), rtol=1e-5)


def test_outside_the_backward_set_everything_is_frozen():
    """Neither moments nor weight decay move what does not learn; nor are they reset."""
    inner = optax.adamw(1e-1, weight_decay=0.5)
    tx = sj.top_kast(inner, every=2, **SETS)
    state, update = tx.init(THETA), jax.jit(tx.update)
    params = sj.sparsify(THETA, state)
    gradients = {"kernel": jnp.array([[1.0, 1.0, -9.0, 9.0]])}
    for _ in range(5):
        before = state
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        frozen = ~before.memory[0]
        assert frozen.sum() == 1
        for tree in ("mu", "nu"):
            old, new = (getattr(s.inner[0], tree)["kernel"] for s in (before, state))
            np.testing.assert_array_equal(old[frozen], new[frozen])
            assert (old[~frozen] != new[~frozen]).all()
        old, new = before.latents["kernel"], state.latents["kernel"]
        np.testing.assert_array_equal(old[frozen], new[frozen])
        assert (old[~frozen] != new[~frozen]).all()


def test_a_returning_weight_has_the_statistics_it_left_with():
    tx = sj.top_kast(optax.sgd(1.0, momentum=0.5), every=1, penalty=0.0, **SETS)
    params = {"kernel": jnp.array([[8.0, 8.0, 1.5, 1.0]])}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    # The third weight goes 1.5 -> 1 -> 0.25 and out, with a momentum of 0.75; then
    # the fourth falls from 1 to 0.1, so that the third returns.
    for third, fourth in ((0.5, 0.0), (0.5, 0.0), (0.0, 0.9)):
        gradients = {"kernel": jnp.array([[0.0, 0.0, third, fourth]])}
        before = state
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert before.memory[0].tolist() == [[True, True, False, True]]
    assert float(before.latents["kernel"][0, 2]) == 0.25
    assert state.memory[0].tolist() == [[True, True, True, False]]
    assert float(state.inner[0].trace["kernel"][0, 2]) == 0.75


def test_sets_are_refreshed_at_the_interval_until_the_stop():
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}
    tx = sj.top_kast(optax.sgd(0.5), sparsity=0.75, every=2, stop=4, track=True)
    state, update = tx.init(params), jax.jit(tx.update)
    params, moves = sj.sparsify(params, state), []
    for step in range(8):
        random = np.random.default_rng(step).normal(size=(8, 8))
        gradients = {"kernel": jnp.asarray(random, jnp.float32)}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        moves.append(sj.moves(state))
        assert sj.counts(state) == {"kernel": (16, 64)}
        # Half of the zeros learn by default, and all that is used.
        assert int(state.memory[0].sum()) == 16 + 24
        assert not (sj.masks(state)["kernel"] & ~state.memory[0]).any()
    assert moves == [0, 1, 1, 2, 2, 2, 2, 2]
