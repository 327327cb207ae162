"""How an agent makes its own examples: acting, remembering, being evaluated."""

from __future__ import annotations

import importlib.metadata
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from sparsejax import envs
from sparsejax.building import ConfigError, plain
from sparsejax.data.pipeline import Dataset
from sparsejax.envs import Environment
from sparsejax.reinforcement.normalization import (
    ObservationStatistics,
    normalized,
    seen,
    unseen,
)
from sparsejax.reinforcement.replay import Transition
from sparsejax.tasks.base import TrainState

__all__ = [
    "Memory",
    "Settings",
    "begin",
    "environment_action",
    "episodes",
    "interact",
    "no_dataset",
    "observed",
    "random_actions",
    "role_key",
    "settings",
]

Policy = Callable[[Key[Array, ""], Array], Array]
"""Maps a key and normalised observations to actions, as they are stored."""


Role = Literal["act", "replay", "learn", "evaluate"]


def role_key(state: TrainState, role: Role) -> Key[Array, ""]:
    """The key of a step for one purpose; no other purpose or step has the same.

    Of the first 2**30 steps, that is.

    Args:
      state: Whose key and step it follows from.
      role: What is drawn.

    Returns:
      The key.
    """
    roles = get_args(Role)
    number = state.step.astype(jnp.uint32) * len(roles) + roles.index(role)
    return jax.random.fold_in(state.key, number)


class Settings(NamedTuple):
    """``config.data`` of an agent.

    Attributes:
      name: The environment: ``"gymnax:CartPole-v1"``.
      options: Further arguments of the environment.
      batch_size: Transitions of an update.
      environments: Copies of the environment.
      replay_size: Transitions remembered, of all copies together.
      learning_starts: Transitions of random actions before the first update.
      steps_per_update: Steps of every copy between two updates.
      updates_per_step: Updates after each such step; one of the two is 1.
      normalize: Whether observations are normalised by their running statistics.
      observation_scale: What observations are divided by, a number or one for each of
        their entries; instead of the statistics, where those would drift with what the
        agent does.
    """

    name: str
    options: dict[str, Any]
    batch_size: int
    environments: int = 8
    replay_size: int = 100_000
    learning_starts: int = 1_000
    steps_per_update: int = 1
    updates_per_step: int = 1
    normalize: bool = True
    observation_scale: float | tuple[float, ...] = 1.0


class Memory(NamedTuple):
    """All of an agent's state that its optimizer does not train.

    Attributes:
      targets: The slower networks that values are bootstrapped from.
      statistics: Of the observations; None where they are not normalised.
      environments: States of the copies of the environment.
      observations: What to act on next, of each copy.
      replay: The buffer's state.
      frames: Steps of the environment so far, of all copies together.
      running: Return of the episode under way, of each copy.
      finished: Return of the last finished episode of each copy; NaN before.
    """

    targets: PyTree
    statistics: ObservationStatistics | None
    environments: Any
    observations: Num[Array, "environments ..."]
    replay: Any
    frames: Int[Array, ""]
    running: Float[Array, " environments"]
    finished: Float[Array, " environments"]

    def axes(self) -> Memory:
        """0 at what each of several seeds has, None at what they share."""
        each = jax.tree.map(lambda _: 0, self)
        replay = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, self.replay)
        each = each._replace(replay=replay, frames=None)
        if self.statistics is None:
            return each
        assert each.statistics is not None
        return each._replace(statistics=each.statistics._replace(count=None))


def settings(config: Mapping[str, Any]) -> Settings:
    """Reads ``config.data``.

    Args:
      config: The config; fields that are not of `Settings` go to the environment.

    Returns:
      The settings.

    Raises:
      ConfigError: A number is out of range.
    """
    fields = plain(config["data"])
    fields.pop("worker_count", None)
    known = set(Settings._fields) - {"options"}
    own = {key: value for key, value in fields.items() if key in known}
    options = {key: value for key, value in fields.items() if key not in known}
    found = Settings(options=options, **own)
    for name, value in found._asdict().items():
        if name in ("name", "options", "normalize", "observation_scale"):
            continue
        least = 0 if name == "learning_starts" else 1
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_integer or value < least:
            raise ConfigError(
                f"config.data.{name} = {value!r}: give an integer >= {least}."
            )
    if found.steps_per_update > 1 and found.updates_per_step > 1:
        raise ConfigError(
            f"config.data.steps_per_update = {found.steps_per_update} and "
            f"config.data.updates_per_step = {found.updates_per_step}: one of them has "
            "to be 1."
        )
    return found


def no_dataset(environment: Environment, batch_size: int) -> Dataset:
    """Stands in for a dataset where an agent makes its own examples.

    Args:
      environment: What it acts in.
      batch_size: Of the config.

    Returns:
      A dataset whose batches say nothing.
    """
    library = environment.name.partition(":")[0]
    try:
        version = f" of {library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return Dataset(
        train=[{}] * batch_size,
        evaluation=[{}],
        train_transform=_nothing,
        evaluation_transform=_nothing,
        number_of_classes=environment.number_of_actions or 0,
        input_shape=environment.observation_shape,
        input_dtype=environment.observation_dtype,
        input_name="number",
        identity=f"{environment.name}{version}",
    )


def begin(
    key: Key[Array, ""],
    environment: Environment,
    chosen: Settings,
    *,
    targets: PyTree,
    replay: Any = None,
) -> Memory:
    """The memory before the first step.

    Args:
      key: For the first episodes.
      environment: What to act in.
      chosen: Of `settings`.
      targets: The slower networks.
      replay: The empty buffer.

    Returns:
      The memory.
    """
    keys = jax.random.split(key, chosen.environments)
    states, observations = jax.vmap(environment.reset)(keys)
    shape = environment.observation_shape
    floating = jnp.issubdtype(environment.observation_dtype, jnp.floating)
    return Memory(
        targets=targets,
        statistics=unseen(shape) if chosen.normalize and floating else None,
        environments=states,
        observations=observations,
        replay=replay,
        frames=jnp.zeros((), jnp.int32),
        running=jnp.zeros(chosen.environments),
        finished=jnp.full(chosen.environments, jnp.nan),
    )


def interact(
    key: Key[Array, ""],
    memory: Memory,
    policy: Policy,
    environment: Environment,
    steps: int,
) -> tuple[Memory, Transition]:
    """Acts in every copy of the environment.

    Args:
      key: For the policy and the environment.
      memory: What the agent knows.
      policy: What it does.
      environment: What it acts in.
      steps: How often.

    Returns:
      The memory after it, and the transitions [environments, steps, ...]; they are not
      in the buffer yet.
    """

    copies = memory.observations.shape[0]

    def one(memory: Memory, keys: Key[Array, " keys"]) -> tuple[Memory, Transition]:
        actions = policy(keys[0], observed(memory, memory.observations))
        states, found = jax.vmap(environment.step)(
            keys[1:],
            memory.environments,
            environment_action(environment, actions),
        )
        running = memory.running + found.reward
        ended = found.terminated | found.truncated
        statistics = memory.statistics
        if statistics is not None:
            statistics = seen(statistics, found.next_observation)
        transition = Transition(
            memory.observations,
            actions,
            found.reward,
            found.next_observation,
            found.terminated,
            found.truncated,
        )
        return memory._replace(
            statistics=statistics,
            environments=states,
            observations=found.observation,
            frames=memory.frames + copies,
            running=jnp.where(ended, 0.0, running),
            finished=jnp.where(ended, running, memory.finished),
        ), transition

    keys = jax.random.split(key, (steps, 1 + copies))
    memory, transitions = jax.lax.scan(one, memory, keys)
    return memory, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), transitions)


def observed(memory: Memory, observations: Array) -> Array:
    """Observations as the agent's networks see them."""
    return normalized(memory.statistics, observations)


def random_actions(environment: Environment, copies: int) -> Policy:
    """A policy that looks at nothing: all actions are equally likely.

    Args:
      environment: Whose actions.
      copies: How many.

    Returns:
      The policy.
    """

    def policy(key: Key[Array, ""], observations: Array) -> Array:
        del observations
        shape = (copies, *environment.action_shape)
        if environment.number_of_actions is not None:
            return jax.random.randint(key, shape, 0, environment.number_of_actions)
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    return policy


def environment_action(environment: Environment, actions: Array) -> Array:
    """Actions as the environment takes them: vectors from [-1, 1] to their range."""
    low, high = environment.action_low, environment.action_high
    if low is None or high is None:
        return actions
    return jnp.asarray(low) + (actions + 1) / 2 * jnp.asarray(high - low)


def episodes(
    key: Key[Array, ""],
    environment: Environment,
    policy: Policy,
    count: int,
) -> tuple[Float[Array, " count"], Int[Array, " count"]]:
    """Plays some episodes to their end, side by side.

    Args:
      key: For the policy and the environment.
      environment: What to act in.
      policy: Maps a key and observations, as the environment shows them, to actions.
      count: How many episodes.

    Returns:
      The return, without discount, and the length of each.
    """
    reset_key, key = jax.random.split(key)
    states, observations = jax.vmap(environment.reset)(
        jax.random.split(reset_key, count)
    )

    def goes_on(carry: Any) -> Array:
        step, *_, alive = carry
        return alive.any() & (step < environment.episode_limit)

    def one(carry: Any) -> Any:
        step, states, observations, total, length, alive = carry
        policy_key, step_key = jax.random.split(jax.random.fold_in(key, step))
        actions = policy(policy_key, observations)
        states, found = jax.vmap(environment.step)(
            jax.random.split(step_key, count),
            states,
            environment_action(environment, actions),
        )
        total = total + jnp.where(alive, found.reward, 0.0)
        length = length + alive
        alive = alive & ~(found.terminated | found.truncated)
        return step + 1, states, found.observation, total, length, alive

    carry = (
        jnp.zeros((), jnp.int32),
        states,
        observations,
        jnp.zeros(count),
        jnp.zeros(count, jnp.int32),
        jnp.ones(count, bool),
    )
    *_, total, length, _ = jax.lax.while_loop(goes_on, one, carry)
    return total, length


def make_environment(chosen: Settings) -> Environment:
    """Makes the environment that the settings name, its observations scaled.

    Args:
      chosen: Of `settings`.

    Returns:
      The environment.

    Raises:
      ConfigError: There is none, or it has no such option, or the scale does not fit.
    """
    found = envs.make(chosen.name, **chosen.options)
    scale = np.asarray(chosen.observation_scale, np.float32)
    if (scale == 1).all():
        return found
    floating = jnp.issubdtype(found.observation_dtype, jnp.floating)
    if scale.shape not in ((), found.observation_shape) or (scale <= 0).any():
        raise ConfigError(
            f"config.data.observation_scale = {chosen.observation_scale}: give a "
            f"positive number, or one for each of {found.observation_shape} entries."
        )
    if not floating:
        raise ConfigError(
            f"config.data.observation_scale = {chosen.observation_scale}: observations "
            f"of {found.name} are {found.observation_dtype}; give 1."
        )
    return envs.scaled(found, scale)


def _nothing(*_: Any) -> dict[str, np.ndarray]:
    return {"number": np.zeros((), np.int32)}
