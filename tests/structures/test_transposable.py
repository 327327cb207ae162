"""Transposable N:M: golden tiles, exact optima, and what has to stay in them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import sparsejax as sj
from sparsejax.layers import Layer, by_name, flax
from sparsejax.structures.transposable import _patterns


def layer_of(shape, path="kernel"):
    return Layer(path, shape, by_name()(path, shape))


def tiles_of(array, m):
    """The tiles of a matrix ``(inputs, outputs)``."""
    rows, columns = array.shape
    split = array.reshape(rows // m, m, columns // m, m)
    return split.transpose(0, 2, 1, 3).reshape(-1, m, m)


def assert_member(mask, n, m):
    tiles = tiles_of(np.asarray(mask), m)
    assert (tiles.sum(axis=1) == n).all()
    assert (tiles.sum(axis=2) == n).all()


def optimum(worth, n, kept=None):
    """The largest total of a tile; the linear program's corners are the patterns."""
    m = len(worth)
    sums = np.zeros((2 * m, m, m))
    for i in range(m):
        sums[i, i] = 1
        sums[m + i, :, i] = 1
    least = np.zeros(m * m) if kept is None else kept.reshape(-1).astype(float)
    found = linprog(
        -worth.reshape(-1).astype(float),
        A_eq=sums.reshape(2 * m, -1),
        b_eq=np.full(2 * m, n),
        bounds=np.stack([least, np.ones(m * m)], axis=1),
    )
    return -found.fun


TRAP = [[13, 5, 14, 1], [10, 13, 16, 9], [15, 4, 15, 15], [15, 9, 10, 5]]


def test_greedy_would_be_trapped():
    scores = jnp.array(TRAP, jnp.float32)
    [mask] = sj.transposable(2, 4).select([layer_of((4, 4))], [scores], [jnp.int32(8)])
    assert_member(mask, 2, 4)
    assert int(jnp.where(mask, scores, 0).sum()) == 103


def test_patterns_of_two_in_four():
    patterns = _patterns(2, 4)
    assert len(patterns) == 90
    assert len(np.unique(patterns, axis=0)) == 90
    assert (patterns.sum(axis=1) == 2).all()
    assert (patterns.sum(axis=2) == 2).all()


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 4), (3, 4), (2, 5), (4, 8), (1, 8)])
def test_every_tile_is_optimal(n, m):
    random = np.random.default_rng(n * m)
    shape = (3 * m, 2 * m)
    # Heavy tails, ties, and one tile of nothing but ties.
    scores = np.round(random.standard_cauchy(size=shape), 1).astype(np.float32)
    scores[:m, :m] = -1.5
    layer, structure = layer_of(shape), sj.transposable(n, m)
    counts = structure.measure([layer], [None])
    mask = np.asarray(structure.select([layer], [jnp.asarray(scores)], counts)[0])
    assert_member(mask, n, m)
    assert int(mask.sum()) == int(counts[0])
    for tile, chosen in zip(tiles_of(scores, m), tiles_of(mask, m), strict=True):
        total = float(tile[chosen].sum())
        span = float(np.ptp(tile))
        # Scores are compared at a millionth of their span.
        assert total == pytest.approx(optimum(tile, n), abs=1e-5 * span + 1e-4)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_what_is_kept_of_a_member_stays(n, m):
    structure, layer = sj.transposable(n, m), layer_of((6 * m, m))

    @jax.jit
    def choose(scores, kept):
        return structure.select([layer], [scores], [jnp.int32(0)], None, [kept])[0]

    random = np.random.default_rng(0)
    # A tiny score on what is kept must not cost it its place, nor a large one others.
    member = np.asarray(
        choose(
            jnp.asarray(random.random(layer.shape, np.float32)),
            jnp.zeros(layer.shape, bool),
        )
    )
    for share in (0.0, 0.5, 0.8, 1.0):
        kept = member & (random.random(layer.shape) < share)
        scores = random.normal(size=layer.shape).astype(np.float32)
        scores[kept] *= 1e4
        mask = np.asarray(choose(jnp.asarray(scores), jnp.asarray(kept)))
        assert_member(mask, n, m)
        assert (mask >= kept).all()
        rows = (tiles_of(array, m) for array in (scores, kept, mask))
        for tile, stay, chosen in zip(*rows, strict=True):
            free = np.where(stay, 0, tile)
            best = optimum(free, n, stay)
            assert float(free[chosen].sum()) == pytest.approx(best, abs=1e-3)


@jax.jit
def complete(tile, kept):
    structure, layer = sj.transposable(2, 4), layer_of((4, 4))
    return structure.select([layer], [tile], [jnp.int32(8)], None, [kept])[0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=16, max_size=16), st.data())
def test_any_tile_equals_brute_force(numbers, data):
    tile = np.array(numbers, np.float32).reshape(4, 4)
    kept = np.zeros((4, 4), bool)
    pattern = data.draw(st.sampled_from(range(90)))
    cells = np.argwhere(_patterns(2, 4)[pattern])
    for row, column in cells[: data.draw(st.integers(0, 8))]:
        kept[row, column] = True
    mask = np.asarray(complete(tile, kept))
    fitting = [p for p in _patterns(2, 4) if (p >= kept).all()]
    assert (mask >= kept).all()
    assert tile[mask].sum() == max(tile[p].sum() for p in fitting)


def test_forbidden_and_nan_entries_are_left_out():
    scores = np.ones((8, 8), np.float32)
    scores[0, 0], scores[3, 3] = np.nan, -np.inf
    inside = np.ones((8, 8), bool)
    inside[5, 6] = False
    for n, m in ((2, 4), (4, 8)):
        structure, layer = sj.transposable(n, m), layer_of((8, 8))
        [mask] = structure.select(
            [layer], [jnp.asarray(scores)], [jnp.int32(0)], [jnp.asarray(inside)]
        )
        assert not bool(mask[0, 0] | mask[3, 3] | mask[5, 6])
        # There is room for n in every row without them.
        assert_member(mask, n, m)


def test_infinite_scores_come_first():
    scores = np.arange(16, dtype=np.float32).reshape(4, 4)
    scores[0, 0] = np.inf
    structure, layer = sj.transposable(1, 4), layer_of((4, 4))
    [mask] = structure.select([layer], [jnp.asarray(scores)], [jnp.int32(4)])
    assert bool(mask[0, 0])


@pytest.mark.parametrize(
    ("path", "shape"), [("kernel", (2, 2, 8, 4)), ("weight", (4, 8, 2, 2))]
)
def test_tiles_of_a_kernel_are_channels_by_outputs_at_each_position(path, shape):
    layer, structure = layer_of(shape, path), sj.transposable(2, 4)
    scores = jnp.asarray(np.random.default_rng(0).random(shape, np.float32))
    counts = structure.measure([layer], [None])
    mask = np.asarray(structure.select([layer], [scores], counts)[0])
    if path == "weight":
        mask = mask.transpose(2, 3, 1, 0)
    for i, j in itertools.product(range(2), range(2)):
        assert_member(mask[i, j], 2, 4)


def test_stacked_layers():
    layer = Layer("blocks", (3, 8, 4), flax(stacked={"blocks": 1})("blocks", (3, 8, 4)))
    structure = sj.transposable(2, 4)
    scores = jnp.asarray(np.random.default_rng(0).random((3, 8, 4), np.float32))
    [mask] = structure.select([layer], [scores], [jnp.full(3, 16)])
    assert structure.measure([layer], [mask])[0].tolist() == [16, 16, 16]
    for each in np.asarray(mask):
        assert_member(each, 2, 4)


def test_layers_that_tiles_do_not_divide_are_named():
    tx = sj.static(optax.sgd(0.1), sparsity=0.5, structure=sj.transposable(2, 4))
    with pytest.raises(ValueError, match=r"multiples of 4; odd/kernel has 6 outputs"):
        tx.init({"even": {"kernel": jnp.ones((8, 8))}, "odd/kernel": jnp.ones((8, 6))})


def test_another_sparsity_is_refused():
    tx = sj.static(optax.sgd(0.1), sparsity=0.75, structure=sj.transposable(2, 4))
    with pytest.raises(ValueError, match=r"sparsity=0\.75 .*pass sparsity=0\.5,"):
        tx.init({"kernel": jnp.ones((64, 64))})
