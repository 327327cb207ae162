"""PPO: an actor that moves a little at a time, and a critic, without a replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sparsejax.building import ConfigError
from sparsejax.envs import Environment
from sparsejax.reinforcement.action_distributions import Categorical, Gaussian
from sparsejax.tasks import experience, optimization, stepping
from sparsejax.tasks.agent_networks import Part, agent_networks
from sparsejax.tasks.base import Metrics, Task, TrainState
from sparsejax.tasks.experience import Memory
from sparsejax.tasks.on_policy import Batch, Learner, on_policy


def ppo(
    config: Mapping[str, Any],
    *,
    discount: float = 0.99,
    advantage_decay: float = 0.95,
    clip: float = 0.2,
    clip_values: float | None = None,
    value_weight: float = 0.5,
    entropy_weight: float = 0.0,
    epochs: int = 10,
    minibatches: int = 4,
    normalize_advantages: bool = True,
    initial_deviation: float = 1.0,
) -> Task:
    """Builds an agent that improves its policy by what it has just done.

    With the ratio ``w = pi(a | o) / pi_old(a | o)`` and advantages ``A`` by
    `sparsejax.reinforcement.advantages`, the loss of a minibatch is the mean of
    ``-min(w A, clip(w, 1 - clip, 1 + clip) A)``, plus ``value_weight`` times
    ``1/2 (V(o) - V_old(o) - A)^2``, less ``entropy_weight`` times the policy's entropy.

    A cycle is a rollout, of ``config.data.batch_size * minibatches`` steps of
    ``config.data.environments`` copies together, and ``epochs * minibatches`` updates;
    a step of the run is one update, and intervals of the method count updates.
    Termination ends a value; a time limit does not: there the true last observation is
    bootstrapped from.

    Numbered actions are drawn from a categorical distribution. Vectors are drawn from a
    Gaussian whose mean the actor gives and whose deviations, the same everywhere, are
    parameters; what leaves the range of the environment is clipped as it enters it, and
    likelihoods are those before.

    Actor and critic have masks of their own; ``config.actor`` and ``config.critic``
    have fields ``model`` and ``method`` that go before ``config.model`` and
    ``config.method``, and ``config.actor_share`` splits one budget
    (`sparsejax.tasks.agent_networks`). ``config.optimizer.gradient_clip`` is of the
    gradient of each. Other fields are read as :func:`sparsejax.tasks.dqn.dqn` reads
    them, but ``config.data`` has nothing about a replay.

    Args:
      config: The config.
      discount: Of a step.
      advantage_decay: Lambda: 0 trusts the values, 1 the rewards alone.
      clip: How far from 1 the ratio of likelihoods is rewarded.
      clip_values: How far values may move from the old ones before moving on gains
        nothing; None for any distance.
      value_weight: Of the critic's loss.
      entropy_weight: Of the reward for entropy.
      epochs: How often each step of a rollout is learned from.
      minibatches: Updates of an epoch.
      normalize_advantages: Whether those of each minibatch get mean 0 and variance 1.
      initial_deviation: Of the Gaussian, where actions span [-1, 1].

    Returns:
      The task. Metrics: ``loss`` (the sum of all), ``value``, ``entropy``,
      ``divergence`` (of the old policy from the new, an estimate), ``clipped`` (share
      of ratios out of range), ``gradient_norm``, ``learning_rate``,
      ``training_return``, ``environment_steps``.

    Raises:
      ConfigError: An unknown name or argument, or a value out of range.

    References:
      Schulman et al., "Proximal policy optimization algorithms", 2017. Schulman et al.,
      "High-dimensional continuous control using generalized advantage estimation",
      ICLR 2016. Sparse: Graesser et al., "The state of sparse training in deep
      reinforcement learning", 2022. Networks and their initialisation are those of our
      other agents.
    """
    _check_shares(discount, advantage_decay)
    _check_counts(epochs, minibatches)
    _check_sizes(clip, clip_values, value_weight, entropy_weight, initial_deviation)
    chosen = experience.settings(config)
    environment = _clipping(experience.make_environment(chosen))
    seen, actions = environment.observation_shape, environment.number_of_actions
    size = int(np.prod(environment.action_shape))
    deviations = {"log_deviation": np.full(size, np.log(initial_deviation))}
    learning_rate = optimization.learning_rate_schedule(config)
    networks = agent_networks(
        config,
        {
            "actor": Part("actor", seen, size if actions is None else actions),
            "critic": Part("critic", seen, 1),
        },
        inner=optimization.optimizer(config, learning_rate),
        dense=deviations if actions is None else None,
    )
    step = stepping.stepping(networks.transformation, None)

    def policy(params: PyTree, observations: Array) -> Categorical | Gaussian:
        outputs = networks.apply(params, "actor", observations)
        if actions is not None:
            return Categorical(outputs)
        return Gaussian(outputs, params["log_deviation"])

    def shaped(vectors: Array) -> Array:
        return vectors.reshape(-1, *environment.action_shape)

    def act(params: PyTree, key: Key[Array, ""], observations: Array) -> Array:
        return shaped(policy(params, observations).sample(key))

    def decide(outputs: Array) -> Array:
        if actions is not None:
            return Categorical(outputs).mode()
        return shaped(jnp.clip(outputs, -1, 1))

    def flat(taken: Array) -> Array:
        return taken if actions is not None else taken.reshape(-1, size)

    def judge(params: PyTree, observations: Array, taken: Array) -> Array:
        return policy(params, observations).log_likelihood(flat(taken))

    def value(params: PyTree, observations: Array) -> Float[Array, " batch"]:
        return networks.apply(params, "critic", observations)[:, 0]

    def learn(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        advantage = batch.advantage
        if normalize_advantages:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

        def objective(params: PyTree, memory: Memory) -> Any:
            found = policy(params, batch.observation)
            change = found.log_likelihood(flat(batch.action)) - batch.log_likelihood
            ratio = jnp.exp(change)
            near = jnp.clip(ratio, 1 - clip, 1 + clip)
            gain = jnp.minimum(ratio * advantage, near * advantage).mean()
            values = value(params, batch.observation)
            error = _squared_error(values, batch, clip_values)
            entropy = found.entropy().mean()
            loss = value_weight * error - gain - entropy_weight * entropy
            metrics = {
                "value": values.mean(),
                "entropy": entropy,
                "divergence": (ratio - 1 - change).mean(),
                "clipped": (jnp.abs(ratio - 1) > clip).astype(jnp.float32).mean(),
            }
            return loss, (metrics, memory)

        done = step(state, objective)
        return done.state, {
            "loss": done.loss,
            **done.outputs,
            "gradient_norm": done.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }

    learner = Learner(
        networks=networks,
        act=act,
        judge=judge,
        value=value,
        learn=learn,
        decide=decide,
        acting="actor",
        discount=discount,
        advantage_decay=advantage_decay,
        epochs=epochs,
        minibatches=minibatches,
    )
    return on_policy(config, environment, chosen, learner)


def _squared_error(
    values: Float[Array, " batch"], batch: Batch, clip: float | None
) -> Float[Array, ""]:
    """Half of the mean, of the larger where values are clipped."""
    error = jnp.square(values - batch.target)
    if clip is not None:
        near = batch.value + jnp.clip(values - batch.value, -clip, clip)
        error = jnp.maximum(error, jnp.square(near - batch.target))
    return error.mean() / 2


def _clipping(environment: Environment) -> Environment:
    """The environment, where vectors that are out of its range are clipped to it."""
    low, high = environment.action_low, environment.action_high
    if low is None or high is None:
        return environment

    def step(key: Key[Array, ""], state: Any, action: Array) -> Any:
        return environment.step(key, state, jnp.clip(action, low, high))

    return environment._replace(step=step)


def _check_shares(discount: float, advantage_decay: float) -> None:
    for name, number in (("discount", discount), ("advantage_decay", advantage_decay)):
        if not 0 <= number <= 1:
            raise ConfigError(f"config.task.{name} = {number}: give one in [0, 1].")


def _check_counts(epochs: int, minibatches: int) -> None:
    for name, number in (("epochs", epochs), ("minibatches", minibatches)):
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"config.task.{name} = {number!r}: give an integer >= 1.")


def _check_sizes(
    clip: float,
    clip_values: float | None,
    value_weight: float,
    entropy_weight: float,
    initial_deviation: float,
) -> None:
    positive = {"clip": clip, "initial_deviation": initial_deviation}
    if clip_values is not None:
        positive["clip_values"] = clip_values
    for name, number in positive.items():
        if not number > 0:
            raise ConfigError(f"config.task.{name} = {number}: give a number above 0.")
    weights = {"value_weight": value_weight, "entropy_weight": entropy_weight}
    for name, number in weights.items():
        if number < 0:
            raise ConfigError(f"config.task.{name} = {number}: give a number >= 0.")
