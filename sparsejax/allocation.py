"""Numbers of weights that move between layers: who gets how many, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparsejax.layers import Layer
from sparsejax.selection import top_k_mask
from sparsejax.structures.base import active_count

__all__ = ["allocate", "redistributed"]


def redistributed(
    layers: Sequence[Layer],
    counts: Sequence[Int[Array, "..."]],
    kept: Sequence[Bool[Array, "..."]],
    strength: Sequence[Float[Array, "..."]],
) -> list[Int[Array, "..."]]:
    """Numbers of weights after what all layers dropped is shared by their strength.

    Args:
      layers: the sparsified leaves; those stacked in a leaf count as layers.
      counts: weights before the drop, over a leaf's stacked axes.
      kept: what is left of them.
      strength: what a layer's share is in proportion to, over the stacked axes.

    Returns:
      The new counts; their sum is that of the old ones.
    """
    staying = [active_count(*pair) for pair in zip(layers, kept, strict=True)]
    room = [
        layer.size // layer.slices - count
        for layer, count in zip(layers, staying, strict=True)
    ]
    total = _flat(counts).sum() - _flat(staying).sum()
    grown = allocate(total, _flat(strength), _flat(room))
    sizes = [layer.slices for layer in layers]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [
        now + grown[end - size : end].reshape(now.shape)
        for now, size, end in zip(staying, sizes, ends, strict=True)
    ]


def _flat(values: Sequence[Array]) -> Array:
    return jnp.concatenate([value.reshape(-1) for value in values])


def allocate(
    total: Int[Array, ""], strength: Float[Array, " n"], room: Int[Array, " n"]
) -> Int[Array, " n"]:
    """Splits a number in proportion to strengths, no share above its room, exactly.

    What a full place cannot take is split among the others, in the same proportion; the
    remainder of rounding down goes to the strongest with room, one each. If all rooms
    together are too small, they are filled.

    Example:
      >>> allocate(jnp.array(10), jnp.array([3.0, 1.0, 1.0]), jnp.array([4, 9, 9]))
      Array([4, 3, 3], dtype=int32)
    """
    largest = jnp.maximum(strength.max(), jnp.finfo(jnp.float32).tiny)
    # Places without any strength only take what all others cannot.
    relative = jnp.maximum(strength / largest, 1e-9)

    def left(shares):
        return total - shares.sum(dtype=jnp.int32)

    def fill(carry):
        shares, _ = carry
        weights = jnp.where(shares < room, relative, 0)
        part = left(shares).astype(jnp.float32)
        part = part * (weights / jnp.maximum(weights.sum(), 1e-9))
        # Whole parts stay whole, and no rounding makes their sum more than is left.
        whole = jnp.floor(part * (1 - 1e-6) + 1e-4).astype(jnp.int32)
        after = jnp.minimum(shares + whole, room)
        return after, jnp.any(after != shares)

    start = jnp.zeros_like(room), jnp.array(True)
    shares, _ = lax.while_loop(lambda carry: carry[1], fill, start)
    # Now less than one each is left.
    has_room = shares < room
    return shares + top_k_mask(relative, left(shares), where=has_room).astype(jnp.int32)
