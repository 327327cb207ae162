"""Constant fan-in, and unstructured masks, which share how weights are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.layers import Layer, by_name, flax

LAYER = Layer("kernel", (6, 3), by_name()("kernel", (6, 3)))


@jax.jit
def complete(scores, count, kept=None):
    kept = None if kept is None else [kept]
    return sj.fan_in().select([LAYER], [scores], [count], None, kept)[0]


def by_sorting(rows, k):
    """The ``k`` largest of every row, ties to the lowest index; never NaN or -inf."""
    eligible = rows > -np.inf
    order = np.argsort(np.where(eligible, -rows, np.inf), axis=-1, kind="stable")
    mask = np.zeros(rows.shape, bool)
    np.put_along_axis(mask, order[:, :k], True, axis=-1)
    return mask & eligible


values = st.one_of(
    st.integers(-3, 3).map(float),
    st.sampled_from([np.inf, -np.inf, np.nan]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(values, min_size=18, max_size=18), st.integers(0, 20))
def test_every_neuron_keeps_its_best_inputs(numbers, count):
    rows = np.array(numbers, np.float32).reshape(3, 6)
    mask = complete(rows.T, jnp.int32(count))
    np.testing.assert_array_equal(mask.T, by_sorting(rows, count // 3))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=18, max_size=18), st.data())
def test_neurons_grow_back_to_the_common_fan_in(numbers, data):
    rows = np.array(numbers, np.float32).reshape(3, 6)
    kept = np.zeros((3, 6), bool)
    for row in kept:
        row[list(data.draw(st.sets(st.integers(0, 5), max_size=3)))] = True
    mask = complete(rows.T, jnp.int32(9), kept.T).T
    np.testing.assert_array_equal(mask, by_sorting(np.where(kept, np.inf, rows), 3))


def test_weights_are_dropped_wherever_in_the_layer_they_are_smallest():
    mask = jnp.zeros((6, 3), bool).at[:2].set(True)
    scores = jnp.array([[1.0, 2, 9], [1, 2, 9], *[[0, 0, 0]] * 4])
    [stay] = sj.fan_in().thin([LAYER], [scores], [jnp.int32(3)], [mask])
    np.testing.assert_array_equal(np.argwhere(stay), [[0, 1], [0, 2], [1, 2]])


def test_budgets_are_rounded_down_to_one_fan_in_or_refused():
    structure = sj.fan_in()
    assert structure.fit([LAYER], [(8,)]) == [(6,)]
    assert structure.fit([LAYER], [(18,)]) == [(18,)]
    tx = sj.static(optax.sgd(0.1), sparsity=0.9, structure=structure)
    with pytest.raises(ValueError, match="kernel may keep 2 weights, fewer than its 3"):
        tx.init({"kernel": jnp.ones((6, 3))})


@pytest.mark.parametrize(
    ("path", "shape"),
    [("kernel", (3, 3, 2, 4)), ("weight", (4, 2, 3, 3)), ("query/kernel", (6, 2, 2))],
)
def test_neurons_of_other_layouts(path, shape, implicit_promotion):
    tx = sj.static(optax.sgd(0.1), sparsity=0.5, structure=sj.fan_in())
    module, _, name = path.rpartition("/")
    params = {module: {name: jnp.ones(shape)}} if module else {name: jnp.ones(shape)}
    masks = sj.masks(tx.init(params))
    mask = np.asarray((masks[module] if module else masks)[name])
    neurons = (1, 2) if module else 0 if name == "weight" else -1
    moved = np.moveaxis(mask, neurons, (0, 1) if module else 0)
    rows = moved.reshape(4, -1)
    assert (rows.sum(axis=1) == rows.shape[1] // 2).all()


def test_stacked_layers_have_their_own_fan_in():
    layer = Layer("blocks", (2, 6, 3), flax(stacked={"blocks": 1})("blocks", (2, 6, 3)))
    [mask] = sj.fan_in().select([layer], [jnp.ones((2, 6, 3))], [jnp.array([3, 12])])
    assert np.asarray(mask).sum(axis=1).tolist() == [[1] * 3, [4] * 3]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_unstructured_completes_exactly(dtype):
    random = np.random.default_rng(0)
    scores = jnp.asarray(np.round(random.normal(size=(6, 3))), dtype)
    kept = jnp.asarray(random.random((6, 3)) < 0.3)
    few = int(kept.sum())
    for count in (0, few, few + 5, 18):
        arrays = [scores], [jnp.int32(count)], None, [kept]
        [mask] = sj.unstructured().select([LAYER], *arrays)
        assert int(mask.sum()) == max(count, few)
        assert bool((mask >= kept).all())
