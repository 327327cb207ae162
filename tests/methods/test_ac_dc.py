"""AC/DC: the published phase tables, counts in the phases, decompressing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.methods.ac_dc import phases


def test_golden_phases_of_imagenet():
    # Epochs: dense until 10, cycles of 5 and 5, dense 75-85, sparse 85-100.
    compress, decompress = phases(10, 5, 85)
    assert compress == (*range(10, 71, 10), 85)
    assert decompress == tuple(range(15, 76, 10))


def test_golden_phases_of_cifar():
    assert phases(10, 20, 170) == ((10, 50, 90, 130, 170), (30, 70, 110, 150))


def test_a_short_training_is_pruned_once():
    assert phases(5, 5, 5) == ((5,), ())
    assert phases(5, 5, 14) == ((14,), ())
    assert phases(5, 5, 15) == ((5, 15), (10,))


def history(tx, params, steps, gradients=None):
    """Parameters and masks after every update; a constant gradient."""
    state, update = tx.init(params), jax.jit(tx.update)
    gradients = gradients or jax.tree.map(jnp.ones_like, params)
    found = []
    for _ in range(steps):
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        found.append((params, sj.masks(state)))
    return found


def random_params():
    kernel = jax.random.normal(jax.random.key(0), (10, 10))
    return {"kernel": kernel, "head": kernel[:4, :5] / 10}


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": 10, "every": 5, "stop": 85},
        {"compress": (*range(10, 71, 10), 85), "decompress": tuple(range(15, 76, 10))},
    ],
)
def test_counts_of_the_whole_table(arguments):
    tx = sj.ac_dc(optax.sgd(1e-3), sparsity=0.9, scope="layer", **arguments)
    found = history(tx, random_params(), 100)
    active = [sum(int(m.sum()) for m in masks.values()) for _, masks in found]
    sparse = [
        (10 <= epoch < 75 and epoch % 10 < 5) or epoch >= 85 for epoch in range(100)
    ]
    assert active == [12 if one else 120 for one in sparse]


def test_scopes():
    arguments = {"sparsity": 0.75, "start": 0, "every": 2, "stop": 4}
    even = {"distribution": sj.uniform()}
    params = random_params()
    params["head"] = params["head"].at[0, 0].set(9.0)
    tx = sj.ac_dc(optax.sgd(0.0), **arguments, **even)
    [(_, masks)] = history(tx, params, 1)
    assert int(masks["head"].sum()) == 1, "plain magnitudes, all layers together"
    tx = sj.ac_dc(optax.sgd(0.0), scope="layer", **arguments, **even)
    [(_, masks)] = history(tx, params, 1)
    assert [int(masks[name].sum()) for name in ("kernel", "head")] == [25, 5]
    with pytest.raises(ValueError, match="structure=neuron does not go with scope='gl"):
        sj.ac_dc(optax.sgd(0.0), structure=sj.neuron(), **arguments)


def test_layer_collapse_is_an_error():
    tx = sj.ac_dc(optax.sgd(0.0), sparsity=0.9, compress=(0,), decompress=())
    with pytest.raises(jax.errors.JaxRuntimeError, match="leaves head without a singl"):
        history(tx, random_params(), 1)


def test_compression_ranks_the_weights_after_the_step():
    params = {"kernel": jnp.array([[0.5, -0.3]])}
    tx = sj.ac_dc(optax.sgd(1.0), sparsity=0.5, compress=(0,), decompress=())
    gradients = {"kernel": jnp.full((1, 2), 0.4)}
    [(after, _)] = history(tx, params, 1, gradients)
    np.testing.assert_allclose(after["kernel"], [[0.0, -0.7]], rtol=1e-6)


def test_decompressing_changes_no_function():
    """The update is that of the sparse phase; freed weights begin at zero, anew."""
    params = {"kernel": jnp.array([[3.0, -2.0, 0.1, 0.2]])}
    gradients = {"kernel": jnp.array([[0.1, 0.1, 1.0, -1.0]])}
    optimizer = optax.sgd(0.1, momentum=0.9)
    opened = sj.ac_dc(optimizer, sparsity=0.5, compress=(1, 9), decompress=(3,))
    closed = sj.ac_dc(optimizer, sparsity=0.5, compress=(1,), decompress=())
    found = history(opened, params, 5, gradients)
    sparse = history(closed, params, 5, gradients)
    assert found[3][1]["kernel"].all()
    np.testing.assert_array_equal(found[3][0]["kernel"], sparse[3][0]["kernel"])
    np.testing.assert_array_equal(found[3][0]["kernel"][0, 2:], [0, 0])
    # The first dense step is that of a new momentum: minus the rate times the gradient.
    np.testing.assert_allclose(found[4][0]["kernel"][0, 2:], [-0.1, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(
        found[4][0]["kernel"][0, :2], sparse[4][0]["kernel"][0, :2]
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "stop=None, every=None"),
        ({"stop": 5}, "stop=5, every=None"),
        ({"stop": 5, "every": 10}, "stop=5 is before the first compression at start=1"),
        ({"stop": 5, "compress": (1,)}, "stop=5.*together with"),
        ({"compress": (1, 5)}, r"compress=\(1, 5\), decompress=\(\)"),
        ({"compress": (1, 5), "decompress": (6,)}, "in increasing order"),
        ({"decompress": (6,)}, "in increasing order"),
        ({"stop": 5, "every": 0}, "every=0"),
    ],
)
def test_bad_phases_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        sj.ac_dc(optax.sgd(0.1), sparsity=0.5, **arguments)
