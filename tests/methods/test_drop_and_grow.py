"""RigL and SET against the golden values of their papers' rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

MASK = jnp.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
WEIGHT = jnp.array([[0.5, -0.1, 0.3, -0.9], [0, 0, 0, 0]])
STEEP_AT_KEPT = jnp.array([[9, 9, 9, 9], [0.2, -0.7, 0.1, 0.4]])
STEEP_ELSEWHERE = jnp.array([[0.05, 0.3, 0.6, 0.05], [0.2, -0.7, 0.1, 0.4]])


def move_once(method, weight, mask, gradient, **options):
    """One topology move at step 0 from a given mask; returns params, state."""
    masks = {"kernel": mask}
    tx = getattr(sj, method)(
        options.pop("inner", optax.sgd(0.1)),
        sparsity=None,
        initial_masks=masks,
        start=0,
        every=1,
        stop=10,
        **{"drop_fraction": 0.5, **options},
    )
    params = {"kernel": weight}
    state = tx.init(params)
    updates, state = tx.update({"kernel": gradient}, state, params)
    return optax.apply_updates(params, updates)["kernel"], state


def active(state):
    return np.flatnonzero(np.asarray(sj.masks(state)["kernel"])).tolist()


def test_rigl_regrows_what_it_just_dropped():
    weight, state = move_once("rigl", WEIGHT, MASK, STEEP_AT_KEPT)
    assert active(state) == [0, 1, 2, 3]
    np.testing.assert_array_equal(weight, WEIGHT)


def test_rigl_without_regrowing():
    _, state = move_once("rigl", WEIGHT, MASK, STEEP_AT_KEPT, regrow_dropped=False)
    assert active(state) == [0, 3, 5, 7]


def test_rigl_grows_by_gradient_magnitude_and_starts_at_zero():
    weight, state = move_once("rigl", WEIGHT, MASK, STEEP_ELSEWHERE)
    assert active(state) == [0, 2, 3, 5]
    want = jnp.array([[0.5, 0, 0.3, -0.9], [0, 0, 0, 0]])
    np.testing.assert_array_equal(weight, want)


def test_growth_sees_the_raw_gradient_not_the_clipped_one():
    inner = optax.chain(optax.clip(1e-3), optax.sgd(0.1))
    _, state = move_once("rigl", WEIGHT, MASK, STEEP_ELSEWHERE, inner=inner)
    assert active(state) == [0, 2, 3, 5]


def test_nothing_moves_at_fraction_zero():
    for method in ("rigl", "set"):
        _, state = move_once(method, WEIGHT, MASK, STEEP_ELSEWHERE, drop_fraction=0.0)
        assert active(state) == [0, 1, 2, 3]


def test_the_move_holds_every_parameter():
    tx = sj.rigl(optax.sgd(0.1), sparsity=0.5, start=1, every=10, stop=5)
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(gradients, state, params)
    assert float(jnp.abs(updates["bias"]).min()) > 0
    updates, state = tx.update(gradients, state, params)
    assert float(jnp.abs(updates["bias"]).max()) == 0


SIGNED = jnp.array([[-0.6, -0.3, -0.05, 0.1, 0.2, 0.5, 0.9, 0, 0, 0, 0, 0, 0, 0]])


def survivors(zeta, signwise):
    """Weights after one move of SET, for eight seeds."""
    values = SIGNED.reshape(2, 7)

    def one(key):
        return move_once(
            "set",
            values,
            values != 0,
            jnp.zeros((2, 7)),
            drop_fraction=zeta,
            signwise=signwise,
            seed=key,
        )[0]

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 8))


@pytest.mark.parametrize(
    ("zeta", "signwise", "dropped"),
    [(0.3, True, {0.1}), (0.34, True, {0.1, -0.05}), (0.3, False, {-0.05, 0.1})],
)
def test_set_drops_by_count(zeta, signwise, dropped):
    # A dropped weight may be grown again and then keeps its value: over many seeds
    # every value that is ever lost is one that was dropped.
    values = np.asarray(SIGNED).reshape(2, 7)
    after = np.asarray(survivors(zeta, signwise))
    lost = values[((after == 0) & (values != 0)).any(axis=0)]
    assert {round(float(value), 4) for value in lost} == dropped


def test_set_grows_uniformly():
    weight = jnp.arange(1.0, 13.0).reshape(3, 4) * (jnp.arange(12).reshape(3, 4) < 6)
    mask = weight != 0

    @jax.jit
    @jax.vmap
    def grown(key):
        masks = {"kernel": mask}
        tx = sj.set(
            optax.sgd(0.1),
            sparsity=None,
            initial_masks=masks,
            start=0,
            every=1,
            stop=9,
            drop_fraction=0.5,
            seed=key,
        )
        params = {"kernel": weight}
        _, state = tx.update(params, tx.init(params), params)
        return sj.masks(state)["kernel"]

    draws = 10_000
    found = np.asarray(grown(jax.random.split(jax.random.key(0), draws)))
    assert (found.sum(axis=(1, 2)) == 6).all()
    frequency = found.reshape(draws, -1).mean(axis=0)
    assert (frequency[3:6] == 1).all(), "the largest weights stay"
    candidates = np.delete(frequency, [3, 4, 5])
    deviation = np.sqrt(1 / 3 * 2 / 3 / draws)
    assert np.abs(candidates - 1 / 3).max() < 5 * deviation


def test_count_is_conserved_over_a_thousand_random_updates():
    tx = sj.rigl(
        optax.sgd(0.1, momentum=0.9),
        sparsity=0.7,
        start=0,
        every=1,
        stop=2000,
        drop_fraction=0.4,
    )
    params = {"kernel": jax.random.normal(jax.random.key(0), (13, 7))}
    state = tx.init(params)

    @jax.jit
    def train(params, state):
        def body(carry, key):
            params, state = carry
            # Coarse gradients tie often; every third is all zero.
            noise = jnp.round(jax.random.normal(key, (13, 7)))
            zero = jax.random.bernoulli(key, 1 / 3)
            gradients = {"kernel": jnp.where(zero, 0.0, noise)}
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            mask = sj.masks(state)["kernel"]
            stray = jnp.sum((params["kernel"] != 0) & ~mask)
            return (params, state), (mask.sum(), stray)

        keys = jax.random.split(jax.random.key(1), 1000)
        return jax.lax.scan(body, (sj.sparsify(params, state), state), keys)

    _, (counts, strays) = train(params, state)
    assert set(np.asarray(counts).tolist()) == {27}
    assert int(strays.sum()) == 0
