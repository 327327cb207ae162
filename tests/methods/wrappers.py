"""The columns of the common table: optax wrappers and ways to run a method.

Each takes a method and the name of an optimizer, and makes its own assertions.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common_table import (
    OPTIMIZERS,
    STEPS,
    assert_same_masks,
    build,
    check_counts,
    checker,
    expected_budget,
    gradients_at,
    initial_params,
    plain_state,
    run,
    update,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sparsejax as sj
from sparsejax.layers import leaves_with_paths


def plain(method, optimizer):
    plain_state(method, optimizer)


def packed(method, optimizer):
    if "packed" not in inspect.signature(getattr(sj, method)).parameters:
        # Their masks are computed from the dense weights, never stored.
        with pytest.raises(TypeError, match="packed"):
            getattr(sj, method)(OPTIMIZERS[optimizer](), packed=True)
        return
    params, state = run(build(method, optimizer, packed=True), initial_params())
    assert_same_masks(state, plain_state(method, optimizer))
    sj.verify(params, state)


def multi_steps(method, optimizer):
    tx = optax.MultiSteps(build(method, optimizer), every_k_schedule=2)
    run(tx, initial_params(), 2 * STEPS, check=checker(method, stop=18))


def apply_if_finite(method, optimizer):
    tx = optax.apply_if_finite(build(method, optimizer), max_consecutive_errors=3)
    params, state = run(tx, initial_params(), check=checker(method))
    bad = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
    updates, after = tx.update(bad, state, params, grad_fn=lambda _: bad)
    assert_same_masks(state, after)
    sj.verify(optax.apply_updates(params, updates), after)


def masked(method, optimizer):
    visible = {"blocks": {"kernel": True}, "head": {"kernel": False, "bias": False}}
    tx = optax.masked(build(method, optimizer), visible)
    _, state = run(tx, initial_params(), check=lambda p, s, _: sj.verify(p, s))
    masks = sj.masks(state)
    assert masks["head"]["kernel"] is None
    budget = {} if method == "dense" else {"blocks/kernel": (48, 96)}
    check_counts(method, sj.counts(state), budget, done=True)


def multi_transform(method, optimizer):
    labels = {"blocks": "first", "head": "second"}
    groups = {"first": build(method, optimizer), "second": build("static", optimizer)}
    tx = optax.multi_transform(groups, labels)
    _, state = run(tx, initial_params(), check=lambda p, s, _: sj.verify(p, s))
    counts = sj.counts(state)
    assert counts.pop("head/kernel") == (64, 128)
    budget = {} if method == "dense" else {"blocks/kernel": (48, 96)}
    check_counts(method, counts, budget, done=True)


def extra_arguments(method, optimizer):
    def scale_by_value(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda u: u * value, updates), state

    taking = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), scale_by_value
    )
    tx = build(method, optax.chain(taking, OPTIMIZERS[optimizer]()))
    run(tx, initial_params(), check=checker(method), value=jnp.float32(0.5))


def vmap_over_seeds(method, optimizer):
    seeds = jax.random.split(jax.random.key(5), 3)
    replicas = [initial_params(seed=seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *replicas)

    def init(key, params):
        tx = build(method, optimizer, seed=key)
        state = tx.init(params)
        return sj.sparsify(params, state), state

    axes = sj.replica_axes(jax.eval_shape(init, seeds[0], replicas[0])[1])
    params, state = jax.jit(jax.vmap(init, out_axes=(0, axes)))(seeds, params)
    tx = build(method, optimizer)
    step = jax.jit(
        jax.vmap(
            functools.partial(update, tx), in_axes=(0, axes, None), out_axes=(0, axes)
        )
    )
    for index in range(STEPS):
        params, state = step(params, state, gradients_at(index))
        sj.verify(params, state)
    assert step._cache_size() == 1
    budget = expected_budget(method)
    per_seed = {}
    for path, mask in dict(leaves_with_paths(sj.masks(state))).items():
        per_seed[path] = np.asarray(mask).reshape(3, -1)
    for index in range(3):
        counts = {p: (int(m[index].sum()), m[index].size) for p, m in per_seed.items()}
        check_counts(method, counts, budget, done=True)
    for mask in per_seed.values():
        alike = (mask[0] == mask[1]).all()
        assert not alike or mask.all(), "two seeds have the same masks"


def scan(method, optimizer):
    tx = build(method, optimizer)
    start = initial_params()
    state = tx.init(start)

    @jax.jit
    def train(params, state):
        def body(carry, gradients):
            return update(tx, *carry, gradients), None

        gradients = [gradients_at(index) for index in range(STEPS)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
        return jax.lax.scan(body, (params, state), stacked)[0]

    params, state = train(sj.sparsify(start, state), state)
    sj.verify(params, state)
    assert_same_masks(state, plain_state(method, optimizer))


def devices(method, optimizer, layouts=((4, 2),)):
    """Sharded over 8 devices (data x fsdp): the masks of one device."""
    tx = build(method, optimizer)
    alone = plain_state(method, optimizer)
    for data, fsdp in layouts:
        mesh = Mesh(np.array(jax.devices()).reshape(data, fsdp), ("data", "fsdp"))

        def shard(leaf, mesh=mesh, fsdp=fsdp):
            axis = next(
                (i for i, n in enumerate(leaf.shape) if n % fsdp == 0 and n > 2), None
            )
            spec = [None] * leaf.ndim
            if axis is not None:
                spec[axis] = "fsdp"
            return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

        params = jax.tree.map(shard, initial_params())
        state = jax.jit(tx.init)(params)
        step = jax.jit(functools.partial(update, tx))
        params = sj.sparsify(params, state)
        for index in range(STEPS):
            gradients = gradients_at(index)
            params, state = jax.block_until_ready(step(params, state, gradients))
        sj.verify(params, state)
        assert_same_masks(state, alone)


def more_devices(method, optimizer):
    devices(method, optimizer, layouts=((8, 1), (1, 8)))


def bfloat16(method, optimizer):
    # Plain optax compiles twice there: float32 hyperparameters make float32 moments.
    again = optimizer == "inject_hyperparams"
    params, _ = run(
        build(method, optimizer),
        initial_params(jnp.bfloat16),
        check=checker(method),
        compilations=1 + again,
    )
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))


WRAPPERS = {
    function.__name__: function
    for function in (
        plain,
        packed,
        multi_steps,
        apply_if_finite,
        masked,
        multi_transform,
        extra_arguments,
        vmap_over_seeds,
        scan,
        devices,
        bfloat16,
    )
}
SLOW_WRAPPERS = {**WRAPPERS, "more_devices": more_devices}
