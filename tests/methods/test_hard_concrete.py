"""L0: the hard concrete distribution's numbers, samples and deterministic network."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.views import snapshot


def begun(size=4, **options):
    params = {"kernel": jnp.ones((size, size))}
    tx = sj.hard_concrete(optax.sgd(1.0), **options)
    return tx, params, tx.init(params)


def with_gates(state, value):
    return state._replace(extra=[jnp.full_like(gate, value) for gate in state.extra])


@pytest.mark.parametrize(("gate", "test_time"), [(0, 0.5), (-2.4, 0), (2.4, 1)])
def test_deterministic_gates(gate, test_time):
    _, params, state = begun()
    kept = sj.evaluation_params(params, with_gates(state, gate))["kernel"]
    np.testing.assert_allclose(kept, test_time, atol=1e-6)
    if test_time == 0:
        assert not np.asarray(kept).any()


def test_probability_of_an_open_gate_is_charged():
    _, _, state = begun(penalty=1.0)
    state = with_gates(state, 0.0)
    penalty = state.design.view.penalty(snapshot(state))
    np.testing.assert_allclose(penalty, 16 * 0.831822, rtol=1e-5)


def test_samples_open_as_often_as_charged():
    _, _, state = begun(size=64)
    now = snapshot(with_gates(state, 0.0))
    [gates] = state.design.view.sample(now)
    deviation = math.sqrt(0.831822 * 0.168178 / 64**2)
    assert float((gates > 0).mean()) == pytest.approx(0.831822, abs=4 * deviation)
    assert float(gates.min()) == 0
    assert float(gates.max()) == 1


def test_gradients_reach_weights_and_half_open_gates():
    tx, params, state = begun(penalty=0.0)
    params["kernel"] = jnp.full((4, 4), 2.0)
    state = tx.init(params)
    view = sj.sparsify(params, state)
    gates = np.asarray(view["kernel"]) / 2
    _, after = tx.update({"kernel": jnp.ones((4, 4))}, state, view)
    np.testing.assert_allclose(2 - after.latents["kernel"], gates, atol=1e-6)
    moved = np.asarray(state.extra[0] - after.extra[0])
    half = (gates > 0) & (gates < 1)
    assert 0 < half.sum() < 16
    # dz/da = 1.2 s (1 - s) 3/2 with s = (z + 0.1) / 1.2, and the weight is 2.
    s = (gates + 0.1) / 1.2
    np.testing.assert_allclose(
        moved, np.where(half, 2 * 1.2 * s * (1 - s) * 1.5, 0), atol=1e-4
    )


def test_the_penalty_closes_gates_and_they_stay_in_their_range():
    tx, params, state = begun(penalty=1e4)
    _, after = tx.update({"kernel": jnp.zeros((4, 4))}, state, params)
    np.testing.assert_allclose(after.extra[0], math.log(1e-2), rtol=1e-6)
    assert not np.asarray(sj.evaluation_params(params, after)["kernel"]).any()


def test_a_sample_is_of_its_step_and_replica():
    tx, params, state = begun()
    again = sj.sparsify(params, state)
    np.testing.assert_array_equal(sj.sparsify(params, state)["kernel"], again["kernel"])
    nothing = {"kernel": jnp.zeros((4, 4))}
    updates, after = tx.update(nothing, state, again)
    view = optax.apply_updates(again, updates)
    assert (view["kernel"] != again["kernel"]).any()
    np.testing.assert_allclose(
        sj.sparsify(params, after)["kernel"], view["kernel"], atol=1e-6
    )

    def sample(seed):
        tx = sj.hard_concrete(optax.sgd(1.0), seed=seed)
        return sj.sparsify(params, tx.init(params))["kernel"]

    first, second = jax.vmap(sample)(jax.random.split(jax.random.key(0), 2))
    assert (first != second).any()


def test_neurons_share_a_gate():
    _, params, state = begun(granularity="channel")
    assert state.extra[0].shape == (1, 4)
    view = np.asarray(sj.sparsify(params, state)["kernel"])
    assert (view == view[:1]).all()
    assert sj.masks(state)["kernel"].shape == (4, 4)
