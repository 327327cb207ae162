"""What every task consists of: a state, and pure functions of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from sparsejax.data.pipeline import Dataset
from sparsejax.layers import Layout

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """Everything that a training step changes, and a checkpoint stores.

    Attributes:
      step: Updates made so far, int32.
      params: Trainable parameters, exactly sparse.
      model_state: The model's other arrays, such as BatchNorm statistics.
      optimizer_state: The sparse method's state, with masks and the inner optimizer's.
      key: Random key for steps that draw noise.
      average: `sparsejax.tasks.averaging.Average`, if evaluation uses one.
    """

    step: Int[Array, ""]
    params: PyTree
    model_state: PyTree
    optimizer_state: optax.OptState
    key: Key[Array, ""]
    average: Any = None


class Policy(NamedTuple):
    """What acts, when an agent is not trained any more.

    Attributes:
      environment: `sparsejax.envs.Environment` that it acts in.
      model: The network, a Flax NNX module.
      masks: Of its parameters; None at dense leaves.
      prepare: Maps observations, [batch, ...], to the network's inputs.
      decide: Maps the network's outputs to the actions that the environment takes.
    """

    environment: Any
    model: Any
    masks: PyTree
    prepare: Callable[[Array], Array]
    decide: Callable[[Array], Array]


def mean_over_examples(outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of an evaluation whose batches are sums over their examples.

    Args:
      outputs: What the evaluation step returned for each batch: sums, and ``count``.

    Returns:
      Each sum over ``count``; ``correct`` becomes ``accuracy``.

    Example:
      >>> mean_over_examples([{"loss": 3.0, "count": 2}, {"loss": 1.0, "count": 2}])
      {'loss': 1.0}
    """
    sums: dict[str, float] = {}
    for output in outputs:
        for name, value in output.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    count = sums.pop("count")
    names = {"correct": "accuracy"}
    return {names.get(name, name): value / count for name, value in sums.items()}


def _the_only_one(state: TrainState, number: int = 0) -> TrainState:
    del number
    return state


class Task(NamedTuple):
    """A problem to train on; its functions are pure and can be jitted and vmapped.

    Attributes:
      dataset: Where batches come from.
      initialise: Maps a key to the state before the first step, already sparse.
      train_step: Maps a state and a batch to the next state and scalar metrics, among
        them ``loss``.
      evaluation_step: Maps a state and an evaluation batch to what ``gather`` needs of
        it.
      forward: Maps parameters, model state and inputs to the outputs in inference.
      example_input: Inputs of one example, with the batch axis.
      gather: Makes the metrics of what the evaluation step returned for each batch. By
        default that is sums over its examples: ``loss``, ``correct`` and ``count``.
      samples: Maps a state to arrays that the report shows, such as predictions for a
        few examples; ``kind`` among them says of what kind. Not to be jitted.
      start: Arrays to begin with, for ``initialise`` as its second argument.
      layout: Roles of the parameters' axes, where the default is wrong.
      steps_per_call: Updates that a call of ``train_step`` makes.
      one_of: Maps a state, and a number, to the state of one network, where a state is
        that of several which are trained side by side.
    """

    dataset: Dataset
    initialise: Callable[..., TrainState]
    train_step: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[TrainState, Mapping[str, Any]], Mapping[str, Any]]
    forward: Callable[[PyTree, PyTree, Array], Array]
    example_input: Array
    gather: Callable[[Iterable[Mapping[str, Any]]], dict[str, float]] = (
        mean_over_examples
    )
    samples: Callable[[TrainState], Mapping[str, np.ndarray]] | None = None
    start: Any = None
    layout: Layout | None = None
    steps_per_call: int = 1
    one_of: Callable[..., TrainState] = _the_only_one
    replicas: Any = None
    policy: Callable[[TrainState], Policy] | None = None
