import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.building import ConfigError
from sparsejax.tasks.optimization import decayed, learning_rate_schedule, optimizer

PARAMS = {
    "layer": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full((3,), 2.0)},
    "norm": {"scale": jnp.full((3,), 2.0), "bias": jnp.full((3,), 2.0)},
    "attention": {"bias": jnp.full((2, 2), 2.0)},
}


def update(spec, gradients, *, learning_rate=0.1):
    tx = optimizer({"optimizer": spec}, optax.constant_schedule(learning_rate))
    return tx.update(gradients, tx.init(PARAMS), PARAMS)[0]


def zeros():
    return jax.tree.map(jnp.zeros_like, PARAMS)


def ones():
    return jax.tree.map(jnp.ones_like, PARAMS)


def test_decayed_leaves_are_kernels_only():
    chosen = decayed(PARAMS)
    assert chosen["layer"] == {"kernel": True, "bias": False}
    assert chosen["norm"] == {"scale": False, "bias": False}
    assert chosen["attention"] == {"bias": False}


@pytest.mark.parametrize(
    ("name", "kernel_update"),
    # sgd adds decay to the gradient; adamw and lion subtract it beside their step.
    [
        ("sgd", -0.1 * 0.5 * 2.0),
        ("adamw", -0.1 * 0.5 * 2.0),
        ("lion", -0.1 * 0.5 * 2.0),
    ],
)
def test_weight_decay_moves_kernels_only(name, kernel_update):
    updates = update({"name": name, "weight_decay": 0.5}, zeros())
    np.testing.assert_allclose(updates["layer"]["kernel"], kernel_update, rtol=1e-6)
    for path in (("layer", "bias"), ("norm", "scale"), ("attention", "bias")):
        assert not updates[path[0]][path[1]].any(), path


def test_adam_normalises_its_l2_term():
    updates = update({"name": "adam", "weight_decay": 0.5}, zeros())
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.1, rtol=1e-4)


def test_no_decay_unless_asked_for():
    for name in ("sgd", "adam"):
        updates = update({"name": name}, zeros())
        assert all(not leaf.any() for leaf in jax.tree.leaves(updates)), name


def test_gradient_clip_limits_the_global_norm():
    updates = update({"name": "sgd", "gradient_clip": 0.5}, ones())
    assert float(optax.tree.norm(updates)) == pytest.approx(0.05)


def test_gradients_are_clipped_before_the_decay_is_added():
    spec = {"name": "sgd", "gradient_clip": 0.5, "weight_decay": 0.5}
    with_decay, without = (
        update(spec, ones()),
        update({**spec, "weight_decay": 0.0}, ones()),
    )
    difference = with_decay["layer"]["kernel"] - without["layer"]["kernel"]
    np.testing.assert_allclose(difference, -0.1, rtol=1e-5)


def test_arguments_and_momentum_reach_optax():
    spec = {"name": "sgd", "momentum": 0.9, "nesterov": True}
    np.testing.assert_allclose(
        update(spec, ones())["layer"]["kernel"], -0.1 * 1.9, rtol=1e-6
    )


def test_optimizers_from_outside():
    updates = update({"name": "optax.contrib.prodigy", "weight_decay": 0.0}, ones())
    assert updates["layer"]["kernel"].shape == (2, 3)


def test_learning_rate_follows_the_schedule():
    config = {
        "steps": 100,
        "optimizer": {"learning_rate": 0.2},
        "learning_rate_schedule": {"name": "cosine", "warmup_steps": 20},
    }
    schedule = learning_rate_schedule(config)
    found = [float(schedule(step)) for step in (10, 20, 60)]
    assert found == pytest.approx([0.1, 0.2, 0.1])


def test_constant_by_default():
    config = {"steps": 100, "optimizer": {"learning_rate": 0.2}}
    assert float(learning_rate_schedule(config)(99)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "sgdd"}, r"config.optimizer.name = 'sgdd': unknown \(did you mean"),
        ({"name": "sgd", "momentums": 0.9}, r"config.optimizer.momentums = 0.9"),
        ({"name": "sgd", "weight_decay": -1}, r"config.optimizer.weight_decay = -1"),
        ({"name": "sgd", "weight_decay": "x"}, r"config.optimizer.weight_decay = 'x'"),
        ({"name": "sgd", "gradient_clip": 0}, r"config.optimizer.gradient_clip = 0"),
        ({"momentum": 0.9}, r"config.optimizer = "),
    ],
)
def test_bad_optimizers(spec, message):
    with pytest.raises(ConfigError, match=message):
        optimizer({"optimizer": spec}, optax.constant_schedule(0.1))


@pytest.mark.parametrize("learning_rate", [None, 0, -0.1, "fast", True])
def test_bad_learning_rates(learning_rate):
    config = {"steps": 10, "optimizer": {"learning_rate": learning_rate}}
    with pytest.raises(ConfigError, match=r"config.optimizer.learning_rate = "):
        learning_rate_schedule(config)


def test_bad_schedule():
    config = {
        "steps": 10,
        "optimizer": {"learning_rate": 0.1},
        "learning_rate_schedule": {"name": "cosine", "warmup_steps": 10},
    }
    with pytest.raises(
        ConfigError, match=r"config.learning_rate_schedule.warmup_steps = 10"
    ):
        learning_rate_schedule(config)
