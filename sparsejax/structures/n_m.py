"""N:M: N of every M neighbouring inputs of a neuron."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from sparsejax.checks import check_step
from sparsejax.layers import Layer
from sparsejax.selection import top_k_masks
from sparsejax.structures.base import (
    Structure,
    fitted_density,
    from_rows,
    selection_keys,
    thin_unstructured,
    to_rows,
)

__all__ = ["from_groups", "group_ranks", "n_m", "to_groups"]

# Up to this width entries of a group are ranked by comparing all pairs.
_NARROW = 32


@functools.cache
def n_m(n: int, m: int) -> Structure:
    """Keeps the best ``n`` of every group of ``m`` weights along the input axis.

    Groups run along the reduction axis (input channels of a convolution, at each of its
    positions), as hardware asks for. Where its length is no multiple of ``m`` the last
    group is narrower and keeps at most ``n``. A schedule that asks for more weights
    than the structure's share gets the smallest ``n' : m`` with as many.

    Args:
      n: weights to keep in each group.
      m: width of a group.

    Raises:
      ValueError: unless ``1 <= n <= m``; at ``init`` if the sparsity is not 1 - n / m.

    Example:
      >>> import jax, optax, sparsejax as sj
      >>> tx = sj.magnitude(
      ...     optax.sgd(0.1), sparsity=0.5, start=0, structure=sj.n_m(2, 4))
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (8, 3))}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> sj.masks(state)["kernel"].reshape(2, 4, 3).sum(axis=1).tolist()
      [[2, 2, 2], [2, 2, 2]]
    """
    check_step("n", n, least=1)
    check_step("m", m, least=1)
    if n > m:
        raise ValueError(f"n={n} of every m={m} weights cannot be kept; give n <= m")

    def select(layers, scores, counts, where=None, kept=None):
        nothing = [None] * len(layers)
        rows = zip(layers, scores, where or nothing, kept or nothing, strict=True)
        keys = [
            to_groups(layer, selection_keys(score, inside, stay), m)
            for layer, score, inside, stay in rows
        ]
        quotas = [
            _quota(layer, count, n, m)
            for layer, count in zip(layers, counts, strict=True)
        ]
        if m <= _NARROW:
            masks = [
                (group_ranks(key) < quota.reshape(*quota.shape, 1, 1, 1, 1)) & (key > 0)
                for key, quota in zip(keys, quotas, strict=True)
            ]
        else:
            each = [
                jnp.broadcast_to(quota[..., None, None, None], key.shape[:-1])
                for key, quota in zip(keys, quotas, strict=True)
            ]
            masks = top_k_masks(keys, each, where=[key > 0 for key in keys])
        return [from_groups(*pair) for pair in zip(layers, masks, strict=True)]

    def measure(layers, masks):
        del masks
        return [
            jnp.full(layer.stacked_shape, _totals(layer, m)[n], jnp.int32)
            for layer in layers
        ]

    def fit(layers, budgets):
        own = [_totals(layer, m)[n] for layer in layers]
        return fitted_density(f"{n}:{m}", layers, budgets, own)

    return Structure(f"{n}:{m}", select, thin_unstructured, measure, fit)


def _channels(layer: Layer) -> int:
    return layer.shape[layer.spec.fan_in[-1]]


def _totals(layer: Layer, m: int) -> list[int]:
    """Weights of a layer that ``0, 1, ..., m`` of every group make."""
    channels = _channels(layer)
    whole, rest = divmod(channels, m)
    channel_groups = layer.fan_out * (layer.fan_in // channels)
    return [channel_groups * (whole * q + min(q, rest)) for q in range(m + 1)]


def _quota(layer: Layer, count: Array, n: int, m: int) -> Array:
    """The smallest share of a group, ``n`` at least, that makes ``count`` weights."""
    totals = jnp.asarray(_totals(layer, m)[:m], jnp.int32)
    count = jnp.asarray(count, jnp.int32)
    totals = totals.reshape(*(1,) * count.ndim, m)
    return jnp.maximum((totals < count[..., None]).sum(-1, dtype=jnp.int32), n)


def to_groups(layer: Layer, array: Array, m: int) -> Array:
    """``[*stacked, neurons, positions, groups, m]``, zeros at the ragged end."""
    channels = _channels(layer)
    rows = to_rows(layer, array)
    rows = rows.reshape(*rows.shape[:-1], layer.fan_in // channels, channels)
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -channels % m)]
    padded = jnp.pad(rows, padding)
    return padded.reshape(*padded.shape[:-1], -1, m)


def from_groups(layer: Layer, groups: Array) -> Array:
    """The inverse of `to_groups`."""
    channels = _channels(layer)
    rows = groups.reshape(*groups.shape[:-2], -1)[..., :channels]
    return from_rows(layer, rows)


def group_ranks(keys: Num[Array, "... m"]) -> Int[Array, "... m"]:
    """How many entries of its group are above each, or equal and before it."""
    one, other = keys[..., :, None], keys[..., None, :]
    m = keys.shape[-1]
    before = jnp.broadcast_to(jnp.tri(m, k=-1, dtype=bool), (*keys.shape, m))
    return jnp.sum((other > one) | ((other == one) & before), -1, dtype=jnp.int32)
