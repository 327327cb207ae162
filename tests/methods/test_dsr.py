"""DSR: a threshold over all layers, regrowth in proportion to what they have left."""

import jax.numpy as jnp
import optax
import pytest

import sparsejax as sj


def test_small_layers_give_and_large_ones_receive():
    params = {
        "small": jnp.array([[0.1, -0.2, 0.3, 5.0, 0, 0, 0, 0]]),
        "large": jnp.array([[-1.0, 2.0, 3.0, -4.0, 0, 0, 0, 0]]),
    }
    tx = sj.dsr(
        optax.sgd(0.0),
        sparsity=None,
        initial_masks={name: leaf != 0 for name, leaf in params.items()},
        start=0,
        every=1,
        stop=2,
        drop_fraction=0.7,
    )
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    # 5 of 8 go: three of the small layer, the -1 and the 2 of the large one. One
    # and two are left, so the 5 new ones are split 1 : 2, the strongest getting the
    # remainder.
    assert sj.counts(state) == {"small": (2, 8), "large": (6, 8)}
    masks = sj.masks(state)
    assert bool(masks["small"][0, 3])
    assert bool(masks["large"][0, 2:4].all())


@pytest.mark.slow
def test_new_places_are_random_and_the_total_stays():
    params = {"kernel": jnp.ones((20, 10))}
    found = []
    for seed in range(2):
        tx = sj.dsr(
            optax.sgd(0.1), sparsity=0.8, every=1, stop=9, drop_fraction=0.5, seed=seed
        )
        state = tx.init(params)
        view = sj.sparsify(params, state)
        for _ in range(4):
            updates, state = tx.update(view, state, view)
            view = optax.apply_updates(view, updates)
        assert sj.counts(state) == {"kernel": (40, 200)}
        found.append(sj.masks(state)["kernel"])
    assert bool((found[0] != found[1]).any())
