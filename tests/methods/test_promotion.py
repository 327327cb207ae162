"""The library casts explicitly: no method leaves a dtype to implicit promotion."""

import jax
import jax.numpy as jnp
import optax
import pytest

import sparsejax as sj

ARGUMENTS = {"sparsity": 0.5, "start": 0, "every": 1, "stop": 3}


@pytest.mark.parametrize("method", sj.METHODS)
def test_methods_promote_no_dtype(method):
    # With plain SGD inside: optax's own statistics rely on promotion.
    accepted = getattr(sj, method).__annotations__
    options = {name: v for name, v in ARGUMENTS.items() if name in accepted}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tx = getattr(sj, method)(optax.sgd(0.1), **options)
        params = {
            "wide": jnp.ones((8, 4), jnp.float32),
            "narrow": jnp.ones((8, 4), jnp.bfloat16),
        }
        state = tx.init(params)
        params = sj.sparsify(params, state)
        for _ in range(4):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        assert sj.apply_masks(params, state)["narrow"].dtype == jnp.bfloat16
