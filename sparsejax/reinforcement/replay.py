"""What an agent remembers of its environment: transitions, and flashbax around them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from sparsejax.building import ConfigError
from sparsejax.envs.base import Environment
from sparsejax.extras import require

__all__ = ["Outcome", "Transition", "make_replay", "outcome"]


class Transition(NamedTuple):
    """One step of one environment, as it is stored.

    Attributes:
      observation: What was acted on.
      action: What was done: a number, or a vector in [-1, 1], maybe before it is
        clipped to that.
      reward: For it.
      next_observation: What it led to, also at an episode's end.
      terminated: Nothing follows.
      truncated: The episode was cut off.
    """

    observation: Num[Array, "..."]
    action: Num[Array, "..."]
    reward: Float[Array, "..."]
    next_observation: Num[Array, "..."]
    terminated: Bool[Array, "..."]
    truncated: Bool[Array, "..."]


class Outcome(NamedTuple):
    """What some steps came to, from the first on or to the episode's end.

    Attributes:
      reward: Discounted sum of the rewards.
      next_observation: After the last of the steps.
      discount: Of the value there; 0 where the episode terminated.
    """

    reward: Float[Array, " batch"]
    next_observation: Num[Array, "batch ..."]
    discount: Float[Array, " batch"]


def make_replay(
    environment: Environment,
    *,
    size: int,
    environments: int,
    batch_size: int,
    steps: int = 1,
) -> Any:
    """Makes a replay buffer of flashbax.

    Args:
      environment: Whose transitions it holds.
      size: How many, of all environments together.
      environments: Copies of the environment, which add a transition each at a time.
      batch_size: Sequences in a sample, drawn with replacement.
      steps: Transitions of a sequence.

    Returns:
      The buffer, `flashbax.buffers.trajectory_buffer.TrajectoryBuffer`, and an example
      of what it holds.

    Raises:
      ConfigError: The size is not a multiple of the environments, or too small.
    """
    if size % environments or size // environments < steps:
        raise ConfigError(
            f"config.data.replay_size = {size}: give a multiple of "
            f"config.data.environments = {environments}, of at least "
            f"{environments * steps}."
        )
    library: Any = require("flashbax", extra="rl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = library.make_trajectory_buffer(
            add_batch_size=environments,
            sample_batch_size=batch_size,
            sample_sequence_length=steps,
            period=1,
            min_length_time_axis=steps,
            max_length_time_axis=size // environments,
        )
    observation = jnp.zeros(
        environment.observation_shape, environment.observation_dtype
    )
    false = jnp.zeros((), bool)
    example = Transition(
        observation,
        jnp.zeros(environment.action_shape, environment.action_dtype),
        jnp.zeros((), jnp.float32),
        observation,
        false,
        false,
    )
    return buffer, example


def outcome(sequence: Transition, discount: float) -> Outcome:
    """The n-step outcome of sequences, which end where an episode does.

    ``reward = sum_(k < m) discount^k reward_k``, where m is the number of steps up to
    the end of the sequence or of its episode, whichever is first; the value after
    them counts ``discount^m``, and nothing where the episode terminated.

    Args:
      sequence: Transitions [batch, steps, ...].
      discount: Of a step.

    Returns:
      One outcome for each sequence.

    Example:
      >>> of = lambda *values: jnp.array([values])
      >>> steps = Transition(of(0, 1, 2), of(0, 0, 0), of(1.0, 10.0, 100.0),
      ...                    of(1, 2, 3), of(False, True, False), of(*[False] * 3))
      >>> found = outcome(steps, 0.5)
      >>> found.reward.tolist(), found.next_observation.tolist()
      ([6.0], [2])
      >>> found.discount.tolist()
      [0.0]
    """
    steps = sequence.reward.shape[1]
    ended = sequence.terminated | sequence.truncated
    # Whether the episode still goes on when a step begins.
    goes_on = jnp.cumprod(1.0 - ended[:, :-1].astype(jnp.float32), axis=1)
    goes_on = jnp.concatenate([jnp.ones_like(ended[:, :1], jnp.float32), goes_on], 1)
    powers = jnp.float32(discount) ** jnp.arange(steps, dtype=jnp.float32)
    last = goes_on.sum(axis=1).astype(jnp.int32) - 1

    def at_last(array: Array) -> Array:
        return jax.vmap(lambda row, index: row[index])(array, last)

    alive = 1.0 - at_last(sequence.terminated).astype(jnp.float32)
    return Outcome(
        (goes_on * powers * sequence.reward).sum(axis=1),
        at_last(sequence.next_observation),
        alive * jnp.float32(discount) * powers[last],
    )
