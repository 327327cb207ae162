"""From an agent to a task: seeds side by side, many updates in a call, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

import sparsejax as sj
from sparsejax.building import ConfigError
from sparsejax.envs import Environment
from sparsejax.reinforcement.activity import dormant_ratio, effective_rank
from sparsejax.reinforcement.seeds import each_seed, over_seeds, single
from sparsejax.tasks import experience
from sparsejax.tasks.agent_networks import AgentNetworks
from sparsejax.tasks.base import Metrics, Policy, Task, TrainState

__all__ = ["Agent", "agent_task"]

# Observations that the activity of neurons is measured on, at least.
_WATCHED = 256


class Agent(NamedTuple):
    """What an agent is, for one seed; all functions are pure.

    Attributes:
      environment: What it acts in.
      initialise: Maps a key to the state before the first update.
      cycle: Maps a state to the state after ``updates_per_cycle`` updates and all the
        acting that goes with them, and scalar metrics.
      updates_per_cycle: Optimizer steps of a cycle.
      decide: Maps outputs of the acting network to the best actions, as they are
        stored.
      networks: What is trained.
      acting: Name of the network that acts.
    """

    environment: Environment
    initialise: Callable[[Key[Array, ""]], TrainState]
    cycle: Callable[[TrainState], tuple[TrainState, Metrics]]
    updates_per_cycle: int
    decide: Callable[[Array], Array]
    networks: AgentNetworks
    acting: str


def agent_task(config: Mapping[str, Any], agent: Agent) -> Task:
    """Makes the task that trains an agent.

    Fields read: ``seeds``, how many agents to train side by side in one program
    (default 1; their keys follow from ``seed``); ``updates_per_call``, the updates of
    one compiled call, which steps between logs, evaluations and checkpoints are
    multiples of; ``evaluation_episodes`` (default 10).

    Args:
      config: The config.
      agent: What to train.

    Returns:
      The task; a step is an update of the networks, not one of the environment.
      Metrics of training are means over the updates of a call and over the seeds;
      evaluation has ``episode_return``, the mean over seeds and episodes,
      ``episode_return_of_seed``, ``episode_length``, and of the acting network
      ``dormant_ratio`` and ``effective_rank`` (`sparsejax.reinforcement.activity`).

    Raises:
      ConfigError: A number is out of range.
    """
    seeds, per_call, count = (
        _positive(config, name, default)
        for name, default in (
            ("seeds", 1),
            ("updates_per_call", 1_000),
            ("evaluation_episodes", 10),
        )
    )
    _check_multiples(config, per_call, agent.updates_per_cycle)

    def axes(state: TrainState) -> Any:
        return TrainState(
            step=None,  # type: ignore[arg-type]
            params=jax.tree.map(lambda _: 0, state.params),
            model_state=state.model_state.axes(),
            optimizer_state=sj.replica_axes(state.optimizer_state),
            key=0,  # type: ignore[arg-type]
        )

    initialise, mapped = over_seeds(agent.initialise, axes, seeds)

    def one_call(state: TrainState) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(
            lambda state, _: agent.cycle(state),
            state,
            length=per_call // agent.updates_per_cycle,
        )
        metrics = {name: value.mean() for name, value in metrics.items()}
        finished = jnp.nanmean(state.model_state.finished)
        return state, metrics | {"training_return": finished}

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        del batch
        # The counters that decide on branches stay one for all seeds.
        state, metrics = each_seed(one_call, mapped, seeds)(state)
        metrics = {name: value.mean() for name, value in metrics.items()}
        frames = state.model_state.frames
        return state, metrics | {"environment_steps": frames.astype(jnp.float32)}

    def greedy(params: PyTree, observations: Array) -> Array:
        return agent.decide(agent.networks.apply(params, agent.acting, observations))

    def evaluate(state: TrainState) -> dict[str, Float[Array, "..."]]:
        memory, params = state.model_state, shown(state)
        play_key, watch_key = jax.random.split(experience.role_key(state, "evaluate"))

        def policy(key: Key[Array, ""], observations: Array) -> Array:
            del key
            return greedy(params, experience.observed(memory, observations))

        returns, lengths = experience.episodes(
            play_key, agent.environment, policy, count
        )
        found = {"returns": returns, "lengths": lengths}
        return found | activity(watch_key, memory, params)

    def activity(
        key: Key[Array, ""], memory: experience.Memory, params: PyTree
    ) -> dict[str, Float[Array, ""]]:
        """How much of the acting network answers to what it meets."""
        steps = -(-_WATCHED // memory.observations.shape[0])
        _, met = experience.interact(
            key,
            memory,
            lambda _, observations: greedy(params, observations),
            agent.environment,
            steps,
        )
        observations = met.observation.reshape(-1, *met.observation.shape[2:])
        layers = agent.networks.hidden(
            params, agent.acting, experience.observed(memory, observations)
        )
        if not layers:
            return {}
        units = [layer.shape[1] for layer in layers]
        ratios = jnp.stack([dormant_ratio(layer) for layer in layers])
        return {
            "dormant_ratio": (ratios * jnp.array(units)).sum() / sum(units),
            "effective_rank": effective_rank(layers[-1]).astype(jnp.float32),
        }

    def shown(state: TrainState) -> PyTree:
        return sj.evaluation_params(state.params, state.optimizer_state)

    def evaluation_step(state: TrainState, batch: Any) -> dict[str, Array]:
        del batch
        return jax.vmap(evaluate, in_axes=(mapped,))(state)

    def forward(params: PyTree, model_state: Any, observations: Array) -> Array:
        seen = experience.observed(model_state, observations)
        return agent.networks.apply(params, agent.acting, seen)

    def policy(state: TrainState) -> Policy:
        params, masks = shown(state), sj.masks(state.optimizer_state)
        return Policy(
            environment,
            agent.networks.module(params, agent.acting),
            masks[agent.acting],
            lambda observations: experience.observed(state.model_state, observations),
            lambda outputs: experience.environment_action(
                environment, agent.decide(outputs)
            ),
        )

    environment = agent.environment
    # One program: simulated devices can deadlock in the parts of several.
    one_of = jax.jit(lambda state, number: single(state, mapped, number))
    return Task(
        dataset=experience.no_dataset(environment, config["data"]["batch_size"]),
        initialise=lambda key, start=None: initialise(key),
        train_step=train_step,
        evaluation_step=evaluation_step,
        forward=forward,
        example_input=jnp.zeros(
            (1, *environment.observation_shape), environment.observation_dtype
        ),
        gather=_gather,
        steps_per_call=per_call,
        one_of=lambda state, number=0: one_of(state, number),
        replicas=mapped,
        policy=policy,
    )


def _gather(outputs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    (found,) = outputs
    returns = np.asarray(found["returns"])
    row: dict[str, Any] = {
        "episode_return": float(returns.mean()),
        "episode_length": float(np.mean(found["lengths"])),
    }
    means = returns.mean(axis=1)
    for name in ("dormant_ratio", "effective_rank"):
        if name in found:
            row[name] = float(np.mean(found[name]))
    row["episode_return_of_seed"] = {
        str(number): float(mean) for number, mean in enumerate(means)
    }
    return row


def _positive(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"config.{name} = {value!r}: give an integer >= 1.")
    return value


def _check_multiples(config: Mapping[str, Any], per_call: int, per_cycle: int) -> None:
    if per_call % per_cycle:
        raise ConfigError(
            f"config.updates_per_call = {per_call}: give a multiple of "
            f"{per_cycle}, the updates that follow upon acting once."
        )
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        if config[name] % per_call:
            raise ConfigError(
                f"config.{name} = {config[name]}: give a multiple of "
                f"config.updates_per_call = {per_call}, or lower that."
            )
