"""MEST: elastic mutation under a hard and under a soft memory bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

# Ten weights, four of which are kept at 60 % sparsity.
WEIGHTS = jnp.array([[0.1, 0.2, 0.3, 0.5, 0, 0, 0, 0, 0, 0]])


def masks_after(tx, weights, steps, gradients=None):
    params = {"kernel": weights}
    gradients = {"kernel": jnp.zeros_like(weights) if gradients is None else gradients}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    update = jax.jit(functools.partial(tx.update))
    for _ in range(steps):
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        yield np.asarray(sj.masks(state)["kernel"][0])


def test_elastic_mutation_replaces_the_smallest():
    # mu = 0.2 of all ten weights is half of the four active ones.
    tx = sj.mest(
        optax.sgd(0.0), sparsity=0.6, start=0, every=1, stop=4, mutation=(0.5, 0.0)
    )
    first, *_ = masks_after(tx, WEIGHTS, 1)
    assert first[[2, 3]].all()
    assert first.sum() == 4


def test_soft_memory_bound_is_denser_until_the_end():
    tx = sj.mest(
        optax.sgd(0.0),
        sparsity=0.6,
        start=0,
        every=1,
        stop=4,
        mutation=(0.5, 0.0),
        soft_memory_bound=True,
    )
    found = list(masks_after(tx, WEIGHTS, 5))
    assert [int(mask.sum()) for mask in found] == [6, 6, 4, 4, 4]
    # What grew is zero, so that the last prune takes it.
    assert found[0][:4].all() and found[-1].tolist() == [True] * 4 + [False] * 6


def test_begins_with_the_largest_weights():
    tx = sj.mest(optax.sgd(0.0), sparsity=0.8, stop=4, every=1)
    state = tx.init({"kernel": WEIGHTS})
    assert np.flatnonzero(sj.masks(state)["kernel"]).tolist() == [2, 3]


@pytest.mark.parametrize(("weight", "dropped"), [(0.01, 2), (0.0, 3)])
def test_the_gradient_counts_with_its_weight(weight, dropped):
    # Scores .5, .3, .2 and .1 + 20 lambda: the last move only drops, one of four.
    tx = sj.mest(
        optax.sgd(0.0),
        sparsity=0.25,
        start=0,
        every=1,
        stop=0,
        mutation=(0.0,),
        soft_memory_bound=True,
        gradient_weight=weight,
        initial_masks={"kernel": jnp.ones((1, 4), bool)},
    )
    weights = jnp.array([[0.5, 0.3, 0.2, 0.1]])
    gradients = jnp.array([[0.0, 0, 0, 20]])
    (mask,) = masks_after(tx, weights, 1, gradients)
    assert np.flatnonzero(~mask).tolist() == [dropped]


def test_growth_is_random_and_the_count_is_kept():
    weights = jax.random.normal(jax.random.key(0), (1, 200))
    found = set()
    for seed in range(3):
        tx = sj.mest(optax.sgd(0.0), sparsity=0.9, stop=9, start=0, every=1, seed=seed)
        first, *_ = masks_after(tx, weights, 1)
        assert first.sum() == 20
        found.add(first.tobytes())
    assert len(found) == 3


def test_only_gradients_of_active_weights_count():
    # The inactive ones have gradients that would outweigh all weights.
    tx = sj.mest(
        optax.sgd(0.0),
        sparsity=0.6,
        start=0,
        every=1,
        stop=4,
        mutation=(0.5, 0.0),
        gradient_weight=1.0,
        structure=sj.unstructured(),
    )
    gradients = jnp.where(WEIGHTS > 0, 0.0, 100.0)
    first, *_ = masks_after(tx, WEIGHTS, 1, gradients)
    assert first[[2, 3]].all()


def test_a_soft_bound_passes_through_denser_members_and_ends_as_one():
    weights = jax.random.normal(jax.random.key(0), (16, 3))
    tx = sj.mest(
        optax.sgd(0.0),
        sparsity=0.5,
        start=0,
        every=1,
        stop=3,
        mutation=(0.2, 0.0),
        soft_memory_bound=True,
        structure=sj.n_m(2, 4),
    )
    params = {"kernel": weights}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    found, before = [], None
    for _ in range(4):
        updates, state = jax.jit(tx.update)(params, state, params)
        params = optax.apply_updates(params, updates)
        mask = np.asarray(sj.masks(state)["kernel"])
        per_group = mask.reshape(4, 4, 3).sum(axis=1)
        found.append({*per_group.reshape(-1).tolist()})
        if len(found) == 4:
            assert (mask <= before).all(), "the last move grew weights"
        before = mask
    assert found == [{3}, {3}, {2}, {2}]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"mutation=\(0.2, 0.1\) grows in its last"):
        sj.mest(
            optax.sgd(0.1),
            sparsity=0.5,
            stop=9,
            soft_memory_bound=True,
            mutation=(0.2, 0.1),
        )
    with pytest.raises(ValueError, match="soft_memory_bound=True does not go with"):
        sj.mest(
            optax.sgd(0.1),
            sparsity=0.5,
            stop=9,
            soft_memory_bound=True,
            structure=sj.transposable(2, 4),
        )
    with pytest.raises(ValueError, match=r"mutation\[0\]=2 is not a fraction"):
        sj.mest(optax.sgd(0.1), sparsity=0.5, stop=9, mutation=(2, 0))
