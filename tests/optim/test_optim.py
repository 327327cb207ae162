"""Ages: optax's optimizers without growth, and a fair start for weights that grow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.optim.ages import age_dtype

# The ratios (1 - b1**k) / sqrt(1 - b2**k) at b1=0.9, b2=0.999.
STOCK = {1: 3.16, 2: 4.25, 5: 5.80, 12: 6.57, 50: 4.50, 100: 3.24, 1000: 1.26}


DECAYING = optax.cosine_decay_schedule(1e-2, 300)
MATRICES = {"a": True, "b": False}
PAIRS = {
    "adam": (optax.adam(1e-2), sj.optim.adam(1e-2)),
    "nesterov": (
        optax.adam(1.0, nesterov=True, eps_root=1e-6),
        sj.optim.adam(1.0, nesterov=True, eps_root=1e-6),
    ),
    "adamw": (
        optax.adamw(
            optax.cosine_decay_schedule(1e-2, 300),
            0.8,
            0.99,
            mask={"a": True, "b": False},
        ),
        sj.optim.adamw(
            optax.cosine_decay_schedule(1e-2, 300),
            0.8,
            0.99,
            mask={"a": True, "b": False},
        ),
    ),
    "no first moment": (optax.adam(1e-2, b1=0.0), sj.optim.adam(1e-2, b1=0.0)),
    "warm-up": (optax.adam(1e-2), sj.optim.adam(1e-2, warm_up=50)),
    "rmsprop": (
        optax.rmsprop(1e-2, bias_correction=True, momentum=0.9, nesterov=True),
        sj.optim.rmsprop(1e-2, momentum=0.9, nesterov=True),
    ),
    "rmsprop as pytorch": (
        optax.rmsprop(1e-2, bias_correction=True, eps_in_sqrt=False),
        sj.optim.rmsprop(1e-2, eps_in_sqrt=False),
    ),
    "inject_hyperparams": (
        optax.inject_hyperparams(optax.adamw)(1e-2),
        optax.inject_hyperparams(sj.optim.adamw, static_args=("warm_up",))(1e-2),
    ),
}


def train(tx, params, state, gradients):
    """One update for each of the stacked gradients; also returns all updates."""

    def body(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), updates

    return jax.jit(functools.partial(jax.lax.scan, body))((params, state), gradients)


def regrown(inner, steps, before=10_000):
    """Updates of the one weight that grows after ``before`` steps; learning rate 1."""
    masks = {"kernel": jnp.array([[True, False]])}
    tx = sj.rigl(
        inner,
        sparsity=None,
        initial_masks=masks,
        start=before - 1,
        stop=before + 1,
        every=10 * before,
        drop_fraction=1.0,
        regrow_dropped=False,
    )
    params = {"kernel": jnp.array([[1.0, 0.0]])}
    state = tx.init(params)
    alternating = jnp.array([1.0, -1.0])[jnp.arange(before) % 2]
    kept = jnp.stack([alternating, jnp.full((before,), 2.0)], axis=-1)
    (params, state), _ = train(tx, params, state, {"kernel": kept[:, None, :]})
    assert sj.masks(state)["kernel"].tolist() == [[False, True]]
    constant = {"kernel": jnp.full((steps, 1, 2), 2.0)}
    _, updates = train(tx, params, state, constant)
    return -np.asarray(updates["kernel"])[:, 0, 1]


def test_first_updates_of_a_regrown_weight():
    stock = regrown(optax.adam(1.0), 1000)
    for k, ratio in STOCK.items():
        # The stock correction of old moments is not quite 1 after 10,000 steps.
        np.testing.assert_allclose(stock[k - 1], ratio, rtol=2e-3)
    assert stock.argmax() == 11
    ours = regrown(sj.optim.adam(1.0), 1000)
    np.testing.assert_allclose(ours, np.ones(1000), rtol=1e-5)


@pytest.mark.parametrize("pair", ["nesterov", "rmsprop"])
def test_other_optimizers_start_regrown_weights_too(pair):
    stock, safe = PAIRS[pair]
    constant = {"kernel": jnp.full((3, 1, 1), 2.0)}
    params = {"kernel": jnp.zeros((1, 1))}
    _, fresh = train(stock, params, stock.init(params), constant)
    fresh = -np.asarray(fresh["kernel"]).ravel()
    np.testing.assert_allclose(regrown(safe, 3, before=50), fresh, rtol=1e-4)
    assert regrown(stock, 3, before=2_000)[0] > 2 * fresh[0]


def test_warm_up_of_regrown_weights():
    rising = [0.25, 0.5, 0.75, 1.0, 1.0]
    for inner in (
        sj.optim.adam(1.0, warm_up=4),
        sj.optim.rmsprop(1.0, warm_up=4),
        optax.chain(optax.lion(1.0, weight_decay=0.0), sj.optim.warm_up_regrown(4)),
    ):
        np.testing.assert_allclose(regrown(inner, 5, before=50), rising, rtol=1e-3)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("method", [None, sj.static])
def test_without_growth_it_is_optax(pair, method):
    random = np.random.default_rng(0)
    params = {"a": jnp.asarray(random.normal(size=(4, 3)), jnp.float32)}
    params["b"] = jnp.ones(5)
    gradients = {
        name: jnp.asarray(random.normal(size=(200, *leaf.shape)), jnp.float32)
        for name, leaf in params.items()
    }
    # A weight without gradient at first is as old as the others.
    gradients["a"] = gradients["a"].at[:7, 0].set(0)
    found = []
    for tx in PAIRS[pair]:
        if method is not None:
            tx = method(tx, sparsity=0.5)
        (end, _), updates = train(tx, params, tx.init(params), gradients)
        found.append((end, updates))
    for theirs, ours in zip(*map(jax.tree.leaves, found), strict=True):
        # optax computes 1 - 0.999 in float32, wrong by 5e-5 of it.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_ages_are_reset_with_the_other_statistics():
    tx = sj.set(sj.optim.adam(1e-2), sparsity=0.5, every=3, stop=50, drop_fraction=0.5)
    params = {"kernel": jax.random.normal(jax.random.key(0), (6, 6))}
    state = tx.init(params)
    params = sj.sparsify(params, state)
    update = jax.jit(tx.update)
    born = np.where(sj.masks(state)["kernel"], 0, -1)
    for step in range(20):
        before = np.asarray(sj.masks(state)["kernel"])
        gradients = {"kernel": jax.random.normal(jax.random.key(step), (6, 6))}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        age = np.asarray(state.inner[0].age["kernel"])
        np.testing.assert_array_equal(age[before], step + 1 - born[before])
        assert (age[~before] == 0).all()
        after = np.asarray(sj.masks(state)["kernel"])
        born[after & ~before] = step + 1
    assert (born[after] > 0).any()


def test_ages_stop_where_the_correction_is_one():
    assert age_dtype(0.9, 0.999) == jnp.uint16
    assert age_dtype(0.9, 0.9999) == jnp.uint32
    assert age_dtype(0.9, jnp.float32(0.9)) == jnp.uint32
    tx = sj.optim.scale_by_adam(warm_up=10)
    params = {"kernel": jnp.ones(2)}
    state = tx.init(params)
    assert state.age["kernel"].dtype == jnp.uint16
    old = {"kernel": jnp.full(2, 65_534, jnp.uint16)}
    state = state._replace(age=old, count=jnp.int32(70_000))
    gradients = {"kernel": jnp.ones((3, 2))}
    (_, state), updates = train(tx, params, state, gradients)
    assert state.age["kernel"].tolist() == [65_535] * 2
    ratio = (1 - 0.9**3) / np.sqrt(1 - 0.999**3)
    np.testing.assert_allclose(updates["kernel"][-1], ratio, rtol=1e-3)


def test_density_divides_each_layers_updates():
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    scale = sj.optim.scale_by_density({"a": 0.25, "b": 0.5}, power=0.5)
    updates, _ = scale.update(params, scale.init(params))
    assert [float(leaf.mean()) for leaf in updates.values()] == pytest.approx(
        [2.0, 2**0.5, 1.0]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sj.optim.adam(1e-3, warm_up=0), "warm_up=0"),
        (lambda: sj.optim.warm_up_regrown(70_000), "steps=70000 is longer"),
        (lambda: sj.optim.scale_by_density({"a": 0.0}), r"densities\['a'\]=0.0"),
        (
            lambda: sj.optim.scale_by_density({"a": 0.5}).init({"b": jnp.ones(1)}),
            "'a', which is no leaf",
        ),
        (
            lambda: sj.optim.scale_by_adam().update(
                {"b": jnp.ones(1)}, sj.optim.scale_by_adam().init({"b": jnp.ones(1)})
            ),
            "params=None",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
