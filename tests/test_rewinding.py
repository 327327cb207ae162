"""Rewinding and densifying: bits of the weights, clocks, statistics, wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sparsejax as sj


def random_params(seed):
    random = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(random.normal(size=(6, 8)), jnp.float32),
        "bias": jnp.asarray(random.normal(size=8), jnp.float32),
    }


def train(tx, params, state, steps, seed=0):
    update = jax.jit(tx.update)
    for index in range(steps):
        gradients = random_params((seed, index))
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def fixed(inner, state, **options):
    return sj.static(inner, sparsity=None, initial_masks=sj.masks(state), **options)


@pytest.fixture
def trained():
    tx = sj.static(optax.adam(0.1), sparsity=0.5)
    params = random_params(1)
    state = tx.init(params)
    return train(tx, sj.sparsify(params, state), state, 3)


def test_survivors_are_the_given_weights_bit_for_bit(trained):
    _, state = trained
    early, mask = random_params(2), sj.masks(state)["kernel"]
    params, after = sj.rewind(early, state, fixed(optax.adam(0.1), state), step=7)
    np.testing.assert_array_equal(params["kernel"][mask], early["kernel"][mask])
    np.testing.assert_array_equal(params["kernel"][~mask], 0)
    np.testing.assert_array_equal(params["bias"], early["bias"])
    np.testing.assert_array_equal(sj.masks(after)["kernel"], mask)
    sj.verify(params, after)


def test_clocks_are_set_and_statistics_begin_anew(trained):
    params, state = trained
    rate = optax.linear_schedule(1.0, 0.0, 100)
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    params, after = sj.rewind(params, state, fixed(inner, state), step=40)
    assert int(after.count) == 40
    (adam,) = optax.tree.get_all_with_path(after, "mu")
    assert not any(leaf.any() for leaf in jax.tree.leaves(adam[1]))
    counts = {
        str(path[-2:]): int(value)
        for path, value in optax.tree.get_all_with_path(after.inner, "count")
    }
    assert sorted(counts.values()) == [0, 40], "Adam's age, the schedule's clock"
    # The first step is Adam's first: the rate at 40 times the sign of the gradient.
    gradients = random_params(3)
    updates, _ = fixed(inner, state).update(gradients, after, params)
    wanted = -0.6 * (jnp.sign(gradients["bias"]) + 1e-4 * params["bias"])
    np.testing.assert_allclose(updates["bias"], wanted, rtol=1e-4)


def test_injected_hyperparameters_continue_at_the_step(trained):
    params, state = trained
    inner = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1.0, 0.0, 100))
    tx = fixed(inner, state)
    params, after = sj.rewind(params, state, tx, step=75)
    updates, _ = tx.update({**params, "bias": jnp.ones(8)}, after, params)
    np.testing.assert_allclose(updates["bias"], -0.25, rtol=1e-6)


def test_a_method_that_begins_dense_keeps_the_masks_and_prunes_on(trained):
    params, state = trained
    tx = sj.magnitude(optax.sgd(0.0), sparsity=0.75, start=12)
    params, after = sj.rewind(params, state, tx, step=10)
    before = sj.masks(state)["kernel"]
    np.testing.assert_array_equal(sj.masks(after)["kernel"], before)
    params, after = train(tx, params, after, 2)
    assert int(sj.masks(after)["kernel"].sum()) == 24
    params, after = train(tx, params, after, 1)
    mask = sj.masks(after)["kernel"]
    assert int(mask.sum()) == 12 and not (mask & ~before).any()


def test_copies_of_the_parameters_are_copies_of_the_rewound_ones(trained):
    _, state = trained
    inner = optax.contrib.schedule_free_sgd(0.1)
    params, after = sj.rewind(random_params(2), state, fixed(inner, state))
    np.testing.assert_array_equal(after.inner.z["kernel"], params["kernel"])


@pytest.mark.parametrize("packed", [False, True])
def test_wrappers_and_packed_masks(trained, packed):
    params, state = trained
    inner = fixed(optax.adam(0.1), state, packed=packed, track=True)
    tx = optax.apply_if_finite(inner if packed else optax.MultiSteps(inner, 2), 3)
    params, after = jax.jit(lambda p, s: sj.rewind(p, s, tx, step=5))(params, state)
    assert int(optax.tree.get(after, "count", filtering=_is_method)) == 5
    same = sj.masks(after)["kernel"] == sj.masks(state)["kernel"]
    assert same.all() and sj.exploration(after)["kernel"] == 0.5
    params, after = train(tx, params, after, 2)
    sj.verify(params, after)


def _is_method(path, value):
    del value
    return "MaskedState" in str(path[-1])


def test_every_seed_rewinds_under_vmap():
    def rewound(key, early):
        tx = sj.static(optax.sgd(0.1), sparsity=0.5, seed=key)
        state = tx.init(early)
        return sj.rewind(early, state, fixed(optax.sgd(0.1), state), step=3)

    keys = jax.random.split(jax.random.key(0), 2)
    early = jax.tree.map(lambda *rows: jnp.stack(rows), *map(random_params, range(2)))
    params, state = jax.jit(jax.vmap(rewound))(keys, early)
    masks = sj.masks(state)["kernel"]
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(params["kernel"], early["kernel"] * masks)


def tickets(rounds):
    """Iterative magnitude pruning: masks of all rounds, and the last weights."""
    early = random_params(0)
    state = sj.static(optax.adam(0.1), sparsity=0.0).init(early)
    found = []
    for index in range(rounds):
        share = 0.5 ** (index + 1)
        tx = sj.magnitude(optax.adam(0.1), sparsity=1 - share, start=3)
        params, state = sj.rewind(early, state, tx)
        params, state = train(tx, params, state, 4)
        found.append(np.asarray(sj.masks(state)["kernel"]))
    return found, params


def test_tickets_are_nested_and_reproduced():
    first, weights = tickets(2)
    assert [int(mask.sum()) for mask in first] == [24, 12]
    assert not (first[1] & ~first[0]).any()
    again, same = tickets(2)
    np.testing.assert_array_equal(first, again)
    jax.tree.map(np.testing.assert_array_equal, weights, same)


def test_other_leaves_and_other_masks_are_refused(trained):
    params, state = trained
    with pytest.raises(ValueError, match=r"sparsifies nothing.*masks of kernel"):
        sj.rewind(params, state, sj.dense(optax.sgd(0.1)))
    other = sj.static(optax.sgd(0.1), sparsity=0.5, seed=5)
    with pytest.raises(ValueError, match="begins without weights of kernel"):
        sj.rewind(params, state, other)
    with pytest.raises(ValueError, match="step=-1"):
        sj.rewind(params, state, fixed(optax.sgd(0.1), state), step=-1)


@pytest.mark.parametrize("packed", [False, True])
def test_densifying_changes_no_function_and_frees_all_weights(packed):
    tx = sj.static(optax.adam(0.1), sparsity=0.75, packed=packed, track=True)
    params = random_params(1)
    state = tx.init(params)
    params, state = train(tx, sj.sparsify(params, state), state, 2)

    def loss(params):
        return jnp.sum((params["kernel"].sum(0) + params["bias"]) ** 2)

    dense = sj.densify(state)
    assert sj.counts(dense) == {"kernel": (48, 48)}
    assert jax.tree.structure(dense) == jax.tree.structure(state)
    assert loss(sj.sparsify(params, dense)) == loss(params)
    after, dense = train(tx, params, dense, 1)
    assert (after["kernel"] != params["kernel"]).all()
    assert sj.counts(dense) == {"kernel": (48, 48)}


def test_masks_of_views_are_not_set(trained):
    params, _ = trained
    tx = sj.straight_through(optax.sgd(0.1), sparsity=0.5)
    state = tx.init(params)
    with pytest.raises(ValueError, match="densify sets masks, but here they follow"):
        sj.densify(state)
    # But they can be kept by a method that does.
    rewound, after = sj.rewind(params, state, fixed(optax.sgd(0.1), state))
    sj.verify(rewound, after)
