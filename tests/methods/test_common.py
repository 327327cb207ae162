"""Every method through every wrapper and optimizer: one table, found by file name.

The default run has every method by itself and under vmap, and one method of each kind
of step in all the rest; all the others are `slow`.

A method is put to all of these by existing. Gradients are random but the same in every
cell, so that masks can be compared bit for bit between layouts.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common_table import (
    KINDS,
    OPTIMIZERS,
    STEPS,
    build,
    gradients_at,
    initial_params,
    needs,
    run,
    update,
)
from wrappers import (
    SLOW_WRAPPERS,
    WRAPPERS,
    plain,
)

import sparsejax as sj


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
