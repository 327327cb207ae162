"""Methods that move weights between layers leave none empty without a word."""

import jax
import optax
import pytest

import sparsejax as sj

METHODS = {
    "dsr": {"stop": 4, "drop_fraction": 0.5},
    "granet": {"stop": 4, "stop_pruning": 2, "initial_sparsity": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_loses_everything_is_named(method):
    params = {
        "first": jax.random.normal(jax.random.key(0), (8, 8)),
        "second": jax.random.normal(jax.random.key(1), (8, 8)) / 1000,
    }
    tx = getattr(sj, method)(optax.sgd(0.0), sparsity=0.8, every=1, **METHODS[method])
    update = jax.jit(tx.update)

    def train(params):
        state = tx.init(params)
        params = sj.sparsify(params, state)
        for _ in range(5):
            updates, state = update(params, state, params)
            params = optax.apply_updates(params, updates)
        jax.block_until_ready(params)
        jax.effects_barrier()

    train({**params, "second": 1000 * params["second"]})
    with pytest.raises(Exception, match="leaves second without a single weight"):
        train(params)
