"""Trains one method at one sparsity on all seeds at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax.data.pipeline import Dataset, evaluation_batches, train_iterator
from sparsejax.layers import leaves_with_paths
from sparsejax.tasks.base import TrainState
from sparsejax.tasks.classify import classify


class Outcome(NamedTuple):
    """What one seed ends with.

    Attributes:
      accuracy: share of the test examples classified correctly.
      active: weights of the kernels that are not masked.
    """

    accuracy: float
    active: int


def train(config: ConfigDict, seeds: Sequence[int]) -> list[Outcome]:
    """Trains one network per seed, all in one vmapped program.

    Seed ``i`` has the initial weights, the masks and the order of examples that
    ``python -m sparsejax.train --config.seed=i`` gives it.

    Args:
      config: as `settings.configure` makes it.
      seeds: what the networks differ in.

    Returns:
      One outcome per seed.

    Raises:
      ValueError: a parameter outside its mask is not zero.
    """
    task = classify(config)
    examples = arrays(task.dataset)
    order = batch_positions(
        len(task.dataset.train), config.data.batch_size, config.steps, seeds
    )

    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    axes = sj.replica_axes(jax.eval_shape(task.initialise, keys[0]))
    initialise = jax.vmap(task.initialise, out_axes=axes)
    step = jax.vmap(task.train_step, in_axes=(axes, 0), out_axes=(axes, 0))
    evaluate = jax.vmap(task.evaluation_step, in_axes=(axes, None))

    @jax.jit
    def run(keys: Array, order: Array) -> TrainState:
        def one_step(states, chosen):
            batch = {name: array[chosen] for name, array in examples.items()}
            states, _ = step(states, batch)
            return states, None

        return lax.scan(one_step, initialise(keys), order)[0]

    states = run(keys, order)
    sj.verify(states.params, states.optimizer_state)
    [batch] = evaluation_batches(task.dataset, batch_size=len(task.dataset.evaluation))
    sums = jax.jit(evaluate)(states, batch)
    accuracies = np.asarray(sums["correct"], np.float64) / np.asarray(sums["count"])
    outcomes = zip(accuracies.tolist(), _active(states), strict=True)
    return [Outcome(*outcome) for outcome in outcomes]


def arrays(dataset: Dataset) -> dict[str, Array]:
    """All training examples, transformed, as stacked arrays."""
    rng = np.random.default_rng(0)
    examples = [dataset.train_transform(example, rng) for example in dataset.train]
    stacked = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    return jax.tree.map(jnp.asarray, stacked)


def batch_positions(
    size: int, batch_size: int, steps: int, seeds: Sequence[int]
) -> Int[Array, "steps seeds batch"]:
    """The positions of the examples in the batches of `train_iterator`."""
    positions = [{"position": np.int32(position)} for position in range(size)]
    dataset = Dataset(positions, [], lambda example, _: example, dict, 10, (1, 1, 1))
    iterators = [
        train_iterator(dataset, batch_size=batch_size, seed=seed) for seed in seeds
    ]
    batches = [
        [next(iterator)["position"] for _ in range(steps)] for iterator in iterators
    ]
    return jnp.asarray(np.stack(batches, axis=1))


def _active(states: TrainState) -> list[int]:
    """Active weights of each replica; of a dense leaf, all that it has."""
    masks = dict(leaves_with_paths(sj.masks(states.optimizer_state)))
    active: Any = 0
    for path, leaf in leaves_with_paths(states.params):
        replica = leaf[0]
        if path in masks:
            active += np.asarray(masks[path]).reshape(len(leaf), -1).sum(axis=1)
        elif sj.matmul_weights(path, replica):
            active += np.full(len(leaf), replica.size)
    return active.tolist()
