"""GraNet: prunes all layers together, and repairs each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def params_and_gradients():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"first": (12, 10), "second": (10, 8)}
    params, gradients = (
        {
            name: jax.random.normal(key, shape)
            for key, (name, shape) in zip(pair, shapes.items(), strict=True)
        }
        for pair in (keys[:2], keys[2:])
    )
    return params, gradients


def masks_after(tx, params, gradients, steps):
    state = tx.init(params)
    params = sj.sparsify(params, state)
    update = jax.jit(functools.partial(tx.update))
    for _ in range(steps):
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        yield params, {k: np.asarray(m) for k, m in sj.masks(state).items()}


def test_prunes_along_the_cubic_and_ends_at_the_exact_total():
    params, gradients = params_and_gradients()
    tx = sj.granet(
        optax.sgd(0.01), sparsity=0.9, every=2, start=2, stop=14, stop_pruning=10
    )
    totals = [
        sum(int(mask.sum()) for mask in masks.values())
        for _, masks in masks_after(tx, params, gradients, 15)
    ]
    # 200 weights: 100 at first, 20 in the end; moves at steps 2, 4, ... 14.
    expected = [20 + round(80 * (1 - (t - 2) / 8) ** 3) for t in (2, 4, 6, 8, 10)]
    assert totals[2:11:2] == expected == [100, 54, 30, 21, 20]
    assert totals[10:] == [20] * 5


def test_pruning_is_global_and_regrowth_per_layer():
    weights = {"first": jnp.array([[5.0, 4, 3, 2]]), "second": jnp.array([[1.0, 6]])}
    gradients = {"first": jnp.array([[1.0, 2, 3, 4]]), "second": jnp.array([[9.0, 0]])}
    tx = sj.granet(
        optax.sgd(0.0),
        sparsity=0.5,
        initial_sparsity=0.0,
        start=0,
        every=1,
        stop=1,
        stop_pruning=0,
        drop_fraction=0.5,
    )
    (_, masks), *_ = masks_after(tx, weights, gradients, 1)
    # The largest three are 5, 4 and 6. Of 5 and 4 one goes, the last gains; of 6 the
    # half is one, by rounding up, and the other position has the larger gradient.
    assert masks["first"].tolist() == [[True, False, False, True]]
    assert masks["second"].tolist() == [[True, False]]


def test_is_rigl_when_it_begins_at_its_final_sparsity():
    params, gradients = params_and_gradients()
    common = {"sparsity": 0.5, "every": 1, "start": 0, "stop": 3, "drop_fraction": 0.5}
    # Layers of 60 and 40 weights: half of each is whole, so that rounding is alike.
    distribution = sj.uniform()
    granet = sj.granet(
        optax.sgd(0.0),
        initial_sparsity=0.5,
        stop_pruning=0,
        distribution=distribution,
        **common,
    )
    rigl = sj.rigl(optax.sgd(0.0), distribution=distribution, **common)
    pairs = zip(
        masks_after(granet, params, gradients, 3),
        masks_after(rigl, params, gradients, 3),
        strict=True,
    )
    for (_, first), (_, second) in pairs:
        jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_map_of_sparsities_begins_denser_in_its_layers_alone():
    params, gradients = params_and_gradients()
    tx = sj.granet(
        optax.sgd(0.0), sparsity={"first": 0.9}, every=1, stop=3, distribution=None
    )
    masks = sj.masks(tx.init(params))
    assert masks["second"] is None
    assert int(masks["first"].sum()) == 60
    state = tx.init(params)
    for _ in range(4):
        _, state = tx.update(gradients, state, params)
    assert int(sj.masks(state)["first"].sum()) == 12


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="stop_pruning=20 is not between"):
        sj.granet(optax.sgd(0.1), sparsity=0.9, every=2, stop=10, stop_pruning=20)
    for sparsity in (0.4, {"first": 0.9, "second": 0.4}, 0):
        with pytest.raises(
            ValueError, match=r"initial_sparsity=0\.5 is above sparsity="
        ):
            sj.granet(optax.sgd(0.1), sparsity=sparsity, every=2, stop=10)
    with pytest.raises(ValueError, match="structure=2:4 does not go with"):
        sj.granet(
            optax.sgd(0.1), sparsity=0.5, stop=10, every=2, structure=sj.n_m(2, 4)
        )
