"""Shares of layers: exact, within the rooms, in proportion."""

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.allocation import allocate

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
