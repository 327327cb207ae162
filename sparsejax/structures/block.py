"""Block sparsity: whole tiles of a weight matrix."""

from __future__ import annotations

import functools
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array

from sparsejax.checks import check_choice, check_step
from sparsejax.layers import Layer
from sparsejax.structures.base import Structure, from_rows, to_rows
from sparsejax.structures.units import Units, of_units

__all__ = ["block"]


@functools.cache
def block(
    height: int, width: int, *, pool: Literal["mean", "max"] = "mean"
) -> Structure:
    """Keeps tiles of ``height`` inputs by ``width`` outputs, those of highest score.

    Tiles lie in the matrix of all inputs (of a convolution: positions and channels,
    channels innermost) by outputs, as a Flax kernel is written. A layer's budget is
    rounded to whole tiles. At ragged edges tiles are smaller, and count as one.

    Args:
      height: inputs of a tile.
      width: outputs of a tile.
      pool: score of a tile: the mean of its weights' scores, or the largest.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> structure = sj.block(2, 2)
      >>> tx = sj.magnitude(optax.sgd(0.1), sparsity=0.5, start=0, structure=structure)
      >>> kernel = jnp.array([[1., 1, 0, 4], [1, 1, 0, 0], [2, 2, 1, 1], [2, 2, 1, 1]])
      >>> params = {"kernel": kernel}
      >>> updates, state = tx.update({"kernel": 0 * kernel}, tx.init(params), params)
      >>> sj.masks(state)["kernel"].astype(int).tolist()
      [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    """
    check_step("height", height, least=1)
    check_step("width", width, least=1)
    check_choice("pool", pool, ("mean", "max"))

    def tiles(layer: Layer, array: Array, fill) -> Array:
        """``[*stacked, outputs / width, width, inputs / height, height]``."""
        rows = to_rows(layer, array)
        outputs, inputs = rows.shape[-2:]
        edges = [(0, 0)] * (rows.ndim - 2) + [(0, -outputs % width)]
        padded = jnp.pad(rows, [*edges, (0, -inputs % height)], constant_values=fill)
        outputs, inputs = padded.shape[-2:]
        split = (outputs // width, width, inputs // height, height)
        return padded.reshape(*padded.shape[:-2], *split)

    def flat(pooled: Array) -> Array:
        return pooled.reshape(*pooled.shape[:-2], -1)

    def pooled(layer, scores):
        if pool == "max":
            return flat(tiles(layer, scores, -jnp.inf).max((-3, -1)))
        ones = tiles(layer, jnp.ones(layer.shape, jnp.float32), 0)
        return flat(tiles(layer, scores, 0).sum((-3, -1)) / ones.sum((-3, -1)))

    def gather(layer, mask):
        return flat(tiles(layer, mask, True).all((-3, -1)))

    def spread(layer, chosen):
        down, across = -(-layer.fan_out // width), -(-layer.fan_in // height)
        whole = chosen.reshape(*layer.stacked_shape, down, across)
        rows = jnp.repeat(jnp.repeat(whole, width, axis=-2), height, axis=-1)
        return from_rows(layer, rows[..., : layer.fan_out, : layer.fan_in])

    return of_units(
        f"block {height}x{width}",
        Units(
            size=lambda layer: height * width,
            number=lambda layer: (
                -(-layer.fan_out // width) * -(-layer.fan_in // height)
            ),
            pool=pooled,
            spread=spread,
            gather=gather,
        ),
    )
