"""The same seed and gradients give the same masks, however the loop is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common_table import (
    STEPS,
    assert_same_masks,
    build,
    gradients_at,
    initial_params,
    plain_state,
    update,
)
from jax.sharding import Mesh, PartitionSpec

import sparsejax as sj
from sparsejax.masking import masked
from sparsejax.rules import drop_and_grow, keep_largest, magnitude, uniform_random
from sparsejax.schedules import constant, periodic

REPLICATED = PartitionSpec()
SPLIT = PartitionSpec("data")


@pytest.mark.parametrize(
    "method", ["rigl", pytest.param("straight_through", marks=pytest.mark.slow)]
)
def test_with_and_without_jit(method):
    tx, params = build(method, "adam"), initial_params()
    state = tx.init(params)
    params = sj.sparsify(params, state)
    for index in range(STEPS):
        gradients = jax.tree.map(jnp.asarray, gradients_at(index))
        params, state = update(tx, params, state, gradients)
    assert_same_masks(state, plain_state(method, "adam"))


@pytest.mark.parametrize(
    "method", ["rigl", "snip", pytest.param("hard_concrete", marks=pytest.mark.slow)]
)
def test_alone_and_among_vmapped_seeds(method):
    def train(key):
        tx, params = build(method, "adam", seed=key), initial_params()
        state = tx.init(params)
        params = sj.sparsify(params, state)
        for index in range(4):
            gradients = jax.tree.map(jnp.asarray, gradients_at(index))
            params, state = update(tx, params, state, gradients)
        return sj.masks(state)

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(train))(keys)
    alone = jax.jit(train)(keys[1])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), together, alone)


@pytest.mark.parametrize("method", ["set", "rigl", "granet", "straight_through"])
def test_replicas_of_shard_map_agree(method):
    """Every device computes its masks from the same reduced gradients."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    tx, params = build(method, "adam"), initial_params()
    state = jax.jit(tx.init)(params)

    def local_step(params, state, noise, gradients):
        # Half of the devices see more, half as much less: the mean is the gradient.
        own = jax.tree.map(lambda g, n: g + n[0], gradients, noise)
        mean = jax.tree.map(functools.partial(jax.lax.pmean, axis_name="data"), own)
        params, state = update(tx, params, state, mean)
        return params, state, jax.tree.map(lambda m: m[None], sj.masks(state))

    step = jax.jit(
        jax.shard_map(
            local_step,
            mesh=mesh,
            in_specs=(REPLICATED, REPLICATED, SPLIT, REPLICATED),
            out_specs=(REPLICATED, REPLICATED, SPLIT),
            check_vma=False,
        )
    )
    params = sj.sparsify(params, state)
    signs = np.array([1, -1] * 4, np.float32)
    for index in range(STEPS):
        gradients = gradients_at(index)
        noise = jax.tree.map(
            lambda g: signs.reshape(-1, *[1] * g.ndim) * np.round(g[None]), gradients
        )
        params, state, masks = step(params, state, noise, gradients)
        jax.tree.map(
            lambda m: np.testing.assert_array_equal(m, np.broadcast_to(m[:1], m.shape)),
            masks,
        )
    sj.verify(params, state)


@pytest.mark.parametrize("method", ["static", "magnitude"])
def test_sparsity_zero_is_dense_training_bit_for_bit(method):
    # Operation by operation: compiled as a whole, multiplications and additions are
    # fused in one program that are not in the other, and round differently.
    def train(tx):
        params = initial_params()
        state = tx.init(params)
        params = sj.sparsify(params, state)
        for index in range(STEPS):
            gradients = jax.tree.map(jnp.asarray, gradients_at(index))
            params, state = update(tx, params, state, gradients)
        return params

    params = train(build(method, "adamw", sparsity=0.0))
    dense = train(build("dense", "adamw"))
    jax.tree.map(np.testing.assert_array_equal, params, dense)


def test_rigl_with_random_gradients_is_set():
    """Growth by the scores that SET draws: the same masks."""
    drawn = []

    def watched(leaf):
        scores = uniform_random(leaf)
        jax.debug.callback(drawn.append, scores, ordered=True)
        return scores

    params = {"kernel": jax.random.normal(jax.random.key(0), (9, 7))}
    common = {"sparsity": 0.6, "seed": 4}
    watching = masked(
        optax.sgd(0.0),
        rule=drop_and_grow(
            keep=keep_largest(magnitude), grow=watched, fraction=constant(0.3)
        ),
        when=periodic(1, start=0, stop=2),
        on_move="hold",
        **common,
    )
    options = {**common, "start": 0, "every": 1, "stop": 2, "drop_fraction": 0.3}
    of_set = sj.set(optax.sgd(0.0), **options)
    of_rigl = sj.rigl(optax.sgd(0.0), **options)

    def first_move(tx, gradients):
        state = tx.init(params)
        view = sj.sparsify(params, state)
        return sj.masks(tx.update(gradients, state, view)[1])["kernel"]

    want = first_move(of_set, params)
    np.testing.assert_array_equal(first_move(watching, params), want)
    jax.effects_barrier()
    (scores,) = drawn
    np.testing.assert_array_equal(first_move(of_rigl, {"kernel": scores}), want)
    assert not np.array_equal(first_move(of_rigl, params), want)
