"""DynaDiag: the sum of diagonals, the soft top-k, and its hard end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj


def begun(shape, sparsity, **options):
    params = {"kernel": jnp.ones(shape)}
    tx = sj.dynadiag(optax.sgd(1.0), sparsity=sparsity, **options)
    return tx, params, tx.init(params)


def only(state, *chosen):
    """The state with gates that open these diagonals."""
    gates = jnp.zeros_like(state.extra[0]).at[jnp.array(chosen)].set(100.0)
    return state._replace(extra=[gates])


def test_a_diagonal_of_a_rectangle():
    """4 neurons by 3 inputs, diagonal 2: (2, 0), (3, 1), (0, 2)."""
    _, params, state = begun((3, 4), 0.75, stop=10)
    view = sj.sparsify(params, only(state, 2))["kernel"].T
    want = np.zeros((4, 3))
    want[[2, 3, 0], [0, 1, 2]] = 1
    np.testing.assert_allclose(view, want, atol=1e-6)
    # 3 by 4, where diagonals wrap around the inputs: (i, i + d mod 4).
    _, params, state = begun((4, 3), 0.75, stop=10)
    view = sj.sparsify(params, only(state, 2))["kernel"].T
    want = np.zeros((3, 4))
    want[[0, 1, 2], [2, 3, 0]] = 1
    np.testing.assert_allclose(view, want, atol=1e-6)


def test_all_diagonals_sum_to_all_ones():
    _, params, state = begun((3, 4), 0.0, stop=10)
    np.testing.assert_allclose(sj.sparsify(params, state)["kernel"], 1, rtol=1e-6)
    # Alike at first, each has its share of the budget: K / 4 of 4 diagonals.
    _, params, state = begun((3, 4), 0.5, stop=10)
    np.testing.assert_allclose(sj.sparsify(params, state)["kernel"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(state.extra[0], 1 / 3, rtol=1e-6)
    assert np.asarray(sj.masks(state)["kernel"]).all()


def test_gates_learn_and_the_largest_stay():
    tx, params, state = begun((4, 4), 0.5, stop=3)
    params, update = sj.sparsify(params, state), jax.jit(tx.update)
    # Diagonals 1 and 3 lower the loss: entries (i, i + d) of [neurons, inputs], where
    # neurons are the kernel's columns; for a square (i + d, i) is diagonal d.
    wanted = sum(np.roll(np.eye(4), d, axis=0) for d in (1, 3)).T
    temperatures, counts = [], []
    for _ in range(5):
        temperatures.append(float(state.values["temperature"]))
        counts.append(sj.counts(state)["kernel"][0])
        updates, state = update({"kernel": 0.1 - wanted}, state, params)
        params = optax.apply_updates(params, updates)
    want = [0.05 + 4.95 * (1 + np.cos(np.pi * p)) / 2 for p in (0, 1 / 3, 2 / 3, 1, 1)]
    np.testing.assert_allclose(temperatures, want, rtol=1e-5)
    assert counts == [16, 16, 16, 8, 8]
    np.testing.assert_array_equal(sj.masks(state)["kernel"], wanted > 0)
    # Hard gates are 1: the parameters are the weights.
    latents = np.where(wanted > 0, state.latents["kernel"], 0)
    np.testing.assert_allclose(params["kernel"], latents, rtol=1e-6)


def test_negative_gates_rank_below_positive_ones():
    _, params, state = begun((3, 3), 0.6, stop=1)
    state = state._replace(extra=[jnp.array([-9.0, 0.1, 0.2])])
    tx = sj.dynadiag(optax.sgd(0.0), sparsity=0.6, stop=1)
    _, after = tx.update(params, state, params)
    assert sj.masks(after)["kernel"].sum() == 3
    want = np.roll(np.eye(3), 2, axis=0).T
    np.testing.assert_array_equal(sj.masks(after)["kernel"], want > 0)
