"""A trained network as pruning sees it, from a Hugging Face folder or from a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, PyTree

from sparsejax import hugging_face
from sparsejax.hugging_face.text import Windows
from sparsejax.layers import Layout, Where, by_name, choose_layers
from sparsejax.models.transformer import Transformer
from sparsejax.structures import Structure
from sparsejax.tasks.language_model import token_losses

__all__ = ["BLOCKS", "Prunable", "from_checkpoint", "implied_sparsity"]


BLOCKS = r"(^|/)blocks/.*kernel$"
"""Matrices of attention and MLPs: embeddings, norms and the head stay dense."""


class Prunable(NamedTuple):
    """A trained network, the data to prune it by, and how to judge and to store it.

    Attributes:
      params: the parameters.
      apply: ``(params, batch) -> anything``, as `sparsejax.pruning.wanda` walks it.
      where: which leaves are pruned by default.
      layout: roles of their axes; None for `by_name`.
      batches: what it is calibrated by.
      evaluate: maps parameters to metrics on data that is held out; None without such
        data.
      write: writes a folder with pruned parameters, their masks and their metrics.
    """

    params: PyTree
    apply: Callable[[PyTree, PyTree], Any]
    where: Where
    layout: Layout | None
    batches: Sequence[PyTree]
    evaluate: Callable[[PyTree], Mapping[str, float]] | None
    write: Callable[[pathlib.Path, PyTree, PyTree, Mapping[str, float]], None]


def implied_sparsity(
    params: PyTree,
    structure: Structure,
    sparsity: float,
    *,
    where: Where,
    layout: Layout | None,
) -> float:
    """The sparsity of an N:M structure, exact where groups do not divide the inputs.

    Args:
      params: the parameters.
      structure: any; only N:M structures have a sparsity of their own.
      sparsity: that was asked for, which is that of all other structures.
      where: which leaves are pruned.
      layout: roles of their axes; None for `by_name`.

    Returns:
      The fraction of the weights that become zero.
    """
    if ":" not in structure.name:
        return sparsity
    layers = choose_layers(params, where=where, layout=layout or by_name())
    kept = structure.measure(layers, [None] * len(layers))
    total = sum(layer.size for layer in layers)
    return 1 - sum(int(count.sum()) for count in kept) / total


def from_checkpoint(
    folder: pathlib.Path,
    model: Transformer,
    windows: Windows | None,
    *,
    batch_size: int,
    where: str | None = None,
) -> Prunable:
    """A Llama, Mistral, Qwen2 or GPT-2 of Hugging Face.

    Args:
      folder: of the checkpoint.
      model: what `sparsejax.hugging_face.load` read from there.
      windows: tokens to calibrate and to evaluate by, or None.
      batch_size: windows that are computed together.
      where: which leaves are pruned; default the matrices of attention and MLPs.

    Returns:
      The network; it is written as a checkpoint of the same kind, with the same
      tokenizer, and with ``masks.npz``.
    """
    graph, state = nnx.split(model)

    def apply(params: PyTree, tokens: Int[Array, "batch length"]) -> Array:
        return nnx.merge(graph, params).features(tokens)

    @jax.jit
    def nats(params: PyTree, tokens: Int[Array, "batch length"]) -> Array:
        network = nnx.merge(graph, params)
        features = network.features(tokens)[:, :-1]

        def one(pair: tuple[Array, Array]) -> Array:
            return token_losses(network.logits(pair[0]), pair[1])[0]

        # All logits at once would be the largest array by far.
        pairs = (features.reshape(-1, features.shape[-1]), tokens[:, 1:].reshape(-1))
        return jax.lax.map(one, pairs, batch_size=min(1024, len(pairs[1]))).sum()

    def evaluate(params: PyTree) -> Mapping[str, float]:
        assert windows is not None
        held_out = windows.held_out
        total = sum(float(nats(params, one)) for one in _batches(held_out, batch_size))
        loss = total / held_out[:, 1:].size
        return {"loss": loss, "perplexity": float(np.exp(min(loss, 700.0)))}

    def write(
        target: pathlib.Path,
        params: PyTree,
        masks: PyTree,
        metrics: Mapping[str, float],
    ) -> None:
        del metrics
        hugging_face.save(target, nnx.merge(graph, params), like=folder)
        hugging_face.save_masks(target, masks)

    return Prunable(
        nnx.to_pure_dict(state),
        apply,
        where or BLOCKS,
        model.layout,
        [] if windows is None else _batches(windows.calibration, batch_size),
        None if windows is None else evaluate,
        write,
    )


def _batches(tokens: Int[np.ndarray, "_ length"], size: int) -> list[Array]:
    return [jnp.asarray(tokens[i : i + size]) for i in range(0, len(tokens), size)]
