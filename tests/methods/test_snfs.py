"""SNFS: growth by momentum, and weights that move between layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.methods.snfs import allocate


def test_grows_by_the_average_of_gradients_not_by_the_last():
    tx = sj.snfs(
        optax.sgd(0.0),
        sparsity=0.5,
        every=10,
        start=2,
        stop=3,
        drop_fraction=0.5,
        momentum=0.5,
        initial_masks={"kernel": jnp.array([[True, True, False, False]])},
    )
    params = {"kernel": jnp.array([[1.0, 2.0, 0.0, 0.0]])}
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update))
    # Averages of the inactive: 0.25 * 8 = 2, 0.25 * 8 = 2, then 2 + ... below 3.
    for gradient in ([0.0, 0, 8, 0], [0.0, 0, 8, 0], [0.0, 0, 0, 4]):
        _, state = update({"kernel": jnp.array([gradient])}, state, params)
    np.testing.assert_allclose(state.memory[0], [[0, 0, 3, 2]])
    assert sj.masks(state)["kernel"].tolist() == [[False, True, True, False]]


def test_weights_move_to_where_momentum_is_and_the_total_stays():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "quiet": jax.random.normal(keys[0], (12, 10)),
        "loud": jax.random.normal(keys[1], (12, 10)),
    }
    options = {"sparsity": 0.5, "every": 2, "stop": 20, "distribution": sj.uniform()}
    counts = {}
    for redistribute in (True, False):
        tx = sj.snfs(optax.sgd(0.0), redistribute=redistribute, **options)
        state = tx.init(params)
        masked = sj.sparsify(params, state)
        update = jax.jit(functools.partial(tx.update))
        for step in range(8):
            noise = jax.random.normal(jax.random.key(step), (12, 10))
            gradients = {"quiet": 0.01 * noise, "loud": noise}
            updates, state = update(gradients, state, masked)
            masked = optax.apply_updates(masked, updates)
            assert sum(active for active, _ in sj.counts(state).values()) == 120
        counts[redistribute] = sj.counts(state)
    assert counts[False] == {"loud": (60, 120), "quiet": (60, 120)}
    assert counts[True]["loud"][0] > 80


jitted_allocate = jax.jit(allocate)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 50)),
        min_size=6,
        max_size=6,
    ),
    st.integers(0, 300),
)
def test_allocation_is_exact_and_within_the_rooms(places, total):
    strength = jnp.array([s for s, _ in places], jnp.float32)
    room = jnp.array([r for _, r in places], jnp.int32)
    shares = jitted_allocate(jnp.array(total, jnp.int32), strength, room)
    assert int(shares.sum()) == min(total, int(room.sum()))
    assert bool((shares >= 0).all()) and bool((shares <= room).all())


def test_allocation_is_proportional_where_there_is_room():
    shares = allocate(jnp.array(12), jnp.array([1.0, 2.0, 3.0]), jnp.array([9, 9, 9]))
    assert shares.tolist() == [2, 4, 6]
    # A full place leaves its part to the others, in their proportion.
    shares = allocate(jnp.array(12), jnp.array([1.0, 2.0, 6.0]), jnp.array([9, 9, 3]))
    assert shares.tolist() == [3, 6, 3]


def test_places_without_strength_come_last():
    shares = allocate(jnp.array(7), jnp.array([1.0, 0.0, 0.0]), jnp.array([2, 9, 9]))
    assert shares[0] == 2
    assert int(shares.sum()) == 7
    shares = allocate(jnp.array(1), jnp.array([1e-20, 1.0]), jnp.array([5, 5]))
    assert shares.tolist() == [0, 1]


def test_shares_of_billions_stay_exact():
    room = jnp.full(3, 2**29, jnp.int32)
    shares = allocate(jnp.array(10**9 + 1), jnp.ones(3), room)
    assert sorted(shares.tolist()) == [333333333, 333333334, 333333334]


@pytest.mark.parametrize(
    ("active", "size", "strength", "expected"),
    [
        # Of four that are dropped three go to the layer with three times the momentum.
        (4, 8, 3.0, (5, 3)),
        # Its two free places are all it can take.
        (4, 4, 9.0, (4, 4)),
        # A layer without any momentum takes nothing.
        (4, 8, 0.0, (2, 6)),
    ],
)
def test_what_is_dropped_is_shared_by_mean_momentum(active, size, strength, expected):
    sizes = {"first": size, "second": 8}
    masks = {name: jnp.arange(n)[None] < active for name, n in sizes.items()}
    params = {
        name: jnp.where(mask, jnp.arange(1.0, mask.size + 1)[None], 0)
        for name, mask in masks.items()
    }
    gradients = {
        "first": jnp.full((1, size), strength),
        "second": jnp.array([[2.0, 0, -1, 1, 9, 9, 9, 9]]),
    }
    tx = sj.snfs(
        optax.sgd(0.0),
        sparsity=None,
        initial_masks=masks,
        start=0,
        every=1,
        stop=1,
        drop_fraction=0.5,
        momentum=0.0,
    )
    _, state = tx.update(gradients, tx.init(params), params)
    counts = sj.counts(state)
    assert (counts["first"][0], counts["second"][0]) == expected
    # The two largest weights of a layer are not dropped.
    for mask in sj.masks(state).values():
        assert bool(mask[0, 2:4].all())


@pytest.mark.parametrize("redistribute", [True, False])
def test_a_dense_network_has_room_for_what_it_drops(redistribute):
    params = {"first": jnp.ones((4, 5)), "second": jnp.ones((6, 5))}
    tx = sj.snfs(
        optax.sgd(0.1),
        sparsity=0.1,
        every=1,
        start=0,
        stop=9,
        drop_fraction=0.5,
        redistribute=redistribute,
    )
    state = tx.init(params)
    params = sj.sparsify(params, state)
    _, state = tx.update(params, state, params)
    assert sum(active for active, _ in sj.counts(state).values()) == 45


def test_without_redistribution_structures_keep_their_family():
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 6))}
    tx = sj.snfs(
        optax.sgd(0.1),
        sparsity=0.5,
        every=1,
        start=0,
        stop=9,
        redistribute=False,
        structure=sj.n_m(2, 4),
    )
    state = tx.init(params)
    before = np.asarray(sj.masks(state)["kernel"])
    params = sj.sparsify(params, state)
    gradients = {"kernel": jax.random.normal(jax.random.key(1), (8, 6))}
    _, state = tx.update(gradients, state, params)
    after = np.asarray(sj.masks(state)["kernel"])
    assert (after.reshape(2, 4, 6).sum(axis=1) == 2).all()
    assert (after != before).any()


def test_structure_and_redistribution_do_not_go_together():
    with pytest.raises(ValueError, match="structure=2:4 does not go with"):
        sj.snfs(optax.sgd(0.1), sparsity=0.5, stop=9, structure=sj.n_m(2, 4))
