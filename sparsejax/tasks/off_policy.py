"""What agents that learn from remembered transitions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num, PyTree

from sparsejax.envs import Environment
from sparsejax.reinforcement.replay import make_replay, outcome
from sparsejax.tasks import experience
from sparsejax.tasks.agent import Agent, agent_task
from sparsejax.tasks.agent_networks import AgentNetworks
from sparsejax.tasks.base import Metrics, Task, TrainState
from sparsejax.tasks.experience import Memory, Policy

__all__ = ["Batch", "Learner", "off_policy"]


class Batch(NamedTuple):
    """A sample of what is remembered, observations as the networks see them.

    Attributes:
      observation: What was acted on.
      action: What was done.
      reward: Discounted, of the steps that followed.
      next_observation: After them.
      discount: Of the value there; 0 where the episode terminated.
    """

    observation: Float[Array, "batch ..."]
    action: Num[Array, "batch ..."]
    reward: Float[Array, " batch"]
    next_observation: Float[Array, "batch ..."]
    discount: Float[Array, " batch"]


class Learner(NamedTuple):
    """What makes one algorithm of them.

    Attributes:
      networks: What is trained.
      targets: Maps all parameters to those that have a slower copy.
      policy: Maps a state to how the agent explores.
      learn: Maps a state, a batch and a key to the state after an update, with the
        targets moved, and scalar metrics.
      decide: Maps outputs of the acting network to the best actions.
      acting: Name of the network that acts.
      discount: Of a step.
      n_steps: Steps before a value is bootstrapped.
    """

    networks: AgentNetworks
    targets: Callable[[PyTree], PyTree]
    policy: Callable[[TrainState], Policy]
    learn: Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]
    decide: Callable[[Array], Array]
    acting: str
    discount: float
    n_steps: int


def off_policy(
    config: Mapping[str, Any],
    environment: Environment,
    chosen: experience.Settings,
    learner: Learner,
) -> Task:
    """Makes the task of an agent that acts, remembers and learns in turns.

    Args:
      config: The config.
      environment: What to act in.
      chosen: ``config.data``.
      learner: The algorithm.

    Returns:
      The task.

    Raises:
      ConfigError: A number of the config is out of range.
    """
    buffer, example = make_replay(
        environment,
        size=chosen.replay_size,
        environments=chosen.environments,
        batch_size=chosen.batch_size,
        steps=learner.n_steps,
    )

    def initialise(key: Key[Array, ""]) -> TrainState:
        keys = jax.random.split(key, 4)
        params, optimizer_state = learner.networks.initialise(keys[0])
        memory = experience.begin(
            keys[1],
            environment,
            chosen,
            targets=jax.tree.map(jnp.copy, learner.targets(params)),
            replay=buffer.init(example),
        )
        first = -(-chosen.learning_starts // chosen.environments)
        policy = experience.random_actions(environment, chosen.environments)
        memory = remember(keys[2], memory, policy, max(first, learner.n_steps))
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, memory, optimizer_state, keys[3])

    def remember(
        key: Key[Array, ""], memory: Memory, policy: Policy, steps: int
    ) -> Memory:
        memory, transitions = experience.interact(
            key, memory, policy, environment, steps
        )
        return memory._replace(replay=buffer.add(memory.replay, transitions))

    def cycle(state: TrainState) -> tuple[TrainState, Metrics]:
        key = experience.role_key(state, "act")
        policy = learner.policy(state)
        memory = remember(key, state.model_state, policy, chosen.steps_per_update)
        state = state._replace(model_state=memory)
        state, metrics = jax.lax.scan(
            lambda state, _: update(state), state, length=chosen.updates_per_step
        )
        return state, {name: found.mean() for name, found in metrics.items()}

    def update(state: TrainState) -> tuple[TrainState, Metrics]:
        memory = state.model_state
        key = experience.role_key(state, "replay")
        sequence = buffer.sample(memory.replay, key).experience
        found = outcome(sequence, learner.discount)
        batch = Batch(
            experience.observed(memory, sequence.observation[:, 0]),
            sequence.action[:, 0],
            found.reward,
            experience.observed(memory, found.next_observation),
            found.discount,
        )
        return learner.learn(state, batch, experience.role_key(state, "learn"))

    return agent_task(
        config,
        Agent(
            environment,
            initialise,
            cycle,
            chosen.updates_per_step,
            learner.decide,
            learner.networks,
            learner.acting,
        ),
    )
