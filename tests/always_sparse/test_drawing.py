"""Random connections: distinct, evenly spread, and only where they are asked for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparsejax.always_sparse.drawing import redraw


@pytest.mark.parametrize(("inputs", "width"), [(5, 5), (6, 3), (1000, 40)])
def test_rows_have_no_input_twice(inputs, width):
    blank = jnp.zeros((200, width), jnp.int32)
    rows = np.asarray(redraw(jax.random.key(0), blank, blank == 0, inputs))
    assert rows.min() >= 0 and rows.max() < inputs
    assert all(len({*row}) == width for row in rows.tolist())


def test_every_set_of_inputs_is_equally_likely():
    blank = jnp.zeros((20_000, 2), jnp.int32)
    rows = np.sort(redraw(jax.random.key(1), blank, blank == 0, 5), axis=1)
    sets = [*itertools.combinations(range(5), 2)]
    found = [int((rows == one).all(axis=1).sum()) for one in sets]
    assert sum(found) == 20_000
    assert stats.chisquare(found).pvalue > 1e-4


def test_what_is_not_replaced_stays_and_is_not_drawn_again():
    first = jnp.tile(jnp.arange(4, dtype=jnp.uint8), (500, 1))
    where = jnp.tile(jnp.array([False, True, False, True]), (500, 1))
    rows = np.asarray(redraw(jax.random.key(2), first, where, 6))
    assert rows.dtype == np.uint8
    assert (rows[:, [0, 2]] == [0, 2]).all()
    assert {*rows[:, 1].tolist()} == {*rows[:, 3].tolist()} == {1, 3, 4, 5}
    assert all(len({*row}) == 4 for row in rows.tolist())


def test_the_same_key_draws_the_same():
    blank = jnp.zeros((9, 3), jnp.int32)
    rows = [redraw(jax.random.key(k), blank, blank == 0, 50) for k in (0, 0, 1)]
    assert bool((rows[0] == rows[1]).all()) and bool((rows[0] != rows[2]).any())
