"""What an environment is to an agent: pure functions, whatever library it is from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, Num

__all__ = ["Environment", "Step", "auto_reset", "scaled"]


class Step(NamedTuple):
    """What an action led to.

    Attributes:
      observation: What to act on next: of a new episode, where one has ended.
      next_observation: What the action itself led to, also at an episode's end.
      reward: For the action.
      terminated: The episode is over and nothing follows it: do not bootstrap.
      truncated: The episode was cut off, by a time limit: bootstrap.
    """

    observation: Num[Array, "..."]
    next_observation: Num[Array, "..."]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class Environment(NamedTuple):
    """One environment as pure functions, to be vmapped over many copies of it.

    Attributes:
      name: ``"LIBRARY:NAME"``.
      reset: Maps a key to the state and the observation of a new episode.
      step: Maps a key, a state and an action to the next state and a :class:`Step`.
      observation_shape: Of one observation.
      observation_dtype: Of one observation, as it is stored; bool where all entries
        are 0 or 1.
      episode_limit: Steps after which an episode ends in any case.
      number_of_actions: Actions are 0 to this, exclusive; None where they are vectors.
      action_low: Smallest entries of an action, one for each; None for numbered
        actions.
      action_high: Largest entries.
    """

    name: str
    reset: Callable[[Key[Array, ""]], tuple[Any, Array]]
    step: Callable[[Key[Array, ""], Any, Array], tuple[Any, Step]]
    observation_shape: tuple[int, ...]
    observation_dtype: DTypeLike
    episode_limit: int
    number_of_actions: int | None = None
    action_low: np.ndarray | None = None
    action_high: np.ndarray | None = None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Of one action; empty for numbered actions."""
        return () if self.action_low is None else self.action_low.shape

    @property
    def action_dtype(self) -> DTypeLike:
        """Of one action."""
        return np.int32 if self.action_low is None else np.float32


def auto_reset(
    reset: Callable[[Key[Array, ""]], tuple[Any, Array]],
    step: Callable[[Key[Array, ""], Any, Array], tuple[Any, Step]],
) -> Callable[[Key[Array, ""], Any, Array], tuple[Any, Step]]:
    """Begins a new episode wherever one has ended.

    Args:
      reset: Of the environment.
      step: One that stays in the last state of an episode.

    Returns:
      A step whose state and ``observation`` are those of a new episode where one has
      ended; its ``next_observation`` is that of the old one in any case.

    Example:
      >>> import jax.numpy as jnp
      >>> reset = lambda key: (0, jnp.array(0))
      >>> def step(key, state, action):
      ...     after = jnp.array(state + 1)
      ...     return state + 1, Step(after, after, 1.0, after == 2, jnp.array(False))
      >>> state, found = auto_reset(reset, step)(jax.random.key(0), 1, None)
      >>> int(state), int(found.observation), int(found.next_observation)
      (0, 0, 2)
    """

    def stepped(key: Key[Array, ""], state: Any, action: Array) -> tuple[Any, Step]:
        step_key, reset_key = jax.random.split(key)
        state, found = step(step_key, state, action)
        new_state, observation = reset(reset_key)
        ended = found.terminated | found.truncated

        def chosen(new: Array, old: Array) -> Array:
            return jax.lax.select(jax.numpy.broadcast_to(ended, new.shape), new, old)

        state = jax.tree.map(
            lambda new, old: chosen(jax.numpy.asarray(new), jax.numpy.asarray(old)),
            new_state,
            state,
        )
        observation = chosen(observation, found.observation)
        return state, found._replace(observation=observation)

    return stepped


def scaled(environment: Environment, scale: Float[np.ndarray, "..."]) -> Environment:
    """Divides observations.

    Args:
      environment: Whose observations are floats.
      scale: By what: a number, or one for each entry.

    Returns:
      The environment with the observations so.
    """

    def reset(key: Key[Array, ""]) -> tuple[Any, Array]:
        state, observation = environment.reset(key)
        return state, observation / scale

    def step(key: Key[Array, ""], state: Any, action: Array) -> tuple[Any, Step]:
        state, found = environment.step(key, state, action)
        return state, found._replace(
            observation=found.observation / scale,
            next_observation=found.next_observation / scale,
        )

    return environment._replace(reset=reset, step=step)
