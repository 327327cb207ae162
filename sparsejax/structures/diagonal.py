"""Diagonal sparsity: wrapped diagonals of the weight matrix."""

from __future__ import annotations

import functools

import numpy as np

from sparsejax.layers import Layer
from sparsejax.structures.base import Structure, from_rows, to_rows
from sparsejax.structures.units import Units, of_units

__all__ = ["diagonal", "diagonal_offsets"]


@functools.cache
def diagonal() -> Structure:
    """Keeps whole wrapped diagonals of the matrix of neurons by inputs.

    With ``R`` neurons and ``C`` inputs there are ``max(R, C)`` diagonals of ``min(R,
    C)`` weights: diagonal ``d`` has the entries ``((i + d) mod R, i)`` where ``R >=
    C``, else ``(i, (i + d) mod C)``. The score of a diagonal is the sum of those of its
    weights. A layer's budget is rounded to whole diagonals; with ``R = C`` every neuron
    then has the same fan-in and fan-out.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5, structure=sj.diagonal())
      >>> state = tx.init({"kernel": jnp.ones((4, 4))})
      >>> sj.masks(state)["kernel"].sum(axis=0).tolist()
      [2, 2, 2, 2]

    References:
      Tyagi et al., "Dynamic Sparse Training of Diagonally Sparse Networks", ICML 2025.
    """

    def pool(layer, scores):
        rows = to_rows(layer, scores)
        row, column = _entries(layer.fan_out, layer.fan_in)
        return rows[..., row, column].sum(-1)

    def gather(layer, mask):
        row, column = _entries(layer.fan_out, layer.fan_in)
        return to_rows(layer, mask)[..., row, column].all(-1)

    def spread(layer, chosen):
        return from_rows(layer, chosen[..., diagonal_offsets(layer)])

    return of_units(
        "diagonal",
        Units(
            size=lambda layer: min(layer.fan_out, layer.fan_in),
            number=lambda layer: max(layer.fan_out, layer.fan_in),
            pool=pool,
            spread=spread,
            gather=gather,
        ),
    )


def diagonal_offsets(layer: Layer) -> np.ndarray:
    """Which diagonal each entry of ``[neurons, inputs]`` lies on."""
    row, column = np.indices((layer.fan_out, layer.fan_in))
    if layer.fan_out >= layer.fan_in:
        return (row - column) % layer.fan_out
    return (column - row) % layer.fan_in


def _entries(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of each diagonal's entries, ``[diagonals, length]``."""
    along = np.arange(min(rows, columns))
    moved = along + np.arange(max(rows, columns))[:, None]
    fixed = np.broadcast_to(along, moved.shape)
    return (moved % rows, fixed) if rows >= columns else (fixed, moved % columns)
