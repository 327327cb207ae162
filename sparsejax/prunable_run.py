"""A run directory as pruning sees it, and a pruned run as a run directory again."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax import workdir
from sparsejax.building import build
from sparsejax.checkpoint import Checkpoints
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.data.text import Rows, packed
from sparsejax.layers import Layout, leaves_with_paths, matmul_weights
from sparsejax.metrics import MetricsWriter
from sparsejax.prunable import BLOCKS, Prunable, implied_sparsity
from sparsejax.restoring import Restored
from sparsejax.state import is_state
from sparsejax.tasks.base import Task, TrainState

__all__ = ["from_run"]

# What a network is told beside its inputs.
_CONTEXT = ("segments", "positions", "prefix")


def from_run(
    run: Restored,
    *,
    structure: Mapping[str, Any],
    sparsity: float,
    samples: int,
    batch_size: int,
    seed: int,
    where: str | None = None,
    text: Sequence[str] | None = None,
) -> Prunable:
    """A run's network, calibrated by its training data and evaluated as its task does.

    Args:
      run: As it was restored.
      structure: That it is pruned to, as configs name it: ``{"name": "fan_in"}``.
      sparsity: Likewise.
      samples: Examples to calibrate by, rounded up to whole batches.
      batch_size: Examples that are computed together.
      seed: Of their choice.
      where: Which leaves are pruned; by default the blocks' of a network with blocks,
        and every matrix of another.
      text: To calibrate by in place of the training data, for tasks that have text.

    Returns:
      The network; it is written as a run directory whose method is `static`, from
      which training, `generate` and all else that reads runs goes on.

    Raises:
      ValueError: the run is that of agents, the task's examples have neither tokens
        nor an image, or the text is shorter than a row.
    """
    if run.task.policy is not None:
        raise ValueError(
            "the run is that of agents, which have no data to calibrate by; prune them "
            "as they learn, such as by magnitude_dqn_cartpole."
        )
    trained = run.state.average
    if trained is None:
        trained = run.state._replace(
            params=sj.evaluation_params(run.state.params, run.state.optimizer_state)
        )
    params, model_state = trained.params, trained.model_state
    if text is None:
        batches = _training_batches(run.task, samples, batch_size, seed)
    else:
        batches = _text_batches(run.task, text, samples, batch_size, seed)
    if where is None and any(
        "blocks/" in path for path, _ in leaves_with_paths(params)
    ):
        where = BLOCKS
    forward: Any = run.task.forward

    def apply(params: PyTree, batch: Mapping[str, Array]) -> Any:
        told = {name: batch[name] for name in _CONTEXT if name in batch}
        inputs = batch["tokens"] if "tokens" in batch else batch["image"]
        return forward(params, model_state, inputs, **told)

    layout = _layout(run)
    places: Any = {"where": where or matmul_weights, "layout": layout}
    family = build("structure", structure, "sparsejax.structures")
    sparsity = implied_sparsity(params, family, sparsity, **places)
    config: Any = ConfigDict(run.config.to_dict())
    with config.unlocked():
        config.method = {
            "name": "static",
            "sparsity": sparsity,
            "structure": dict(structure),
            "distribution": "uniform",
        }
        if isinstance(where, str):
            config.method["where"] = where
        config.initialization = "dense"
        config.average = {"decay": 0.0}
        config.start_from = None
    task: Task = build("task", config.task, "sparsejax.tasks", config)
    first: TrainState = jax.jit(task.initialise)(run.state.key)
    first = first._replace(
        step=run.state.step, model_state=model_state, key=run.state.key
    )
    evaluation_step = jax.jit(task.evaluation_step)

    def evaluate(params: PyTree) -> Mapping[str, float]:
        state = first._replace(params=params)
        found = evaluation_batches(task.dataset, batch_size=config.data.batch_size)
        outputs = (evaluation_step(state, batch) for batch in found)
        return task.gather(jax.device_get(output) for output in outputs)

    def write(
        target: pathlib.Path,
        params: PyTree,
        masks: PyTree,
        metrics: Mapping[str, float],
    ) -> None:
        state = first._replace(
            params=params, optimizer_state=_with_masks(first.optimizer_state, masks)
        )
        sj.verify(state.params, state.optimizer_state)
        target.mkdir(parents=True, exist_ok=True)
        workdir.claim(target, config.to_dict())
        checkpoints = Checkpoints(target, keep=None, report=print)
        checkpoints.save(run.step, state, {"seconds": 0.0})
        checkpoints.close()
        rows = MetricsWriter(target, step=0)
        rows.write(run.step, "evaluation", {**metrics, "seconds": 0.0})
        rows.close()

    return Prunable(
        params,
        apply,
        where or matmul_weights,
        layout,
        batches,
        evaluate,
        write,
    )


def _layout(run: Restored) -> Layout | None:
    """Which layers the run's model stacks, if it says so."""
    config: Any = run.config
    dataset = run.task.dataset
    shapes = (dataset.input_shape, dataset.number_of_classes)
    model = nnx.eval_shape(
        lambda: build(
            "model", config.model, "sparsejax.models", *shapes, rngs=nnx.Rngs(0)
        )
    )
    return getattr(model, "layout", None)


def _training_batches(
    task: Task, samples: int, batch_size: int, seed: int
) -> list[dict[str, Array]]:
    batch_size = min(batch_size, samples, len(task.dataset.train))
    iterator = train_iterator(task.dataset, batch_size=batch_size, seed=seed)
    count = -(-samples // batch_size)
    return [_inputs(batch) for batch in itertools.islice(iterator, count)]


def _text_batches(
    task: Task, text: Sequence[str], samples: int, batch_size: int, seed: int
) -> list[dict[str, Array]]:
    dataset: Any = task.dataset
    tokenizer: Any = dataset.tokenizer
    if tokenizer is None:
        raise ValueError(
            "the run's dataset has no text, and so no use for a calibration text; "
            "leave it out, to calibrate by the run's own data."
        )
    [context] = dataset.input_shape
    order = np.random.default_rng(seed).permutation(len(text))
    tokens = tokenizer.encode([str(text[i]).encode() for i in order])
    stretches = Rows(packed(tokens, tokenizer.boundary), context)
    rows = [stretches[i] for i in range(min(len(stretches), samples))]
    rows = [dataset.evaluation_transform(row) for row in rows]
    whole = [row for row in rows if row["target_weights"].all()]
    if not whole:
        raise ValueError(
            f"the calibration text has {len(np.concatenate(tokens))} tokens, less than "
            f"a row of {context}; give more text."
        )
    batches = [whole[i : i + batch_size] for i in range(0, len(whole), batch_size)]
    return [
        _inputs({name: np.stack([row[name] for row in batch]) for name in batch[0]})
        for batch in batches
    ]


def _inputs(batch: Mapping[str, Any]) -> dict[str, Array]:
    names = [name for name in ("tokens", "image", *_CONTEXT) if name in batch]
    if not {"tokens", "image"} & set(names):
        raise ValueError(
            f"examples with {', '.join(batch)} have neither tokens nor an image, which "
            "networks are calibrated by."
        )
    return {name: jnp.asarray(batch[name]) for name in names}


def _with_masks(optimizer_state: PyTree, masks: PyTree) -> PyTree:
    def one(node: Any) -> Any:
        return node._replace(masks=masks) if is_state(node) else node

    return jax.tree.map(one, optimizer_state, is_leaf=is_state)
