"""Dense training, pruning and training on, for all seeds at once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

import sparsejax as sj
from experiments.digits_methods.training import arrays, batch_positions
from experiments.lottery_tickets.settings import Settings
from sparsejax import recipes
from sparsejax.data.pipeline import evaluation_batches
from sparsejax.layers import leaves_with_paths
from sparsejax.tasks import optimization
from sparsejax.tasks.base import TrainState
from sparsejax.tasks.classify import classify


class Point(NamedTuple):
    """Where a training can begin again, for all seeds along the first axis.

    Attributes:
      params: the parameters.
      model_state: the model's other arrays (statistics of batch norms; an MLP has
        none), which are rewound with them.
    """

    params: PyTree
    model_state: PyTree


class Trained(NamedTuple):
    """What a training ends with.

    Attributes:
      point: the trained networks.
      accuracies: shares of the test examples classified correctly, one per seed.
    """

    point: Point
    accuracies: Float[np.ndarray, " seeds"]


class Trainer(NamedTuple):
    """The functions of a study.

    Attributes:
      initial: number of a round -> newly drawn networks, for round 0 the study's own.
      dense: trains initial networks from step 0; returns the networks at the step of
        rewinding, too.
      sparse: trains networks with given masks, from a step on.
    """

    initial: Callable[[int], Point]
    dense: Callable[[Point], tuple[Point, Trained]]
    sparse: Callable[[Point, PyTree, int], Trained]


def trainer(settings: Settings) -> Trainer:
    """The MLP of `configs/mlp.py` on the digits, trained as the settings say.

    Seed ``i`` has the initial weights and the order of examples that
    ``python -m sparsejax.train --config=mlp:static --config.seed=i`` gives it, the
    order in all rounds. Each training restarts the optimizer's statistics.

    Args:
      settings: of the study.
    """
    config = recipes.mlp("static")
    config.steps = settings.steps
    config.method.sparsity = 0.0
    config.method.track = False
    task = classify(config)
    inner = optimization.optimizer(config, optimization.learning_rate_schedule(config))

    examples = arrays(task.dataset)
    seeds = range(settings.seeds)
    order = batch_positions(
        len(task.dataset.train), config.data.batch_size, settings.steps, seeds
    )
    [evaluation] = evaluation_batches(
        task.dataset, batch_size=len(task.dataset.evaluation)
    )
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    axes = sj.replica_axes(jax.eval_shape(task.initialise, keys[0]))
    step = jax.vmap(task.train_step, in_axes=(axes, 0), out_axes=(axes, 0))
    evaluate = jax.jit(jax.vmap(task.evaluation_step, in_axes=(axes, None)))

    @jax.jit
    def run(states: TrainState, positions: Array) -> TrainState:
        def one_step(states, chosen):
            batch = {name: array[chosen] for name, array in examples.items()}
            states, _ = step(states, batch)
            return states, None

        return lax.scan(one_step, states, positions)[0]

    def begin(point: Point, masks: PyTree, first: Array) -> TrainState:
        tx = sj.static(inner, sparsity=None, initial_masks=masks)
        params, optimizer_state = sj.rewind(point.params, masks, tx, step=first)
        # The key is for steps that draw noise; here none does.
        key = jax.random.key(0)
        return TrainState(first, params, point.model_state, optimizer_state, key)

    initialise_all = jax.jit(jax.vmap(task.initialise, out_axes=axes))
    begin_all = jax.jit(jax.vmap(begin, in_axes=(0, 0, None), out_axes=axes))

    def finished(states: TrainState) -> Trained:
        sj.verify(states.params, states.optimizer_state)
        sums = evaluate(states, evaluation)
        correct = np.asarray(sums["correct"], np.float64)
        point = Point(states.params, states.model_state)
        return Trained(point, correct / np.asarray(sums["count"]))

    def initial(number: int) -> Point:
        drawn = keys
        if number:
            drawn = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
        states = initialise_all(drawn)
        return Point(states.params, states.model_state)

    def dense(point: Point) -> tuple[Point, Trained]:
        states = begin_all(point, dense_masks(point.params), jnp.array(0))
        states = run(states, order[: settings.rewind_step])
        early = Point(states.params, states.model_state)
        return early, finished(run(states, order[settings.rewind_step :]))

    def sparse(point: Point, masks: PyTree, first: int) -> Trained:
        return finished(run(begin_all(point, masks, jnp.array(first)), order[first:]))

    return Trainer(initial, dense, sparse)


def dense_masks(params: PyTree) -> PyTree[Bool[Array, "..."] | None]:
    """All weights of the kernels; None at biases."""
    return jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, bool) if leaf.ndim == 3 else None, params
    )


def prune(
    params: PyTree, masks: PyTree, number: int, settings: Settings
) -> PyTree[Bool[Array, "..."] | None]:
    """The largest weights of each layer, as many as a round leaves.

    Args:
      params: trained, for all seeds along the first axis.
      masks: of the round before.
      number: of the round.
      settings: of the study.

    Returns:
      Masks inside those before.
    """
    left = [
        jnp.full(len(mask), settings.count(path, mask[0].size, number))
        for path, mask in leaves_with_paths(masks)
    ]
    return _largest(params, masks, left)


@jax.jit
def _largest(params: PyTree, masks: PyTree, left: list[Array]) -> PyTree:
    magnitudes = dict(leaves_with_paths(jax.tree.map(jnp.abs, params)))
    scores = [magnitudes[path] for path, _ in leaves_with_paths(masks)]
    kept = sj.top_k_masks(scores, left, where=jax.tree.leaves(masks))
    return jax.tree.unflatten(jax.tree.structure(masks), kept)


def active(masks: PyTree) -> list[tuple[int, int]]:
    """Active weights of every seed, and how many there are."""
    rows = [np.asarray(mask).reshape(len(mask), -1) for mask in jax.tree.leaves(masks)]
    every = np.concatenate(rows, axis=1)
    return [(count, every.shape[1]) for count in every.sum(axis=1).tolist()]
