"""SAC: an actor and two critics for actions that are vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

import sparsejax as sj
from sparsejax.building import ConfigError
from sparsejax.tasks import experience, optimization, stepping
from sparsejax.tasks.agent_networks import Part, agent_networks
from sparsejax.tasks.base import Metrics, Task, TrainState
from sparsejax.tasks.experience import Memory
from sparsejax.tasks.off_policy import Batch, Learner, off_policy

_CRITICS = ("critic1", "critic2")
# Of the logarithm of the actor's standard deviation, before the squashing.
_LOWEST, _HIGHEST = -5.0, 2.0


def sac(
    config: Mapping[str, Any],
    *,
    discount: float = 0.99,
    n_steps: int = 1,
    target_rate: float = 0.005,
    initial_temperature: float = 1.0,
    target_entropy: float | None = None,
) -> Task:
    """Builds an agent that is rewarded for its entropy, too.

    With actions ``a ~ pi(o)``, ``tanh`` of a Gaussian, and the temperature ``t``:

    - critics: ``1/2 (Q_i(o, a) - y)^2`` with
      ``y = r + g (min_i Q'_i(o', a') - t log pi(a' | o'))``;
    - actor: ``t log pi(a | o) - min_i Q_i(o, a)``;
    - temperature: ``-log t (log pi(a | o) + target_entropy)``.

    All three have their gradients taken at the same parameters, and make one step. The
    target networks move by ``target_rate`` at every update, and are as sparse as the
    critics: what a move of the topology drops leaves them at once. Actor and critics
    have masks of their own; ``config.actor`` and ``config.critic`` have fields
    ``model`` and ``method`` that go before ``config.model`` and ``config.method``, and
    ``config.actor_share`` splits one budget (`sparsejax.tasks.agent_networks`). Other
    fields are read as :func:`sparsejax.tasks.dqn.dqn` reads them.

    Args:
      config: The config.
      discount: Of a step.
      n_steps: Steps before a value is bootstrapped.
      target_rate: Share of the critics that their targets take over.
      initial_temperature: Before the first update.
      target_entropy: In nats; default minus the number of an action's entries.

    Returns:
      The task. Metrics: ``loss`` (the sum of all), ``value``, ``entropy``,
      ``temperature``, ``gradient_norm``, ``learning_rate``, ``training_return``,
      ``environment_steps``.

    Raises:
      ConfigError: An unknown name or argument, a value out of range, or an environment
        whose actions are numbered.

    References:
      Haarnoja et al., "Soft actor-critic algorithms and applications", 2018. Sparse:
      Graesser et al., "The state of sparse training in deep reinforcement learning",
      2022.
    """
    _check(discount, n_steps, target_rate, initial_temperature)
    chosen = experience.settings(config)
    environment = experience.make_environment(chosen)
    if environment.number_of_actions is not None:
        raise ConfigError(
            f"config.data.name = {chosen.name!r} has numbered actions; SAC needs "
            "vectors: use config.task.name = 'dqn' or 'ppo'."
        )
    seen, size = environment.observation_shape, int(np.prod(environment.action_shape))
    width = int(np.prod(seen)) + size
    entropy_wanted = float(-size if target_entropy is None else target_entropy)
    learning_rate = optimization.learning_rate_schedule(config)
    networks = agent_networks(
        config,
        {"actor": Part("actor", seen, 2 * size)}
        | {critic: Part("critic", (width,), 1) for critic in _CRITICS},
        inner=optimization.optimizer(config, learning_rate),
        dense={"log_temperature": float(np.log(initial_temperature))},
    )
    step = stepping.stepping(networks.transformation, None)

    def act(
        params: PyTree, key: Key[Array, ""], observations: Array
    ) -> tuple[Array, Float[Array, " batch"]]:
        mean, spread = _gaussian(networks.apply(params, "actor", observations))
        actions, likelihood = _squashed(key, mean, spread)
        return actions.reshape(-1, *environment.action_shape), likelihood

    def decide(outputs: Array) -> Array:
        mean, _ = _gaussian(outputs)
        return jnp.tanh(mean).reshape(-1, *environment.action_shape)

    def value(params: PyTree, observations: Array, actions: Array) -> list[Array]:
        flat = [x.reshape(x.shape[0], -1) for x in (observations, actions)]
        inputs = jnp.concatenate(flat, axis=-1)
        return [networks.apply(params, critic, inputs)[:, 0] for critic in _CRITICS]

    def critics(params: PyTree) -> PyTree:
        return {critic: params[critic] for critic in _CRITICS}

    def policy(state: TrainState) -> experience.Policy:
        return lambda key, observations: act(state.params, key, observations)[0]

    def learn(
        state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        next_key, action_key = jax.random.split(key)
        old, memory = state.params, state.model_state
        temperature = jnp.exp(old["log_temperature"])
        next_actions, likelihood = act(old, next_key, batch.next_observation)
        following = value(memory.targets, batch.next_observation, next_actions)
        following = jnp.minimum(*following) - temperature * likelihood
        target = batch.reward + batch.discount * following

        def objective(params: PyTree, memory: Memory) -> Any:
            judged = value(params, batch.observation, batch.action)
            errors = sum(jnp.square(q - target).mean() / 2 for q in judged)
            actions, likelihood = act(params, action_key, batch.observation)
            # The critics judge the actor, and do not learn from it.
            best = jnp.minimum(*value(old, batch.observation, actions))
            regret = (temperature * likelihood - best).mean()
            surplus = jax.lax.stop_gradient(likelihood).mean() + entropy_wanted
            loss = errors + regret - params["log_temperature"] * surplus
            return loss, ((judged[0].mean(), -likelihood.mean()), memory)

        done = step(state, objective)
        params, optimizer_state = done.state.params, done.state.optimizer_state
        moved: Any = optax.incremental_update(
            critics(params), memory.targets, target_rate
        )
        targets = critics(sj.apply_masks({**params, **moved}, optimizer_state))
        memory = done.state.model_state._replace(targets=targets)
        judged, entropy = done.outputs
        return done.state._replace(model_state=memory), {
            "loss": done.loss,
            "value": judged,
            "entropy": entropy,
            "temperature": jnp.exp(params["log_temperature"]),
            "gradient_norm": done.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }

    learner = Learner(
        networks=networks,
        targets=critics,
        policy=policy,
        learn=learn,
        decide=decide,
        acting="actor",
        discount=discount,
        n_steps=n_steps,
    )
    return off_policy(config, environment, chosen, learner)


def _gaussian(
    outputs: Float[Array, "batch double"],
) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
    """Mean, and logarithm of the standard deviation within its bounds."""
    mean, spread = jnp.split(outputs, 2, axis=-1)
    middle, half = (_LOWEST + _HIGHEST) / 2, (_HIGHEST - _LOWEST) / 2
    return mean, middle + half * jnp.tanh(spread)


def _squashed(
    key: Key[Array, ""],
    mean: Float[Array, "batch size"],
    spread: Float[Array, "batch size"],
) -> tuple[Float[Array, "batch size"], Float[Array, " batch"]]:
    """``tanh`` of a Gaussian's sample, and its log-likelihood."""
    noise = jax.random.normal(key, mean.shape)
    before = mean + jnp.exp(spread) * noise
    normal = -0.5 * jnp.square(noise) - spread - 0.5 * np.log(2 * np.pi)
    # log(1 - tanh(x)^2), without the cancellation.
    slope = 2 * (np.log(2) - before - jax.nn.softplus(-2 * before))
    return jnp.tanh(before), (normal - slope).sum(axis=-1)


def _check(discount: float, n_steps: int, rate: float, temperature: float) -> None:
    for name, number in (("discount", discount), ("target_rate", rate)):
        if not 0 <= number <= 1:
            raise ConfigError(f"config.task.{name} = {number}: give one in [0, 1].")
    if n_steps < 1:
        raise ConfigError(f"config.task.n_steps = {n_steps}: give an integer >= 1.")
    if temperature <= 0:
        raise ConfigError(
            f"config.task.initial_temperature = {temperature}: give a number above 0."
        )
