"""Blocks: golden tiles, ragged edges, their budgets."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.layers import Layer, by_name, flax


def layer_of(shape, path="kernel", layout=None):
    return Layer(path, shape, (layout or by_name())(path, shape))


def selected(structure, scores, count, path="kernel"):
    layer = layer_of(scores.shape, path)
    [mask] = structure.select([layer], [scores], [jnp.int32(count)])
    return np.asarray(mask)


GOLDEN = [[1, 1, 0, 4], [1, 1, 0, 0], [2, 2, 0.1, 0.1], [2, 2, 0.1, 0.1]]


@pytest.mark.parametrize(
    ("pool", "tiles"), [("mean", {(0, 0), (1, 0)}), ("max", {(0, 1), (1, 0)})]
)
def test_golden_tiles(pool, tiles):
    scores = jnp.array(GOLDEN, jnp.float32)
    mask = selected(sj.block(2, 2, pool=pool), scores, 8).reshape(2, 2, 2, 2)
    for i in range(2):
        for j in range(2):
            assert (mask[i, :, j, :] == ((i, j) in tiles)).all()


def test_height_is_inputs_and_width_outputs():
    scores = jnp.zeros((4, 6)).at[3, 4].set(1.0)
    mask = selected(sj.block(1, 3, pool="max"), scores, 3)
    np.testing.assert_array_equal(np.argwhere(mask), [[3, 3], [3, 4], [3, 5]])
    # Equinox has outputs first.
    mask = selected(sj.block(1, 3, pool="max"), scores.T, 3, "weight")
    np.testing.assert_array_equal(np.argwhere(mask), [[3, 3], [4, 3], [5, 3]])


def test_blocks_of_a_convolution_run_along_channels():
    scores = jnp.zeros((2, 2, 4, 4)).at[1, 0, 3, 1].set(1.0)
    mask = selected(sj.block(2, 2), scores, 4)
    assert (np.argwhere(mask)[:, :2] == [1, 0]).all()
    corner = [[2, 0], [2, 1], [3, 0], [3, 1]]
    np.testing.assert_array_equal(np.argwhere(mask[1, 0]), corner)


def test_the_mean_is_over_the_weights_that_a_ragged_tile_has():
    # Tiles of a 3 x 3 matrix have 4, 2, 2 and 1 weights; the last has the best mean.
    scores = jnp.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1.5]])
    mask = selected(sj.block(2, 2), scores, 1)
    np.testing.assert_array_equal(np.argwhere(mask), [[2, 2]])


@pytest.mark.parametrize(("sparsity", "tiles"), [(0.0, 9), (0.5, 4), (0.9, 1)])
def test_ragged_tiles_keep_their_share_of_the_budget(sparsity, tiles):
    tx = sj.static(optax.sgd(0.1), sparsity=sparsity, structure=sj.block(2, 2))
    mask = np.asarray(sj.masks(tx.init({"kernel": jnp.ones((5, 5))}))["kernel"])
    corners = mask[::2, ::2]
    assert corners.sum() == tiles
    whole = np.repeat(np.repeat(corners, 2, axis=0), 2, axis=1)[:5, :5]
    np.testing.assert_array_equal(mask, whole)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (7, 2), (101, 67), (4, 6)])
def test_a_number_of_tiles_is_asked_for_by_what_is_measured(shape):
    structure, layer = sj.block(2, 2), layer_of(shape)
    number = -(-shape[0] // 2) * -(-shape[1] // 2)
    scores = jnp.asarray(np.random.default_rng(0).random(shape, np.float32))
    for tiles in {1, 2, number // 3, number - 1, number}:
        [count] = structure.fit([layer], [(round(tiles * layer.size / number),)])
        [mask] = structure.select([layer], [scores], [jnp.int32(count[0])])
        assert int(mask[::2, ::2].sum()) == tiles
        assert structure.measure([layer], [mask])[0].tolist() == count[0]
        assert count[0] <= layer.size


def test_nothing_is_dropped_at_fraction_zero_even_from_ragged_tiles():
    layer, structure = layer_of((5, 5)), sj.block(2, 2)
    # The five tiles at the edges, with 9 weights.
    mask = jnp.zeros((5, 5), bool).at[4].set(True).at[:, 4].set(True)
    [stay] = structure.thin([layer], [jnp.ones((5, 5))], [jnp.int32(9)], [mask])
    np.testing.assert_array_equal(stay, mask)


def test_budgets_are_rounded_to_whole_tiles_or_refused():
    structure, layer = sj.block(4, 2), layer_of((8, 8))
    assert structure.fit([layer], [(19,)]) == [(16,)]
    assert structure.fit([layer], [(21,)]) == [(24,)]
    with pytest.raises(ValueError, match=r"kernel may keep 3 weights.*block 4x2.*8"):
        structure.fit([layer], [(3,)])


def test_stacked_layers_have_their_own_tiles():
    layer = layer_of((2, 4, 4), "blocks", flax(stacked={"blocks": 1}))
    scores = jnp.ones((2, 4, 4)).at[0, :2, :2].set(2.0).at[1, 2:, 2:].set(2.0)
    [mask] = sj.block(2, 2).select([layer], [scores], [jnp.array([4, 8])])
    assert bool(mask[0, :2, :2].all())
    assert bool(mask[1, 2:, 2:].all())
    assert np.asarray(mask).sum(axis=(1, 2)).tolist() == [4, 8]


@pytest.mark.parametrize("arguments", [(0, 2), (2, 0), (2, 2.5)])
def test_impossible_tiles_are_refused(arguments, any_type):
    with pytest.raises(ValueError, match=r"height=|width="):
        sj.block(*arguments)


def test_unknown_pooling_is_refused(any_type):
    with pytest.raises(ValueError, match="pool='sum' is unknown"):
        sj.block(2, 2, pool="sum")
