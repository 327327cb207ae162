"""Every method through every wrapper and optimizer: one table, found by file name.

The default run has every method by itself and under vmap, and one method of each kind
of step in all the rest; all the others are `slow`.

A method is put to all of these by existing. Gradients are random but the same in every
cell, so that masks can be compared bit for bit between layouts.
"""

import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sparsejax as sj
from sparsejax.layers import choose_layers, leaves_with_paths, path_name

STEPS = 12


def network(params):
    """Outputs of the table's parameters for an input of ones, for methods that ask."""
    hidden = jnp.ones(8, params["blocks"]["kernel"].dtype)
    for kernel in params["blocks"]["kernel"]:
        hidden = jnp.concatenate([hidden[:2], hidden @ kernel])
    head = params["head"]
    if isinstance(head["kernel"], optax.MaskedNode):
        return hidden
    return jnp.concatenate([hidden, hidden]) @ head["kernel"] + head["bias"]


ARGUMENTS = {
    "sparsity": 0.5,
    "start": 1,
    "every": 3,
    "stop": 8,
    "seed": 3,
    "network": network,
}
LAYOUT = sj.flax(stacked={"blocks": 1})

OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "lion": lambda: optax.lion(1e-2),
    "rmsprop": lambda: optax.rmsprop(1e-2, momentum=0.9),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "muon": lambda: optax.contrib.muon(1e-2),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
    # In the parameters' bfloat16 adam's b2 would be 1, and plain optax gives NaN.
    "inject_hyperparams": lambda: optax.inject_hyperparams(
        optax.adamw, hyperparam_dtype=jnp.float32
    )(1e-2),
    "schedule_free": lambda: optax.contrib.schedule_free_adamw(1e-2),
}
# One method for each kind of step that an engine makes.
KINDS = ("rigl", "magnitude", "snip", "l1", "straight_through", "hard_concrete")


def build(method, inner, **overrides):
    """The method around an optimizer (or its name), with the arguments it takes."""
    if isinstance(inner, str):
        inner = OPTIMIZERS[inner]()
    function = getattr(sj, method)
    accepted = inspect.signature(function).parameters
    options = {
        **ARGUMENTS,
        "layout": LAYOUT,
        "distribution": sj.uniform(),
        **overrides,
    }
    if "where" in accepted and accepted["where"].default is inspect.Parameter.empty:
        options["where"] = sj.matmul_weights
    return function(inner, **{k: v for k, v in options.items() if k in accepted})


def module(method):
    return importlib.import_module(f"sparsejax.methods.{method}")


def needs(method):
    """Names of the keyword arguments of ``update`` that the method asks for."""
    return module(method).CARD.needs


def initial_params(dtype=jnp.float32, seed=0):
    random = np.random.default_rng(seed)
    return {
        "blocks": {"kernel": jnp.asarray(random.normal(size=(2, 8, 6)), dtype)},
        "head": {
            "kernel": jnp.asarray(random.normal(size=(16, 8)), dtype),
            "bias": jnp.ones(8, dtype),
        },
    }


def gradients_at(step, dtype=jnp.float32):
    """Random gradients that depend on nothing but the step."""
    random = np.random.default_rng(step)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(dtype),
        jax.eval_shape(initial_params),
    )


def update(tx, params, state, gradients, **extra):
    # Every method is offered what some need; a wrapper may hide leaves of the params.
    given = dict(leaves_with_paths(gradients))

    def grad_fn(params):
        return jax.tree.map_with_path(
            lambda path, leaf: given[path_name(path)] + leaf / 8, params
        )

    updates, state = tx.update(gradients, state, params, grad_fn=grad_fn, **extra)
    return optax.apply_updates(params, updates), state


def run(tx, params, steps=STEPS, check=None, **extra):
    """A jitted loop that never recompiles; ``check`` sees every state on the way."""
    state = jax.jit(tx.init)(params)
    params = sj.sparsify(params, state)
    step = jax.jit(functools.partial(update, tx))
    dtype = params["head"]["bias"].dtype
    for index in range(steps):
        params, state = step(params, state, gradients_at(index, dtype), **extra)
        if check:
            check(params, state, index)
    assert step._cache_size() == 1, "the step was compiled again"
    return params, state


@functools.cache
def plain_state(method, optimizer):
    """The state after a plain run, for the wrappers that compare with it."""
    tx = build(method, optimizer)
    return run(tx, initial_params(), check=checker(method))[1]


def expected_budget(method):
    """Exact counts that the method must show, from the distribution alone."""
    if method == "dense":
        return {}
    params = initial_params()
    layers = choose_layers(params, where=sj.matmul_weights, layout=LAYOUT)
    budgets = sj.uniform()(layers, ARGUMENTS["sparsity"])
    return {
        layer.path: (sum(budget), layer.size)
        for layer, budget in zip(layers, budgets, strict=True)
    }


def check_counts(method, counts, budget, done):
    """Holds counts, path -> (active, size), to what the method's file promises."""
    kind = module(method).CARD.budget
    assert {path: size for path, (_, size) in counts.items()} == {
        path: size for path, (_, size) in budget.items()
    }
    total = sum(active for active, _ in counts.values())
    if kind == "fixed" or (kind == "scheduled" and done):
        assert counts == budget
    elif kind == "global" and done:
        assert total == sum(active for active, _ in budget.values())
    elif kind == "bounded" and done:
        assert all(counts[path][0] <= budget[path][0] for path in counts)
        assert total > 0
    else:
        assert kind in ("scheduled", "global", "bounded", "emergent")


def checker(method, *, stop=ARGUMENTS["stop"]):
    """Exact zeros after every step; exact counts as the method's budget promises."""
    budget = expected_budget(method)

    def check(params, state, index):
        sj.verify(params, state)
        check_counts(method, sj.counts(state), budget, index >= stop)

    return check


def assert_same_masks(first, second):
    first, second = sj.masks(first), sj.masks(second)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


# Wrappers: each takes a method and an optimizer and makes its own assertions.


def plain(method, optimizer):
    plain_state(method, optimizer)


def packed(method, optimizer):
    if "packed" not in inspect.signature(getattr(sj, method)).parameters:
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
    params, _ = run(
        build(method, optimizer), initial_params(jnp.bfloat16), check=checker(method)
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


@pytest.mark.parametrize("wrapper", ["plain", "vmap_over_seeds"])
@pytest.mark.parametrize("method", sj.METHODS)
def test_every_method(method, wrapper):
    WRAPPERS[wrapper](method, "adam")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", KINDS)
def test_every_kind_of_step_in_every_wrapper(method, wrapper):
    WRAPPERS[wrapper](method, "adam")


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", sj.METHODS)
def test_every_method_in_every_wrapper(method, wrapper):
    WRAPPERS[wrapper](method, "adam")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["rigl", "magnitude", "straight_through"])
def test_every_optimizer_with_every_kind_of_step(method, optimizer):
    plain(method, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", SLOW_WRAPPERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", sj.METHODS)
def test_full_product(method, optimizer, wrapper):
    if optimizer == "adam" and wrapper in WRAPPERS:
        pytest.skip("in the table of wrappers")
    SLOW_WRAPPERS[wrapper](method, optimizer)


def test_dense_is_the_inner_optimizer_bit_for_bit():
    params, _ = run(build("dense", optax.adamw(1e-2)), initial_params())
    inner = optax.adamw(1e-2)
    plain_params = initial_params()
    state = inner.init(plain_params)
    step = jax.jit(functools.partial(update, inner))
    for index in range(STEPS):
        plain_params, state = step(plain_params, state, gradients_at(index))
    jax.tree.map(np.testing.assert_array_equal, params, plain_params)


def takes_sparsity(method):
    return "sparsity" in inspect.signature(getattr(sj, method)).parameters


@pytest.mark.parametrize("method", [*filter(takes_sparsity, sj.METHODS)])
def test_sparsity_zero_trains_every_weight(method):
    zero = {"drop_fraction": 0.0, "sparsity": 0.0, "initial_sparsity": 0.0}
    tx = build(method, optax.sgd(0.1), **zero)
    if method in ("sr_ste",):
        # The structure has a density of its own.
        with pytest.raises(ValueError, match="does not go with structure 2:4"):
            tx.init(initial_params())
        return
    params, _ = run(tx, initial_params())
    assert all(bool((leaf != 0).all()) for leaf in jax.tree.leaves(params))


def test_an_argument_that_update_lacks_is_named():
    for method in sj.METHODS:
        for name in needs(method):
            tx, params = build(method, optax.sgd(0.1)), initial_params()
            state = tx.init(params)
            gradients = jax.tree.map(jnp.asarray, gradients_at(0))
            with pytest.raises(ValueError, match=rf"^{name}=None.*{name}=\.\.\."):
                tx.update(gradients, state, params)
