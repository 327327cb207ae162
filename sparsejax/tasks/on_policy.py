"""What agents that learn from what they have just done share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num, PyTree

from sparsejax.building import ConfigError
from sparsejax.envs import Environment
from sparsejax.reinforcement.advantages import generalized_advantages
from sparsejax.reinforcement.normalization import normalized, seen
from sparsejax.tasks import experience
from sparsejax.tasks.agent import Agent, agent_task
from sparsejax.tasks.agent_networks import AgentNetworks
from sparsejax.tasks.base import Metrics, Task, TrainState

__all__ = ["Batch", "Learner", "on_policy"]

# Fields of `config.data` that an agent with a replay has.
_OF_REPLAY = ("replay_size", "learning_starts", "steps_per_update", "updates_per_step")


class Batch(NamedTuple):
    """Steps of a rollout, and what was thought of them when it ended.

    Attributes:
      observation: What was acted on, as the networks see it.
      action: What was done.
      log_likelihood: Of the action, by the policy that chose it.
      value: Of the observation.
      advantage: Of the action.
      target: What the value is to become.
    """

    observation: Float[Array, "batch ..."]
    action: Num[Array, "batch ..."]
    log_likelihood: Float[Array, " batch"]
    value: Float[Array, " batch"]
    advantage: Float[Array, " batch"]
    target: Float[Array, " batch"]


class Learner(NamedTuple):
    """What makes one algorithm of them.

    Attributes:
      networks: What is trained.
      act: Maps parameters, a key and observations to actions.
      judge: Maps parameters, observations and actions to the actions' log-likelihood.
      value: Maps parameters and observations to values.
      learn: Maps a state and a batch to the state after an update and scalar metrics.
      decide: Maps outputs of the acting network to the best actions.
      acting: Name of the network that acts.
      discount: Of a step.
      advantage_decay: Lambda of the advantages.
      epochs: How often each step of a rollout is learned from.
      minibatches: Updates of an epoch.
    """

    networks: AgentNetworks
    act: Callable[[PyTree, Key[Array, ""], Array], Array]
    judge: Callable[[PyTree, Array, Array], Array]
    value: Callable[[PyTree, Array], Array]
    learn: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    decide: Callable[[Array], Array]
    acting: str
    discount: float
    advantage_decay: float
    epochs: int
    minibatches: int


def on_policy(
    config: Mapping[str, Any],
    environment: Environment,
    chosen: experience.Settings,
    learner: Learner,
) -> Task:
    """Makes the task of an agent that acts for a while, learns from it and forgets it.

    A rollout has ``batch_size * minibatches / environments`` steps of every copy of the
    environment. Observations are normalised by statistics that stand still until what
    they were used for has been learned.

    Args:
      config: The config.
      environment: What to act in.
      chosen: ``config.data``.
      learner: The algorithm.

    Returns:
      The task.

    Raises:
      ConfigError: A number of the config is out of range, or ``config.data`` has a
        field of a replay.
    """
    steps = _rollout_steps(config, chosen, learner.minibatches)
    size, updates = steps * chosen.environments, learner.epochs * learner.minibatches

    def initialise(key: Key[Array, ""]) -> TrainState:
        keys = jax.random.split(key, 3)
        params, optimizer_state = learner.networks.initialise(keys[0])
        memory = experience.begin(keys[1], environment, chosen, targets={})
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, memory, optimizer_state, keys[2])

    def rollout(state: TrainState, key: Key[Array, ""]) -> tuple[TrainState, Any]:
        """Acts, by one policy and one set of statistics throughout."""
        memory, params = state.model_state, state.params
        statistics = memory.statistics

        def policy(key: Key[Array, ""], observations: Array) -> Array:
            return learner.act(params, key, normalized(statistics, observations))

        memory, transitions = experience.interact(
            key, memory._replace(statistics=None), policy, environment, steps
        )
        memory = memory._replace(statistics=statistics)
        return state._replace(model_state=memory), transitions

    def judged(state: TrainState, transitions: Any) -> Batch:
        """All steps of a rollout, in one row."""
        flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), transitions)
        before, after = (
            experience.observed(state.model_state, observations)
            for observations in (flat.observation, flat.next_observation)
        )
        value, next_value = (
            learner.value(state.params, observations)
            for observations in (before, after)
        )
        shape = transitions.reward.shape
        advantage = generalized_advantages(
            transitions.reward,
            value.reshape(shape),
            next_value.reshape(shape),
            terminated=transitions.terminated,
            truncated=transitions.truncated,
            discount=learner.discount,
            decay=learner.advantage_decay,
        ).reshape(size)
        likelihood = learner.judge(state.params, before, flat.action)
        return Batch(
            before, flat.action, likelihood, value, advantage, value + advantage
        )

    def cycle(state: TrainState) -> tuple[TrainState, Metrics]:
        act_key = experience.role_key(state, "act")
        order_key = experience.role_key(state, "learn")
        state, transitions = rollout(state, act_key)
        batch = judged(state, transitions)

        def update(state: TrainState, rows: Array) -> tuple[TrainState, Metrics]:
            return learner.learn(state, jax.tree.map(lambda x: x[rows], batch))

        orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
            jax.random.split(order_key, learner.epochs)
        )
        state, metrics = jax.lax.scan(
            update, state, orders.reshape(updates, chosen.batch_size)
        )
        memory = state.model_state
        if memory.statistics is not None:
            found = transitions.next_observation
            found = found.reshape(size, *environment.observation_shape)
            statistics = seen(memory.statistics, found)
            state = state._replace(model_state=memory._replace(statistics=statistics))
        return state, {name: found.mean() for name, found in metrics.items()}

    return agent_task(
        config,
        Agent(
            environment,
            initialise,
            cycle,
            updates,
            learner.decide,
            learner.networks,
            learner.acting,
        ),
    )


def _rollout_steps(
    config: Mapping[str, Any], chosen: experience.Settings, minibatches: int
) -> int:
    """Steps of every copy of the environment that make all of the minibatches."""
    for name in _OF_REPLAY:
        if name in config["data"]:
            raise ConfigError(
                f"config.data.{name} = {config['data'][name]!r}: this agent has no "
                "replay; remove the field."
            )
    steps, rest = divmod(chosen.batch_size * minibatches, chosen.environments)
    if rest:
        raise ConfigError(
            f"config.data.batch_size = {chosen.batch_size}, times "
            f"config.task.minibatches = {minibatches}, are not equally many steps of "
            f"config.data.environments = {chosen.environments}: make it a multiple."
        )
    return steps
