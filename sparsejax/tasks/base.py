"""What every task consists of: a state, and pure functions of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from sparsejax.data.pipeline import Dataset

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """Everything that a training step changes, and a checkpoint stores.

    Attributes:
      step: Updates made so far, int32.
      params: Trainable parameters, exactly sparse.
      model_state: The model's other arrays, such as BatchNorm statistics.
      optimizer_state: The sparse method's state, with masks and the inner optimizer's.
      key: Random key for steps that draw noise.
    """

    step: Int[Array, ""]
    params: PyTree
    model_state: PyTree
    optimizer_state: optax.OptState
    key: Key[Array, ""]


class Task(NamedTuple):
    """A problem to train on; its functions are pure and can be jitted and vmapped.

    Attributes:
      dataset: Where batches come from.
      initialise: Maps a key to the state before the first step, already sparse.
      train_step: Maps a state and a batch to the next state and scalar metrics, among
        them ``loss``.
      evaluation_step: Maps a state and an evaluation batch to sums over its examples:
        ``loss``, ``correct`` and ``count``.
      forward: Maps parameters, model state and inputs to the outputs in inference.
      example_input: Inputs of one example, with the batch axis.
    """

    dataset: Dataset
    initialise: Callable[[Key[Array, ""]], TrainState]
    train_step: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[TrainState, Mapping[str, Any]], Metrics]
    forward: Callable[[PyTree, PyTree, Array], Array]
    example_input: Array
