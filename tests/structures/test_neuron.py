"""Whole neurons, and what all structures of units share."""

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.layers import Layer, by_name, flax


def layer_of(shape, path="kernel", layout=None):
    return Layer(path, shape, (layout or by_name())(path, shape))


def kept_neurons(structure, scores, neurons, **more):
    """Which columns of an ``(inputs, neurons)`` kernel stay."""
    layer = layer_of(scores.shape)
    count = jnp.int32(neurons * layer.fan_in)
    [mask] = structure.select([layer], [scores], [count], **more)
    mask = np.asarray(mask)
    assert (mask == mask[:1]).all()
    return np.flatnonzero(mask[0]).tolist()


# Columns: the same sum, but more or less of it in one weight; then small ones.
COLUMNS = jnp.array([[3.0, 2, 0.1], [0, 1, 0.1], [0, 0, 0.1]])


def test_norms():
    assert kept_neurons(sj.neuron(norm="l2"), COLUMNS, 1) == [0]
    # The same l1 norm: the lowest index.
    assert kept_neurons(sj.neuron(norm="l1"), COLUMNS[:, ::-1], 1) == [1]
    assert kept_neurons(sj.neuron(norm="l1"), COLUMNS, 2) == [0, 1]


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_norm_vanishes_or_overflows(norm, scale):
    scores = jnp.array([[1.0, 3, 2], [1, 3, 2]]) * scale
    assert kept_neurons(sj.neuron(norm=norm), scores, 2) == [1, 2]


def test_filters_of_convolutions():
    scores = np.zeros((3, 3, 4, 5), np.float32)
    scores[..., 2] = 1
    for path, array in (("kernel", scores), ("weight", scores.transpose(3, 2, 0, 1))):
        layer = layer_of(array.shape, path)
        [mask] = sj.neuron().select([layer], [jnp.asarray(array)], [jnp.int32(36)])
        np.testing.assert_array_equal(mask, array > 0)


UNITS = {
    "neuron": sj.neuron(),
    "neuron l1": sj.neuron(norm="l1"),
    "block": sj.block(2, 1),
    "block max": sj.block(2, 1, pool="max"),
    "diagonal": sj.diagonal(),
}


def best_unit(structure, scores):
    layer = layer_of(scores.shape)
    [mask] = structure.select([layer], [scores], [jnp.int32(2)])
    assert int(mask.sum()) == 2
    return mask


def with_unit(structure, value):
    """Scores of 1, of which the best unit's first weight has another value."""
    usual = jnp.ones((2, 4))
    unit = best_unit(structure, usual)
    return unit, jnp.where(
        unit & (jnp.cumsum(unit.reshape(-1)).reshape(2, 4) == 1), value, usual
    )


BAD = [(name, value) for name in UNITS for value in (jnp.nan, -jnp.inf, -9.0)]
# One bad weight does not change the largest.
BAD.remove(("block max", -9.0))


@pytest.mark.parametrize(("name", "value"), BAD)
def test_nan_and_bad_scores_make_a_unit_the_worst(name, value):
    structure = UNITS[name]
    bad, scores = with_unit(structure, value)
    assert not bool((best_unit(structure, scores) & bad).any())
    # Among all units it is there, so that counts stay exact.
    layer = layer_of(scores.shape)
    [mask] = structure.select([layer], [scores], [jnp.int32(8)])
    assert int(mask.sum()) == 8


@pytest.mark.parametrize("name", UNITS)
def test_an_infinite_score_makes_a_unit_the_best(name):
    structure = UNITS[name]
    first, _ = with_unit(structure, 1.0)
    scores = jnp.ones((2, 4)).at[1, 3].set(jnp.inf)
    best = best_unit(structure, scores)
    assert bool(best[1, 3])
    assert not bool((best & first).all())


@pytest.mark.parametrize("name", UNITS)
def test_kept_units_stay_whatever_their_score(name):
    structure, layer = UNITS[name], layer_of((2, 4))
    first = best_unit(structure, jnp.ones((2, 4)))
    scores = jnp.where(first, -5.0, 1.0)
    [mask] = structure.select([layer], [scores], [jnp.int32(4)], None, [first])
    assert bool((mask >= first).all())
    assert int(mask.sum()) == 4


@pytest.mark.parametrize("name", UNITS)
def test_units_that_are_not_wholly_allowed_are_not_chosen(name):
    structure, layer = UNITS[name], layer_of((2, 4))
    inside = jnp.ones((2, 4), bool).at[0, 1].set(False)
    [mask] = structure.select([layer], [jnp.ones((2, 4))], [jnp.int32(8)], [inside])
    assert bool((mask <= inside).all())
    assert int(mask.sum()) == 6


def test_stacked_layers_are_ranked_apart():
    layer = layer_of((2, 3, 4), "blocks", flax(stacked={"blocks": 1}))
    scores = jnp.ones((2, 3, 4)).at[1].set(1e-3).at[1, :, 3].set(2e-3)
    [mask] = sj.neuron().select([layer], [scores], [jnp.array([6, 3])])
    np.testing.assert_array_equal(mask[:, 0], [[1, 1, 0, 0], [0, 0, 0, 1]])
    assert sj.neuron().measure([layer], [mask])[0].tolist() == [6, 3]


def test_budgets_are_rounded_to_whole_neurons_or_refused():
    structure, layer = sj.neuron(), layer_of((10, 4))
    assert structure.fit([layer], [(14,)]) == [(10,)]
    assert structure.fit([layer], [(16,)]) == [(20,)]
    assert structure.fit([layer], [(40,)]) == [(40,)]
    with pytest.raises(ValueError, match=r"may keep 4 weights.*half.*neuron.*has 10"):
        structure.fit([layer], [(4,)])


def test_unknown_norm_is_refused(any_type):
    with pytest.raises(ValueError, match="norm='l3' is unknown"):
        sj.neuron(norm="l3")
