"""What classification gives to methods that prune at initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.building import ConfigError
from sparsejax.data.pipeline import train_iterator
from sparsejax.tasks.classify import classify


@pytest.fixture
def make(data_dir):
    def make(method, **changes):
        return classify(
            {
                "steps": 20,
                "model": {"name": "mlp", "hidden": (8,)},
                "data": {"name": "digits", "batch_size": 64, "data_dir": str(data_dir)},
                "optimizer": {"name": "sgd", "learning_rate": 0.1},
                "method": method,
                **changes,
            }
        )

    return make


def seen(inner, *, sparsity=0.5):
    """A method from outside that applies what ``grad_fn`` says in place of its own."""
    tx = sj.static(inner, sparsity=sparsity)

    def update(updates, state, params, *, grad_fn):
        return tx.update(grad_fn(params), state, params)

    return optax.GradientTransformationExtraArgs(tx.init, update)


@pytest.mark.parametrize("temperature", [1.0, 1e6])
def test_grad_fn_is_the_gradient_on_the_batch(make, temperature):
    task = make({"name": f"{__name__}.seen"}, scoring_temperature=temperature)
    plain = make({"name": "static", "sparsity": 0.5})
    batch = next(train_iterator(task.dataset, batch_size=64, seed=0))
    state = task.initialise(jax.random.key(0))
    after, _ = jax.jit(task.train_step)(state, batch)
    wanted, _ = jax.jit(plain.train_step)(state, batch)
    step = state.params["head"]["bias"] - after.params["head"]["bias"]
    full = state.params["head"]["bias"] - wanted.params["head"]["bias"]
    if temperature == 1:
        np.testing.assert_array_equal(step, full)
    else:
        # Of logits near zero, all classes are as likely.
        labels = jax.nn.one_hot(batch["label"], 10).mean(0)
        np.testing.assert_allclose(1e6 * step, 0.1 * (0.1 - labels), atol=1e-6)


@pytest.mark.parametrize("method", ["snip", "grasp", "force", "synflow"])
def test_every_method_prunes_from_a_config(make, method):
    task = make({"name": method, "sparsity": 0.5}, scoring_temperature=200.0)
    state = jax.jit(task.initialise)(jax.random.key(0))
    batch = next(train_iterator(task.dataset, batch_size=64, seed=0))
    state, _ = jax.jit(task.train_step)(state, batch)
    counts = sj.counts(state.optimizer_state).values()
    assert sum(active for active, _ in counts) == (64 * 8 + 8 * 10) // 2
    sj.verify(state.params, state.optimizer_state)


def test_the_network_is_that_of_the_initialisation_on_ones(make):
    task = make({"name": "synflow", "sparsity": 0.5, "iterations": 3})
    state = task.initialise(jax.random.key(0))
    dense = make({"name": "dense"}).initialise(jax.random.key(0))
    image = jnp.ones((1, 8, 8, 1))
    tx = sj.synflow(
        optax.sgd(0.1),
        sparsity=0.5,
        iterations=3,
        network=lambda params: task.forward(params, dense.model_state, image),
    )
    wanted = sj.masks(tx.init(dense.params))
    found = sj.masks(state.optimizer_state)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_bad_temperature_is_named(make):
    with pytest.raises(ConfigError, match="scoring_temperature = 0 is not positive"):
        make({"name": "dense"}, scoring_temperature=0)


def test_weights_are_rescaled_by_the_masks_that_stay(make):
    """Rescaled weights have other flows, which must not choose other masks."""
    method = {"name": "synflow", "sparsity": 0.8, "iterations": 3}
    states = [
        make(method, initialization=how).initialise(jax.random.key(0))
        for how in ("dense", "fan_in_corrected")
    ]
    masks = [sj.masks(state.optimizer_state) for state in states]
    jax.tree.map(np.testing.assert_array_equal, *masks)
    wanted = sj.fan_in_corrected(states[0].params, masks[0])
    jax.tree.map(np.testing.assert_array_equal, states[1].params, wanted)
