"""DQN: values of numbered actions, learned from remembered transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from sparsejax.building import ConfigError
from sparsejax.tasks import experience, optimization, stepping
from sparsejax.tasks.agent_networks import Part, agent_networks
from sparsejax.tasks.base import Metrics, Task, TrainState
from sparsejax.tasks.experience import Memory
from sparsejax.tasks.off_policy import Batch, Learner, off_policy


def dqn(
    config: Mapping[str, Any],
    *,
    discount: float = 0.99,
    double: bool = True,
    n_steps: int = 1,
    target_every: int = 100,
    epsilon: float = 0.05,
    exploration: float = 0.1,
    huber_delta: float | None = 1.0,
) -> Task:
    """Builds an agent that learns ``Q(observation, action)``.

    The loss is Huber's of ``Q(o, a) - (r + g Q'(o', a'))``, or half its square, with
    ``r`` the discounted reward of ``n_steps`` steps, ``g`` the discount after them, 0
    at a termination, and ``Q'`` the target network, a copy of the network that is made
    every ``target_every`` updates. A time limit ends no value: there the true last
    observation is bootstrapped from. Fields of the config read: ``model``, ``method``,
    ``optimizer`` and ``initialization`` as :func:`sparsejax.tasks.classify.classify`
    reads them; ``data``, the environment and the replay
    (`sparsejax.tasks.experience.Settings`); ``seeds``, ``updates_per_call``,
    ``evaluation_episodes`` (`sparsejax.tasks.agent.agent_task`). Intervals of the
    method count updates. Its gradient is that of the replay's batch.

    Args:
      config: The config.
      discount: Of a step.
      double: Whether the network, not its target, chooses the action ``a'``.
      n_steps: Steps before a value is bootstrapped.
      target_every: Updates between copies of the target network.
      epsilon: Share of random actions, after the exploration.
      exploration: Share of the updates during which that falls from 1.
      huber_delta: Error from which on the loss is linear; None for its square
        throughout. Linear, it hardly sees how wrong a value is at an episode's end:
        plain ReLU networks diverged on CartPole with 1.0, and learned it with None.

    Returns:
      The task. Metrics: ``loss``, ``value`` (mean of the batch), ``gradient_norm``,
      ``learning_rate``, ``epsilon``, ``training_return``, ``environment_steps``.

    Raises:
      ConfigError: An unknown name or argument, a value out of range, or an environment
        whose actions are not numbered.

    References:
      Mnih et al., "Human-level control through deep reinforcement learning", 2015.
      Van Hasselt et al., "Deep reinforcement learning with double Q-learning", 2016.
      Sparse: Graesser et al., "The state of sparse training in deep reinforcement
      learning", 2022. LayerNorm, which our recipes add, is not theirs.
    """
    _check(discount, n_steps, target_every, epsilon, exploration)
    if huber_delta is not None and huber_delta <= 0:
        raise ConfigError(
            f"config.task.huber_delta = {huber_delta}: give a number above 0, or None."
        )
    chosen = experience.settings(config)
    environment = experience.make_environment(chosen)
    actions = environment.number_of_actions
    if actions is None:
        raise ConfigError(
            f"config.data.name = {chosen.name!r} takes vectors as actions; DQN needs "
            "numbered ones: use config.task.name = 'sac' or 'ppo'."
        )
    learning_rate = optimization.learning_rate_schedule(config)
    networks = agent_networks(
        config,
        {"values": Part("values", environment.observation_shape, actions)},
        inner=optimization.optimizer(config, learning_rate),
    )
    step = stepping.stepping(networks.transformation, None)
    exploring = optax.linear_schedule(
        1.0, epsilon, max(1, round(exploration * config["steps"]))
    )

    def values(params: PyTree, observations: Array) -> Array:
        return networks.apply(params, "values", observations)

    def decide(values: Array) -> Array:
        return values.argmax(axis=-1).astype(jnp.int32)

    def policy(state: TrainState) -> experience.Policy:
        share = exploring(state.step)

        def explore(key: Key[Array, ""], observations: Array) -> Array:
            # One draw for both: drawing is much of what a step of a small agent takes.
            chance, choice = jax.random.uniform(key, (2, observations.shape[0]))
            best = decide(values(state.params, observations))
            other = (choice * actions).astype(jnp.int32)
            explores = chance < share
            return jnp.where(explores, other, best)

        return explore

    def learn(
        state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        del key

        def objective(params: PyTree, memory: Memory) -> Any:
            following = values(memory.targets, batch.next_observation)
            judged = values(params, batch.next_observation) if double else following
            best = _at(following, judged.argmax(axis=-1))
            target = jax.lax.stop_gradient(batch.reward + batch.discount * best)
            value = _at(values(params, batch.observation), batch.action)
            if huber_delta is None:
                losses = optax.l2_loss(value, target)
            else:
                losses = optax.huber_loss(value, target, delta=huber_delta)
            return losses.mean(), (value.mean(), memory)

        share = exploring(state.step)
        done = step(state, objective)
        memory, renew = done.state.model_state, done.state.step % target_every == 0
        targets = jax.tree.map(
            lambda new, old: jnp.where(renew, new, old),
            done.state.params,
            memory.targets,
        )
        memory = memory._replace(targets=targets)
        return done.state._replace(model_state=memory), {
            "loss": done.loss,
            "value": done.outputs,
            "gradient_norm": done.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
            "epsilon": jnp.asarray(share, jnp.float32),
        }

    learner = Learner(
        networks=networks,
        targets=lambda params: params,
        policy=policy,
        learn=learn,
        decide=decide,
        acting="values",
        discount=discount,
        n_steps=n_steps,
    )
    return off_policy(config, environment, chosen, learner)


def _at(values: Array, actions: Array) -> Array:
    return jnp.take_along_axis(values, actions[:, None], axis=-1)[:, 0]


def _check(
    discount: float, n_steps: int, target_every: int, epsilon: float, share: float
) -> None:
    for name, value in (
        ("discount", discount),
        ("epsilon", epsilon),
        ("exploration", share),
    ):
        if not 0 <= value <= 1:
            raise ConfigError(f"config.task.{name} = {value}: give one in [0, 1].")
    for name, value in (("n_steps", n_steps), ("target_every", target_every)):
        if value < 1:
            raise ConfigError(f"config.task.{name} = {value}: give an integer >= 1.")
