"""Many steps of an environment, for the tests of each library."""

import jax
import numpy as np


def rollout(environment, *, steps, copies=2, seed=0):
    """Steps of random actions [steps, copies, ...], and what was acted on.

    Returns:
      The observation before each step, and the steps.
    """

    def action(key):
        if environment.number_of_actions:
            return jax.random.randint(key, (), 0, environment.number_of_actions)
        low, high = environment.action_low, environment.action_high
        return jax.random.uniform(key, low.shape, minval=low, maxval=high)

    def one(carry, key):
        state, observation = carry
        keys = jax.random.split(key, copies)
        actions = jax.vmap(action)(keys)
        state, found = jax.vmap(environment.step)(keys, state, actions)
        return (state, found.observation), (observation, found)

    @jax.jit
    def run(key):
        start = jax.vmap(environment.reset)(jax.random.split(key, copies))
        return jax.lax.scan(one, start, jax.random.split(key, steps))[1]

    return jax.tree.map(np.asarray, run(jax.random.key(seed)))


def check(environment, before, found):
    """What holds of the steps of any environment."""
    ended = found.terminated | found.truncated
    for array in (before, found.observation, found.next_observation):
        assert array.shape[2:] == environment.observation_shape
        assert array.dtype == environment.observation_dtype
        assert np.isfinite(array).all()
    assert found.reward.dtype == np.float32
    assert np.isfinite(found.reward).all()
    assert found.terminated.dtype == found.truncated.dtype == bool
    # What is acted on next is what the step led to, except in a new episode.
    np.testing.assert_array_equal(before[1:], found.observation[:-1])
    same = (found.observation == found.next_observation).reshape(*ended.shape, -1)
    assert same.all(axis=-1)[~ended].all()
    for copy in ended.T:
        lengths = np.diff(np.flatnonzero(copy), prepend=-1)
        assert (lengths <= environment.episode_limit).all()
