"""gymnax: classic control, MinAtar, bsuite, in JAX."""

from __future__ import annotations

import contextlib
import difflib
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from sparsejax.building import ConfigError
from sparsejax.envs.base import Environment, Step, auto_reset
from sparsejax.extras import require

__all__ = ["gymnax"]


def gymnax(environment: str) -> Environment:
    """Makes an environment of gymnax with its default parameters.

    Observations of MinAtar, all 0 or 1, are bool.

    Args:
      environment: Its name there: ``"CartPole-v1"``, ``"Breakout-MinAtar"``.

    Returns:
      The environment; after an episode's end it begins a new one by itself.

    Raises:
      ConfigError: There is no such environment.
      ImportError: gymnax is not installed.

    Example:
      >>> found = gymnax("Pendulum-v1")
      >>> found.observation_shape, found.action_low.tolist(), found.episode_limit
      ((3,), [-2.0], 200)

    References:
      Lange, "gymnax: A JAX-based reinforcement learning environment library", 2022.
      Young and Tian, "MinAtar: An Atari-inspired testbed", 2019.
    """
    library: Any = require("gymnax", extra="rl")
    names = list(library.registered_envs)
    if environment not in names:
        near = difflib.get_close_matches(environment, names, n=2)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise ConfigError(
            f"config.data.name = 'gymnax:{environment}': unknown{hint}; known: "
            f"{', '.join(names)}."
        )
    with contextlib.redirect_stdout(io.StringIO()):
        made, parameters = library.make(environment)
    actions = made.action_space(parameters)
    binary = environment.endswith("-MinAtar")
    numbered = hasattr(actions, "n")

    def seen(observation: Array) -> Array:
        return observation.astype(bool) if binary else jnp.asarray(observation)

    def reset(key: Key[Array, ""]) -> tuple[Any, Array]:
        observation, state = made.reset_env(key, parameters)
        return state, seen(observation)

    def step(key: Key[Array, ""], state: Any, action: Array) -> tuple[Any, Step]:
        observation, state, reward, terminated, _ = made.step_env(
            key, state, action, parameters
        )
        observation = seen(observation)
        return state, Step(
            observation,
            observation,
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            jnp.asarray(made.is_truncated(state, parameters), bool),
        )

    observation = jax.eval_shape(reset, jax.random.key(0))[1]
    shape = () if numbered else tuple(actions.shape)
    return Environment(
        name=f"gymnax:{environment}",
        reset=reset,
        step=auto_reset(reset, step),
        observation_shape=tuple(observation.shape),
        observation_dtype=observation.dtype,
        episode_limit=int(parameters.max_steps_in_episode),
        number_of_actions=int(actions.n) if numbered else None,
        action_low=None
        if numbered
        else np.broadcast_to(np.asarray(actions.low, np.float32), shape).copy(),
        action_high=None
        if numbered
        else np.broadcast_to(np.asarray(actions.high, np.float32), shape).copy(),
    )
