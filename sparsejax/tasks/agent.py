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
from sparsejax.reinforcement.seeds import over_seeds, single
from sparsejax.tasks import experience
from sparsejax.tasks.base import Metrics, Task, TrainState

__all__ = ["Agent", "agent_task"]


class Agent(NamedTuple):
    """What an agent is, for one seed; all functions are pure.

    Attributes:
      environment: What it acts in.
      initialise: Maps a key to the state before the first update.
      cycle: Maps a state to the state after ``updates_per_cycle`` updates and all the
        acting that goes with them, and scalar metrics.
      updates_per_cycle: Optimizer steps of a cycle.
      greedy: Maps parameters and normalised observations to the best actions.
      forward: Maps parameters and normalised observations to the acting network's
        outputs, for the count of its cost.
    """

    environment: Environment
    initialise: Callable[[Key[Array, ""]], TrainState]
    cycle: Callable[[TrainState], tuple[TrainState, Metrics]]
    updates_per_cycle: int
    greedy: Callable[[PyTree, Array], Array]
    forward: Callable[[PyTree, Array], Array]


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
      ``episode_return_of_seed`` and ``episode_length``.

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
        state, metrics = jax.vmap(one_call, in_axes=(mapped,), out_axes=(mapped, 0))(
            state
        )
        metrics = {name: value.mean() for name, value in metrics.items()}
        frames = state.model_state.frames
        return state, metrics | {"environment_steps": frames.astype(jnp.float32)}

    def evaluate(state: TrainState) -> dict[str, Float[Array, "..."]]:
        memory, params = state.model_state, shown(state)

        def policy(key: Key[Array, ""], observations: Array) -> Array:
            del key
            return agent.greedy(params, experience.observed(memory, observations))

        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        returns, lengths = experience.episodes(key, agent.environment, policy, count)
        return {"returns": returns, "lengths": lengths}

    def shown(state: TrainState) -> PyTree:
        return sj.evaluation_params(state.params, state.optimizer_state)

    def evaluation_step(state: TrainState, batch: Any) -> dict[str, Array]:
        del batch
        return jax.vmap(evaluate, in_axes=(mapped,))(state)

    def forward(params: PyTree, model_state: Any, observations: Array) -> Array:
        return agent.forward(params, experience.observed(model_state, observations))

    environment = agent.environment
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
        one_of=lambda state, number=0: single(state, mapped, number),
        replicas=mapped,
    )


def _gather(outputs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    (found,) = outputs
    returns = np.asarray(found["returns"])
    row: dict[str, Any] = {
        "episode_return": float(returns.mean()),
        "episode_length": float(np.mean(found["lengths"])),
    }
    means = returns.mean(axis=1)
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
            f"{per_cycle}, the updates that follow a step of the environments."
        )
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        if config[name] % per_call:
            raise ConfigError(
                f"config.{name} = {config[name]}: give a multiple of "
                f"config.updates_per_call = {per_call}, or lower that."
            )
