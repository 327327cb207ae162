"""STR: forward, exact zero gradients, and thresholds that only decay can move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj

W = jnp.array([[0.5], [-0.002], [0.006], [-0.3]])
UPSTREAM = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])


def test_forward_and_true_gradients():
    tx = sj.soft_threshold(optax.sgd(1.0), initial_threshold=-5.0)
    state = tx.init({"kernel": W})
    view = sj.sparsify({"kernel": W}, state)
    np.testing.assert_allclose(
        view["kernel"][:, 0], [0.493307, 0, 0, -0.293307], atol=1e-6
    )
    _, after = tx.update({"kernel": UPSTREAM}, state, view)
    moved = np.asarray(W - after.latents["kernel"])[:, 0]
    np.testing.assert_allclose(moved, [1, 0, 0, -1], atol=1e-6)
    assert moved[1] == moved[2] == 0
    np.testing.assert_allclose(state.extra[0] - after.extra[0], -0.0132961, atol=1e-6)


def test_thresholds_decay_by_the_formula():
    rate, decay = 0.256, 2.2517578e-5
    inner = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    tx = sj.soft_threshold(inner)
    params = {"kernel": jnp.ones((2, 2))}
    state, update = tx.init(params), jax.jit(tx.update)
    nothing = {"kernel": jnp.zeros((2, 2))}
    for _ in range(50):
        _, state = update(nothing, state, params)
    want = -3200 * (1 - 5.7645e-6) ** 50
    # In float32 each step of 0.018 rounds to a multiple of 2**-12.
    np.testing.assert_allclose(state.extra[0], want, rtol=0, atol=50 * 2**-13)
    assert sj.counts(state) == {"kernel": (4, 4)}


def test_without_decay_thresholds_stay():
    tx = sj.soft_threshold(optax.adam(0.1))
    params = {"kernel": W}
    _, after = tx.update({"kernel": UPSTREAM}, tx.init(params), params)
    np.testing.assert_array_equal(after.extra[0], -3200)


def test_each_stacked_layer_and_channel_has_its_own_threshold():
    params = {"kernel": jnp.ones((2, 8, 3))}
    layout = sj.flax(stacked={"kernel": 1})
    shapes = {
        name: sj.soft_threshold(optax.sgd(0.1), granularity=name, layout=layout)
        .init(params)
        .extra[0]
        .shape
        for name in ("layer", "channel", "weight")
    }
    assert shapes == {"layer": (2, 1, 1), "channel": (2, 1, 3), "weight": (2, 8, 3)}
