"""What the common table is made of: parameters, gradients, optimizers, checks."""

import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import sparsejax as sj
from sparsejax.layers import choose_layers, leaves_with_paths, path_name

STEPS = 12


def network(params):
    """Outputs of the table's parameters for an input of ones, for methods that ask."""
    hidden = jnp.ones(8, params["blocks"]["kernel"].dtype)
    for kernel in params["blocks"]["kernel"]:
        hidden = jnp.concatenate([hidden[:2], hidden @ kernel])
    head = params["head"]
    hidden_leaves = (head, head["kernel"]) if isinstance(head, dict) else (head,)
    if any(isinstance(leaf, optax.MaskedNode) for leaf in hidden_leaves):
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


def run(tx, params, steps=STEPS, check=None, compilations=1, **extra):
    """A jitted loop that never recompiles; ``check`` sees every state on the way."""
    state = jax.jit(tx.init)(params)
    params = sj.sparsify(params, state)
    step = jax.jit(functools.partial(update, tx))
    dtype = params["head"]["bias"].dtype
    for index in range(steps):
        params, state = step(params, state, gradients_at(index, dtype), **extra)
        if check:
            check(params, state, index)
    assert step._cache_size() == compilations, "the step was compiled again"
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
