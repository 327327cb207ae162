"""Observations with noise: features that say nothing, entries that are not exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sparsejax.building import ConfigError
from sparsejax.envs.base import Environment, Step

__all__ = ["with_distractors", "with_observation_noise"]

Noise = Callable[[Key[Array, ""], Float[Array, " features"]], Float[Array, " more"]]


def with_distractors(
    environment: Environment, *, count: int, scale: float = 1.0
) -> Environment:
    """Appends features of pure noise, drawn anew at every step, to the observations.

    With nine times as many of them as there are features, an agent has to find the
    tenth of its inputs that matters.

    Args:
      environment: One whose observations are vectors.
      count: How many features to append; 0 appends none.
      scale: Standard deviation of the noise, whose mean is 0.

    Returns:
      The environment with longer observations, otherwise the same: its rewards and
      episodes do not see the noise.

    Raises:
      ConfigError: Observations are images or of bool, or a number is out of range.

    Example:
      >>> from sparsejax.envs import make
      >>> noisy = with_distractors(make("gymnax:Pendulum-v1"), count=27)
      >>> state, observation = noisy.reset(jax.random.key(0))
      >>> noisy.observation_shape, observation.shape
      ((30,), (30,))

    References:
      Grooten et al., "Automatic noise filtering with dynamic sparse training in deep
      reinforcement learning", AAMAS 2023.
    """
    _check_number("distractors", count, int)
    _check_number("distractor_scale", scale)
    if not count:
        return environment

    def noisy(key: Key[Array, ""], observation: Array) -> Array:
        noise = scale * jax.random.normal(key, (count,), observation.dtype)
        return jnp.concatenate([observation, noise])

    _check_vectors(environment, "distractors", count)
    return _noisy(environment, noisy, more=count, salt=1)


def with_observation_noise(environment: Environment, *, scale: float) -> Environment:
    """Adds noise to every entry of the observations: is the agent robust to it?

    Args:
      environment: One whose observations are vectors.
      scale: Standard deviation of the noise, whose mean is 0; 0 adds none.

    Returns:
      The environment with inexact observations; its rewards and episodes are the same.

    Raises:
      ConfigError: Observations are images or of bool, or the scale is negative.

    Example:
      >>> from sparsejax.envs import make
      >>> exact = make("gymnax:Pendulum-v1")
      >>> noisy = with_observation_noise(exact, scale=0.1)
      >>> key = jax.random.key(0)
      >>> difference = noisy.reset(key)[1] - exact.reset(key)[1]
      >>> bool(jnp.abs(difference).max() < 1), bool(jnp.all(difference != 0))
      (True, True)
    """
    _check_number("observation_noise", scale)
    if not scale:
        return environment

    def noisy(key: Key[Array, ""], observation: Array) -> Array:
        shape, dtype = observation.shape, observation.dtype
        return observation + scale * jax.random.normal(key, shape, dtype)

    _check_vectors(environment, "observation_noise", scale)
    return _noisy(environment, noisy, more=0, salt=2)


def _noisy(
    environment: Environment, noisy: Noise, *, more: int, salt: int
) -> Environment:
    """The environment seen through noise.

    The keys of the environment itself stay as they are, so that its episodes do, too.
    """
    (features,) = environment.observation_shape

    def reset(key: Key[Array, ""]) -> tuple[Any, Array]:
        state, observation = environment.reset(key)
        return state, noisy(_noise_key(key, salt), observation)

    def step(key: Key[Array, ""], state: Any, action: Array) -> tuple[Any, Step]:
        state, found = environment.step(key, state, action)
        ended = found.terminated | found.truncated
        key, new_key = jax.random.split(_noise_key(key, salt))
        after = noisy(key, found.next_observation)
        new = noisy(new_key, found.observation)
        # Within an episode the next observation is seen once, with one noise.
        observation = jnp.where(ended, new, after)
        return state, found._replace(observation=observation, next_observation=after)

    shape = (features + more,)
    return environment._replace(reset=reset, step=step, observation_shape=shape)


def _noise_key(key: Key[Array, ""], salt: int) -> Key[Array, ""]:
    """A key that neither the environment nor another noise draws from."""
    return jax.random.fold_in(jax.random.fold_in(key, 0x6E6F6973), salt)


def _check_number(field: str, value: Any, kind: type = float) -> None:
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not value >= 0:
        said = "an integer" if kind is int else "a number"
        raise ConfigError(f"config.data.{field} = {value!r}: give {said} >= 0.")


def _check_vectors(environment: Environment, field: str, value: float) -> None:
    shape = environment.observation_shape
    dtype = jnp.dtype(environment.observation_dtype)
    if len(shape) != 1 or not jnp.issubdtype(dtype, jnp.floating):
        raise ConfigError(
            f"config.data.{field} = {value!r}: observations of {environment.name} are "
            f"{dtype} of shape {shape}, and noise needs vectors of floats; set it to "
            "0, or choose an environment of classic control or of brax."
        )
