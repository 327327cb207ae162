import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.reinforcement.activity import dormant_ratio, effective_rank


def dormant_by_hand(activations, threshold):
    activity = np.abs(activations.astype(np.float64)).mean(axis=0)
    return float((activity / activity.mean() <= threshold).mean())


def rank_by_hand(features, delta):
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = np.cumsum(values) / values.sum()
    return int(np.argmax(share >= 1 - delta)) + 1


@pytest.mark.parametrize("threshold", [0.0, 0.025, 0.1, 0.5])
def test_dormant_neurons_are_those_of_the_definition(threshold):
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.uniform(-4, 0, 40)
    activations = np.maximum(rng.normal(size=(64, 40)) * scales, 0)
    activations[:, :5] = 0
    activations = activations.astype(np.float32)
    found = jax.jit(dormant_ratio, static_argnums=1)(activations, threshold)
    assert float(found) == pytest.approx(dormant_by_hand(activations, threshold))


def test_neurons_with_negative_activations_are_awake():
    assert float(dormant_ratio(-jnp.ones((4, 3)))) == 0


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1.0, 1e37])
def test_dormancy_does_not_depend_on_the_scale(scale):
    activations = jnp.array([[1.0, 0.0, 3.0], [1.0, 0.0, 3.0]]) * scale
    assert float(dormant_ratio(activations)) == pytest.approx(1 / 3)


def test_no_activity_at_all():
    assert float(jax.jit(dormant_ratio)(jnp.zeros((4, 3)))) == 1
    assert int(jax.jit(effective_rank)(jnp.zeros((4, 3)))) == 0


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(64, 16), (8, 16)])
def test_the_rank_is_that_of_the_definition(shape, delta):
    rng = np.random.default_rng(1)
    features = rng.normal(size=shape) * 0.6 ** np.arange(shape[1])
    features = features.astype(np.float32)
    found = jax.jit(effective_rank, static_argnums=1)(features, delta)
    assert int(found) == rank_by_hand(features, delta)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_rank_does_not_depend_on_the_scale(scale):
    features = np.random.default_rng(2).normal(size=(32, 8)).astype(np.float32)
    found = effective_rank(jnp.asarray(features) * scale)
    assert int(found) == rank_by_hand(features, 0.01)


def test_one_direction_has_rank_1_in_low_precision_too():
    features = jnp.outer(jnp.arange(1.0, 9.0), jnp.ones(4)).astype(jnp.bfloat16)
    assert int(effective_rank(features)) == 1


def test_several_seeds_at_once():
    features = jnp.stack([jnp.eye(3), jnp.zeros((3, 3))])
    assert jax.vmap(effective_rank)(features).tolist() == [3, 0]
    assert jax.vmap(dormant_ratio)(features).tolist() == [0.0, 1.0]
