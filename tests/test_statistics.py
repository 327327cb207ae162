"""Optimizer statistics never survive a drop, whatever the optimizer keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sparsejax as sj

OPTIMIZERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(1e-2),
    "lion": optax.lion(1e-2),
    "adagrad": optax.adagrad(1e-2),
    "adafactor": optax.adafactor(1e-2, momentum=0.9, min_dim_size_to_factor=100),
    "amsgrad": optax.amsgrad(1e-2),
    "sophia-like chain": optax.chain(optax.trace(0.9), optax.scale_by_rms()),
    "inject": optax.inject_hyperparams(optax.adam)(1e-2),
    "muon": optax.contrib.muon(1e-2),
}


def congruent_leaves(state, shape):
    """Statistics shaped like the weight (the masks are bool, so not among them)."""
    return [
        leaf
        for leaf in jax.tree.leaves(state)
        if getattr(leaf, "shape", None) == shape and leaf.dtype != bool
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_grown_weights_begin_with_initial_statistics(name):
    tx = sj.rigl(
        OPTIMIZERS[name], sparsity=0.5, start=1, every=2, stop=20, drop_fraction=0.5
    )
    params = {"layer": {"kernel": jax.random.normal(jax.random.key(0), (6, 8))}}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    fresh = congruent_leaves(tx.init(params).inner, (6, 8))
    assert fresh, "the optimizer keeps nothing: the test would be empty"
    step, grown_ever = jax.jit(tx.update), 0
    random = np.random.default_rng(0)
    for _ in range(12):
        noise = random.normal(size=(6, 8)).astype(np.float32)
        before = sj.masks(state)["layer"]["kernel"]
        updates, state = step({"layer": {"kernel": noise}}, state, params)
        params = optax.apply_updates(params, updates)
        grown = sj.masks(state)["layer"]["kernel"] & ~before
        grown_ever += int(grown.sum())
        found = congruent_leaves(state.inner, (6, 8))
        for leaf, initial in zip(found, fresh, strict=True):
            # adafactor adds its epsilon of 1e-30 to the square of a zero gradient.
            np.testing.assert_allclose(leaf[grown], initial[grown], rtol=0, atol=1e-29)
    assert grown_ever > 5


def test_nothing_stale_moves_a_weight_that_is_dropped_and_grown_again():
    """A big momentum built before the drop must not push the regrown weight."""
    mask = {"kernel": jnp.array([[True, True, False, False]])}
    tx = sj.rigl(
        optax.sgd(1.0, momentum=0.9),
        sparsity=None,
        initial_masks=mask,
        start=1,
        every=1,
        stop=50,
        drop_fraction=0.5,
    )
    params = {"kernel": jnp.array([[1.0, 9.0, 0.0, 0.0]])}
    state = tx.init(params)
    # Step 0 builds momentum at weight 0; steps 1 and 2 drop it and grow it again.
    gradients = ([5.0, 0, 0, 0], [0, 0, 7.0, 0], [7.0, 0, 0, 0])
    params = {"kernel": params["kernel"].at[0, 0].set(5.5)}
    masks = []
    for gradient in gradients:
        updates, state = tx.update({"kernel": jnp.array([gradient])}, state, params)
        params = optax.apply_updates(params, updates)
        masks.append(np.flatnonzero(sj.masks(state)["kernel"]).tolist())
    assert masks == [[0, 1], [1, 2], [0, 1]]
    np.testing.assert_array_equal(params["kernel"], [[0.0, 9.0, 0.0, 0.0]])
    stopped = {"kernel": jnp.zeros((1, 4))}
    updates, _ = tx.update(stopped, state._replace(count=jnp.int32(99)), params)
    np.testing.assert_array_equal(updates["kernel"], jnp.zeros((1, 4)))


def test_slow_copies_of_parameters_are_cleared_too():
    """schedule_free keeps a copy of the parameters: its initial value is not zero."""
    inner = optax.contrib.schedule_free_sgd(0.5)
    tx = sj.rigl(inner, sparsity=0.5, start=1, every=1, stop=30, drop_fraction=0.5)
    params = {"kernel": jax.random.normal(jax.random.key(0), (6, 6))}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    update, random = jax.jit(tx.update), np.random.default_rng(0)
    for _ in range(10):
        gradients = {"kernel": random.normal(size=(6, 6)).astype(np.float32)}
        active = sj.masks(state)["kernel"]
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        (slow,) = congruent_leaves(state.inner, (6, 6))
        assert not bool(jnp.any((slow != 0) & ~active))
