"""Environments whose values can be written down, for the tests of agents."""

import jax.numpy as jnp
import numpy as np

from sparsejax.envs import Environment, Step, auto_reset


def endless(environment, *, length=4, terminates=False):
    """A reward of 1 at every step; after ``length`` steps it is cut off, or ends.

    Two actions that do the same, or one number that does nothing.
    """

    def reset(key):
        del key
        return jnp.zeros((), jnp.int32), jnp.ones(2)

    def step(key, state, action):
        del key, action
        over = state + 1 == length
        false = jnp.zeros((), bool)
        observation = jnp.ones(2)
        ended = (over, false) if terminates else (false, over)
        return state + 1, Step(observation, observation, jnp.ones(()), *ended)

    numbered = environment == "numbered"
    return Environment(
        name=f"tests:{environment}",
        reset=reset,
        step=auto_reset(reset, step),
        observation_shape=(2,),
        observation_dtype=jnp.dtype("float32"),
        episode_limit=length,
        number_of_actions=2 if numbered else None,
        action_low=None if numbered else np.float32([-3.0]),
        action_high=None if numbered else np.float32([1.0]),
    )


def aim(environment):
    """One step long; the reward of an action a in [-3, 1] is ``-(a + 2)^2``."""
    del environment

    def reset(key):
        del key
        return jnp.zeros((), jnp.int32), jnp.ones(2)

    def step(key, state, action):
        del key
        observation, true = jnp.ones(2), jnp.ones((), bool)
        reward = -jnp.square(action[0] + 2.0)
        return state + 1, Step(observation, observation, reward, true, ~true)

    return Environment(
        name="tests:aim",
        reset=reset,
        step=auto_reset(reset, step),
        observation_shape=(2,),
        observation_dtype=jnp.dtype("float32"),
        episode_limit=1,
        action_low=np.float32([-3.0]),
        action_high=np.float32([1.0]),
    )
