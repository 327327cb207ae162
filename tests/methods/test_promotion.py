"""The library casts explicitly: no method leaves a dtype to implicit promotion."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

ARGUMENTS = {
    "sparsity": 0.5,
    "start": 0,
    "every": 1,
    "stop": 3,
    "network": lambda params: params["narrow"].astype(jnp.float32) @ params["wide"].T,
}


@pytest.mark.parametrize("method", sj.METHODS)
def test_methods_promote_no_dtype(method):
    # With plain SGD inside: optax's own statistics rely on promotion.
    accepted = inspect.signature(getattr(sj, method)).parameters
    options = {name: v for name, v in ARGUMENTS.items() if name in accepted}
    if "where" in accepted and accepted["where"].default is inspect.Parameter.empty:
        options["where"] = sj.matmul_weights
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tx = getattr(sj, method)(optax.sgd(0.1), **options)
        random = np.random.default_rng(0)
        params = {
            "wide": random.normal(size=(8, 4)).astype(jnp.float32),
            "narrow": random.normal(size=(8, 4)).astype(jnp.bfloat16),
        }
        params = jax.tree.map(jnp.asarray, params)
        state = tx.init(params)
        params = sj.sparsify(params, state)

        @jax.jit
        def step(params, state):
            updates, state = tx.update(params, state, params, grad_fn=lambda p: p)
            return optax.apply_updates(params, updates), state

        for _ in range(4):
            params, state = step(params, state)
        sj.verify(params, state)
        assert sj.apply_masks(params, state)["narrow"].dtype == jnp.bfloat16
