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


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 50)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 300),
)
def test_allocation_is_exact_and_within_the_rooms(places, total):
    strength = jnp.array([s for s, _ in places], jnp.float32)
    room = jnp.array([r for _, r in places], jnp.int32)
    shares = allocate(jnp.array(total, jnp.int32), strength, room)
    assert int(shares.sum()) == min(total, int(room.sum()))
    assert bool((shares >= 0).all()) and bool((shares <= room).all())


def test_allocation_is_proportional_where_there_is_room():
    shares = allocate(jnp.array(12), jnp.array([1.0, 2.0, 3.0]), jnp.array([9, 9, 9]))
    assert shares.tolist() == [2, 4, 6]
    # A full place leaves its part to the others, in their proportion.
    shares = allocate(jnp.array(12), jnp.array([1.0, 2.0, 6.0]), jnp.array([9, 9, 3]))
    assert shares.tolist() == [3, 6, 3]


def test_structure_and_redistribution_do_not_go_together():
    with pytest.raises(ValueError, match="structure=2:4 does not go with"):
        sj.snfs(optax.sgd(0.1), sparsity=0.5, stop=9, structure=sj.n_m(2, 4))
