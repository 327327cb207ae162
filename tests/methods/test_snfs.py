"""SNFS: growth by momentum, and weights that move between layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def test_grows_by_the_average_of_gradients_not_by_the_last():
    tx = sj.snfs(
        optax.sgd(0.0),
        sparsity=0.5,
        every=10,
        start=2,
        stop=3,
        drop_fraction=0.5,
        momentum=0.5,
        initial_masks={"kernel": jnp.array([[True, True, False, False]])},
    )
    params = {"kernel": jnp.array([[1.0, 2.0, 0.0, 0.0]])}
    state = tx.init(params)
    update = jax.jit(functools.partial(tx.update))
    # Averages of the inactive: 0.25 * 8 = 2, 0.25 * 8 = 2, then 2 + ... below 3.
    for gradient in ([0.0, 0, 8, 0], [0.0, 0, 8, 0], [0.0, 0, 0, 4]):
        _, state = update({"kernel": jnp.array([gradient])}, state, params)
    np.testing.assert_allclose(state.memory[0], [[0, 0, 3, 2]])
    assert sj.masks(state)["kernel"].tolist() == [[False, True, True, False]]


def test_weights_move_to_where_momentum_is_and_the_total_stays():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "quiet": jax.random.normal(keys[0], (12, 10)),
        "loud": jax.random.normal(keys[1], (12, 10)),
    }
    options = {"sparsity": 0.5, "every": 2, "stop": 20, "distribution": sj.uniform()}
    counts = {}
    for redistribute in (True, False):
        tx = sj.snfs(optax.sgd(0.0), redistribute=redistribute, **options)
        state = tx.init(params)
        masked = sj.sparsify(params, state)
        update = jax.jit(functools.partial(tx.update))
        for step in range(8):
            noise = jax.random.normal(jax.random.key(step), (12, 10))
            gradients = {"quiet": 0.01 * noise, "loud": noise}
            updates, state = update(gradients, state, masked)
            masked = optax.apply_updates(masked, updates)
            assert sum(active for active, _ in sj.counts(state).values()) == 120
        counts[redistribute] = sj.counts(state)
    assert counts[False] == {"loud": (60, 120), "quiet": (60, 120)}
    assert counts[True]["loud"][0] > 80


@pytest.mark.parametrize(
    ("active", "size", "strength", "expected"),
    [
        # Of four that are dropped three go to the layer with three times the momentum.
        (4, 8, 3.0, (5, 3)),
        # Its two free places are all it can take.
        (4, 4, 9.0, (4, 4)),
        # A layer without any momentum takes nothing.
        (4, 8, 0.0, (2, 6)),
    ],
)
def test_what_is_dropped_is_shared_by_mean_momentum(active, size, strength, expected):
    sizes = {"first": size, "second": 8}
    masks = {name: jnp.arange(n)[None] < active for name, n in sizes.items()}
    params = {
        name: jnp.where(mask, jnp.arange(1.0, mask.size + 1)[None], 0)
        for name, mask in masks.items()
    }
    gradients = {
        "first": jnp.full((1, size), strength),
        "second": jnp.array([[2.0, 0, -1, 1, 9, 9, 9, 9]]),
    }
    tx = sj.snfs(
        optax.sgd(0.0),
        sparsity=None,
        initial_masks=masks,
        start=0,
        every=1,
        stop=1,
        drop_fraction=0.5,
        momentum=0.0,
    )
    _, state = tx.update(gradients, tx.init(params), params)
    counts = sj.counts(state)
    assert (counts["first"][0], counts["second"][0]) == expected
    # The two largest weights of a layer are not dropped.
    for mask in sj.masks(state).values():
        assert bool(mask[0, 2:4].all())


@pytest.mark.parametrize("redistribute", [True, False])
def test_a_dense_network_has_room_for_what_it_drops(redistribute):
    params = {"first": jnp.ones((4, 5)), "second": jnp.ones((6, 5))}
    tx = sj.snfs(
        optax.sgd(0.1),
        sparsity=0.1,
        every=1,
        start=0,
        stop=9,
        drop_fraction=0.5,
        redistribute=redistribute,
    )
    state = tx.init(params)
    params = sj.sparsify(params, state)
    _, state = tx.update(params, state, params)
    assert sum(active for active, _ in sj.counts(state).values()) == 45


def test_without_redistribution_structures_keep_their_family():
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 6))}
    tx = sj.snfs(
        optax.sgd(0.1),
        sparsity=0.5,
        every=1,
        start=0,
        stop=9,
        redistribute=False,
        structure=sj.n_m(2, 4),
    )
    state = tx.init(params)
    before = np.asarray(sj.masks(state)["kernel"])
    params = sj.sparsify(params, state)
    gradients = {"kernel": jax.random.normal(jax.random.key(1), (8, 6))}
    _, state = tx.update(gradients, state, params)
    after = np.asarray(sj.masks(state)["kernel"])
    assert (after.reshape(2, 4, 6).sum(axis=1) == 2).all()
    assert (after != before).any()


def test_structure_and_redistribution_do_not_go_together():
    with pytest.raises(ValueError, match="structure=2:4 does not go with"):
        sj.snfs(optax.sgd(0.1), sparsity=0.5, stop=9, structure=sj.n_m(2, 4))
