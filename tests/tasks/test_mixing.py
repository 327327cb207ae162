import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from sparsejax.building import ConfigError
from sparsejax.data.pipeline import train_iterator
from sparsejax.tasks.classify import classify
from sparsejax.tasks.mixing import mixed

BATCH, SIZE, DRAWS = 8, 16, 1000
BOTH = {"mixup": 0.2, "cutmix": 1.0}


@pytest.fixture(scope="module")
def mix_many():
    """Mixtures of eight images, image i having the value i everywhere and class i."""
    values = jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None]
    images = jnp.broadcast_to(values, (BATCH, SIZE, SIZE, 2))

    @functools.cache
    def mix_many(**alphas):
        keys = jax.random.split(jax.random.key(0), DRAWS)
        mix = jax.jit(jax.vmap(lambda k: mixed(k, images, jnp.eye(BATCH), **alphas)))
        return [np.asarray(array, np.float64) for array in mix(keys)]

    return mix_many


def shares(targets):
    """Of every draw the share that images keep, where not all are their own partner."""
    own = np.diagonal(targets, axis1=1, axis2=2)
    others = own < 1
    assert others.any(axis=1).mean() > 0.95
    return own.min(axis=1)[others.any(axis=1)]


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, BOTH])
def test_targets_say_what_is_in_the_images(mix_many, alphas):
    images, targets = mix_many(**alphas)
    expected = targets @ np.arange(BATCH)
    np.testing.assert_allclose(images.mean(axis=(2, 3, 4)), expected, atol=1e-4)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, atol=1e-6)
    # Partners are a permutation: no class gets lost.
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_mixup_draws_shares_from_the_beta_distribution(mix_many):
    images, targets = mix_many(mixup=0.2)
    # All pixels of an image are mixed alike.
    assert np.ptp(images.reshape(DRAWS, BATCH, -1), axis=-1).max() == 0
    found = shares(targets)
    # Mean and variance of Beta(alpha, alpha): 1/2 and 1 / (4 (2 alpha + 1)).
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert found.var() == pytest.approx(1 / 5.6, rel=0.1)


def test_cutmix_cuts_rectangles_of_the_partner(mix_many):
    images, targets = mix_many(cutmix=1.0)
    areas = []
    for image, target in zip(images[:300], targets, strict=False):
        for index in range(BATCH):
            foreign = image[index, :, :, 0] != index
            np.testing.assert_array_equal(foreign, image[index, :, :, 1] != index)
            rows, columns = (
                np.flatnonzero(foreign.any(1)),
                np.flatnonzero(foreign.any(0)),
            )
            if not len(rows):
                continue
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert foreign.sum() == height * width
            (partner,) = np.unique(image[index][foreign])
            assert target[index, int(partner)] == height * width / SIZE**2
            areas.append(height * width / SIZE**2)
    # From nearly nothing to nearly everything.
    assert min(areas) < 0.05
    assert max(areas) > 0.7


def test_cutmix_reaches_every_pixel(mix_many):
    images, _ = mix_many(cutmix=1.0)
    foreign = images[..., 0] != np.arange(BATCH)[:, None, None]
    assert foreign.any(axis=(0, 1)).all()


def test_with_both_each_is_used_for_half_of_the_batches(mix_many):
    images, _ = mix_many(**BOTH)
    whole = (images == np.round(images)).all(axis=(1, 2, 3, 4))
    assert 0.4 < whole.mean() < 0.6


def test_off_by_default():
    images, targets = jnp.ones((2, 3, 3, 1)), jnp.eye(2)
    found = mixed(jax.random.key(0), images, targets)
    assert found[0] is images
    assert found[1] is targets


@pytest.fixture(scope="module")
def make(data_dir):
    def make(**fields):
        config = {
            "seed": 0,
            "steps": 20,
            "model": {"name": "mlp", "hidden": (8,)},
            "data": {"name": "digits", "batch_size": 32, "data_dir": str(data_dir)},
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
            "learning_rate_schedule": {"name": "constant"},
            "method": {"name": "dense"},
            **fields,
        }
        return classify(ConfigDict(config))

    return make


@pytest.fixture(scope="module")
def task_and_step(make):
    task = make(**BOTH, label_smoothing=0.1)
    return task, jax.jit(task.train_step)


def test_training_mixes_by_key_and_step_and_resumes_exactly(task_and_step):
    task, step = task_and_step
    iterator = train_iterator(task.dataset, batch_size=32, seed=0)
    batches = [next(iterator) for _ in range(4)]
    state = jax.jit(task.initialise)(jax.random.key(0))
    stored, losses = None, []
    for index, batch in enumerate(batches):
        if index == 2:
            stored = jax.device_get(state)
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    resumed = jax.device_put(stored)
    for batch in batches[2:]:
        resumed, _ = step(resumed, batch)
    for leaf, other in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(resumed.params), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    # The same batch at another step, or with another key, is mixed in another way.
    later = stored._replace(step=stored.step + 1)
    assert float(step(later, batches[2])[1]["loss"]) != losses[2]
    other = stored._replace(key=jax.random.key(5))
    assert float(step(other, batches[2])[1]["loss"]) != losses[2]


def test_loss_and_accuracy_are_those_of_the_mixed_batch(task_and_step):
    task, step = task_and_step
    state = task.initialise(jax.random.key(0))
    batch = next(train_iterator(task.dataset, batch_size=32, seed=0))
    _, metrics = step(state, batch)
    key = jax.random.fold_in(state.key, 0)
    targets = np.eye(10, dtype=np.float32)[batch["label"]]
    images, targets = mixed(key, batch["image"], jnp.array(targets), **BOTH)
    logits = np.asarray(task.forward(state.params, state.model_state, images))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -((0.9 * targets + 0.01) * log_p).sum(axis=1).mean()
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-4)
    accuracy = np.asarray(targets)[np.arange(32), logits.argmax(axis=1)].mean()
    assert float(metrics["accuracy"]) == pytest.approx(accuracy, rel=1e-4)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), True, "0.2"])
def test_strengths_out_of_range(make, name, value):
    with pytest.raises(ConfigError, match=rf"config.{name} = {value!r} is not a fin"):
        make(**{name: value})
