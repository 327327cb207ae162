import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.reinforcement.action_distributions import Categorical, Gaussian


def test_numbered_actions_come_as_often_as_they_are_likely():
    share = np.array([0.5, 0.2, 0.3])
    logits = jnp.broadcast_to(np.log(share) + 7.0, (20_000, 3))
    found = Categorical(logits)
    drawn = np.bincount(found.sample(jax.random.key(0)), minlength=3) / 20_000
    np.testing.assert_allclose(drawn, share, atol=0.015)
    likelihood = found.log_likelihood(jnp.full(20_000, 2))[0]
    np.testing.assert_allclose(likelihood, np.log(0.3), rtol=1e-5)
    entropy = -(share * np.log(share)).sum()
    np.testing.assert_allclose(found.entropy()[0], entropy, rtol=1e-5)
    assert found.mode()[0] == 0


def test_vectors_have_the_density_of_a_gaussian():
    mean, deviation = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    found = Gaussian(jnp.broadcast_to(mean, (20_000, 2)), jnp.log(deviation))
    drawn = found.sample(jax.random.key(0))
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.06)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.03)
    apart = (np.asarray(drawn, np.float64) - mean) / deviation
    density = np.exp(-0.5 * apart**2) / (deviation * np.sqrt(2 * np.pi))
    likelihood = found.log_likelihood(drawn)
    np.testing.assert_allclose(likelihood, np.log(density.prod(axis=1)), atol=1e-4)
    # The entropy is what the draws' own likelihoods come to.
    np.testing.assert_allclose(found.entropy()[0], -likelihood.mean(), atol=0.03)
