"""Always-sparse training: what moves where, and that nothing dense is ever made."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sparsejax_kernels import matmul

import sparsejax as sj
from sparsejax import always_sparse
from sparsejax.always_sparse.rewiring import move

INPUTS, HIDDEN = 40, 24


def layer(weights, indices, inputs, fan_in=None):
    """Values and topology of given rows."""
    values, indices = jnp.asarray(weights, jnp.float32), jnp.asarray(indices, jnp.uint8)
    _, made = always_sparse.connect(
        jax.random.key(0), inputs, len(values), fan_in=values.shape[1]
    )
    fan_in = fan_in or values.shape[1]
    return values, dataclasses.replace(made, indices=indices, fan_in=fan_in)


def network(candidates=0):
    keys = jax.random.split(jax.random.key(0), 3)
    first, wires = always_sparse.connect(
        keys[0], INPUTS, HIDDEN, fan_in=6, candidates=candidates
    )
    second, more = always_sparse.connect(
        keys[1], HIDDEN, 16, fan_in=5, candidates=candidates
    )
    head = jax.random.normal(keys[2], (16, 3)) / 4
    params = {"first": first, "second": second, "bias": jnp.zeros(16), "head": head}
    topology = {"first": wires, "second": more, "bias": None, "head": None}
    return params, topology


def logits(params, topology, x):
    for name in ("first", "second"):
        weight = always_sparse.weight(params[name], topology[name])
        x = matmul(x, weight, implementation="reference")
        x = jax.nn.relu(x + params["bias"][None] if name == "second" else x)
    return x @ params["head"]


def loss(params, topology, x, y):
    found = logits(params, topology, x)
    return optax.softmax_cross_entropy_with_integer_labels(found, y).mean()


def batches():
    key = jax.random.key(9)
    while True:
        key, one, two = jax.random.split(key, 3)
        x = jax.random.normal(one, (32, INPUTS))
        yield x, jax.random.randint(two, (32,), 0, 3)


def train(tx, params, steps):
    state = tx.init(params)

    @jax.jit
    def step(params, state, x, y):
        value, gradients = jax.value_and_grad(loss)(
            params, always_sparse.topology(state), x, y
        )
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _, (x, y) in zip(range(steps), batches(), strict=False):
        params, state, value = step(params, state, x, y)
        losses.append(float(value))
    assert step._cache_size() == 1
    return params, state, losses


def test_the_smallest_weights_move_and_begin_anew():
    values, wires = layer([[3, -0.1, 2], [0.2, 5, -4]], [[0, 1, 2], [7, 8, 9]], 20)
    inner = optax.adam(0.1)
    tx = always_sparse.set(
        inner, topology=wires, start=1, every=1, stop=2, drop_fraction=0.34
    )
    state = tx.init(values)
    gradients = jnp.ones_like(values)
    updates, state = tx.update(gradients, state, values)
    values = optax.apply_updates(values, updates)
    updates, state = tx.update(gradients, state, values)
    after = optax.apply_updates(values, updates)

    moved = np.array([[False, True, False], [True, False, False]])
    indices = np.asarray(always_sparse.topology(state).indices)
    before = np.asarray(wires.indices)
    np.testing.assert_array_equal(indices != before, moved)
    np.testing.assert_array_equal(after[moved], [0, 0])
    np.testing.assert_array_equal(after[~moved], values[~moved])
    adam = state.inner[0]
    np.testing.assert_array_equal(adam.mu[moved], [0, 0])
    np.testing.assert_allclose(adam.mu[~moved], 0.19, rtol=1e-5)
    assert all(len({*row}) == 3 for row in indices.tolist())


def test_the_transposed_index_follows():
    params, topology = network()
    tx = always_sparse.set(optax.adam(1e-2), topology=topology, every=2, stop=20)
    _, state, _ = train(tx, params, 9)
    for name in ("first", "second"):
        wires = always_sparse.topology(state)[name]
        assert not np.array_equal(wires.indices, topology[name].indices)
        flat = np.asarray(wires.indices).reshape(-1)
        positions = np.asarray(wires.transposed.positions)
        for source in range(wires.inputs):
            start, end = wires.transposed.starts[source : source + 2]
            assert (flat[positions[start:end]] == source).all()
        assert int(wires.transposed.starts[-1]) == flat.size


def test_growth_takes_the_steepest_candidates():
    values, wires = layer(
        [[3, -0.1, 0.2, 0, 0, 0], [4, 5, 6, 0, 0, 0]],
        [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]],
        30,
        fan_in=3,
    )
    gradients = jnp.array([[0, 0, 0, 1.0, -3.0, 2.0], [9, 9, 9, 9, 9, 9]])
    new = move(
        jax.random.key(0),
        values,
        gradients,
        wires,
        jnp.float32(0.34),
        lambda weights, gradients: jnp.abs(weights),
    )
    # Two of six go, both of the first neuron; the smaller of them gets the steepest.
    assert new.indices[:, :3].tolist() == [[0, 11, 12], [3, 4, 5]]
    assert all(len({*row}) == 6 for row in new.indices.tolist())
    assert bool((new.indices[:, 3:] != wires.indices[:, 3:]).any())


def test_a_neuron_gives_up_no_more_than_it_has_candidates():
    values, wires = layer([[3, 1, 2, 0], [9, 8, 7, 0]], [[0, 1, 2, 9]] * 2, 30, 3)
    new = move(
        jax.random.key(0), values, values, wires, jnp.float32(0.5), lambda w, g: w
    )
    assert new.indices[:, :3].tolist() == [[0, 9, 2], [0, 1, 2]]


def test_candidates_stay_zero_and_the_loss_falls():
    params, topology = network(candidates=4)
    tx = always_sparse.rigl(
        optax.adamw(1e-2, weight_decay=0.1), topology=topology, every=3, stop=60
    )
    after, _, losses = train(tx, params, 80)
    for name in ("first", "second"):
        fan_in = topology[name].fan_in
        assert not np.asarray(after[name][:, fan_in:]).any()
        assert np.count_nonzero(after[name][:, :fan_in]) > 0.9 * fan_in * len(
            after[name]
        )
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_learns_what_dense_masks_learn():
    """The same network as masks over dense weights: the same losses."""
    params, topology = network()
    tx = always_sparse.static(optax.adam(1e-2), topology=topology)
    _, _, losses = train(tx, params, 30)

    dense = dict(params)
    for name in ("first", "second"):
        dense[name] = always_sparse.weight(params[name], topology[name]).todense()
    masks = {n: dense[n] != 0 if n in ("first", "second") else None for n in dense}
    masked = sj.static(optax.adam(1e-2), sparsity=None, initial_masks=masks)
    state = masked.init(dense)

    def dense_loss(params, x, y):
        x = jax.nn.relu(x @ params["first"])
        x = jax.nn.relu(x @ params["second"] + params["bias"][None]) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    for value, (x, y) in zip(losses, batches(), strict=False):
        found, gradients = jax.value_and_grad(dense_loss)(dense, x, y)
        np.testing.assert_allclose(value, found, rtol=2e-5)
        updates, state = masked.update(gradients, state, dense)
        dense = optax.apply_updates(dense, updates)


@pytest.mark.parametrize("wrapper", ["plain", "multi_steps", "chain"])
def test_under_wrappers_with_donation(wrapper):
    params, topology = network(candidates=3)
    tx = always_sparse.rigl(optax.adam(1e-2), topology=topology, every=2, stop=9)
    if wrapper == "multi_steps":
        tx = optax.MultiSteps(tx, every_k_schedule=2)
    elif wrapper == "chain":
        tx = optax.chain(optax.clip_by_global_norm(1.0), tx)
    state = tx.init(params)
    step = jax.jit(
        lambda params, state, gradients: tx.update(gradients, state, params),
        donate_argnums=1,
    )
    for _ in range(12):
        _, state = step(params, state, params)
    assert step._cache_size() == 1
    first = always_sparse.topology(state)["first"]
    assert not np.array_equal(first.indices, topology["first"].indices)


def sizes(jaxpr):
    """Sizes of all arrays in a program, inner programs included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield math.prod(getattr(variable.aval, "shape", ()))
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


def test_no_array_of_the_dense_shape_exists():
    inputs, outputs, batch = 2000, 1500, 4

    def everything(key, x):
        values, wires = always_sparse.connect(
            key, inputs, outputs, fan_in=8, candidates=4
        )
        tx = always_sparse.rigl(optax.adam(1e-3), topology=wires, every=1, stop=9)
        state = tx.init(values)

        def loss(values, wires):
            weight = always_sparse.weight(values, wires)
            return matmul(x, weight, implementation="reference").sum()

        gradients = jax.grad(loss)(values, always_sparse.topology(state))
        return tx.update(gradients, state, values)

    program = jax.make_jaxpr(everything)(jax.random.key(0), jnp.zeros((batch, inputs)))
    largest = max(sizes(program.jaxpr))
    assert outputs * 12 <= largest < inputs * outputs / 10


def test_errors_name_what_is_wrong():
    values, wires = always_sparse.connect(jax.random.key(0), 10, 4, fan_in=3)
    with pytest.raises(ValueError, match="fan_in=9 with candidates=2 does not fit 10"):
        always_sparse.connect(jax.random.key(0), 10, 4, fan_in=9, candidates=2)
    with pytest.raises(ValueError, match=r"candidates=c"):
        always_sparse.rigl(optax.sgd(0.1), topology=wires, stop=1000)
    tx = always_sparse.static(optax.sgd(0.1), topology={"a": wires})
    with pytest.raises(ValueError, match=r"topology at a .*\(4, 3\).*\(2, 2\)"):
        tx.init({"a": jnp.zeros((2, 2))})
    with pytest.raises(ValueError, match="every leaf is None"):
        always_sparse.static(optax.sgd(0.1), topology={"a": None}).init({"a": values})
    with pytest.raises(ValueError, match="params=None"):
        tx.update({"a": values}, tx.init({"a": values}))
    with pytest.raises(ValueError, match="holds 0 always-sparse"):
        always_sparse.topology(optax.sgd(0.1).init(values))
    inside = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    tx = always_sparse.static(inside, topology=wires)
    with pytest.raises(ValueError, match="MultiSteps is inside"):
        tx.init(values)
