"""Normalisations by stored statistics become part of the layers before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from sparsejax.nn.following import Followers
from sparsejax.nn.surgery import modules, put

__all__ = ["Folded", "fold"]


class Folded(nnx.Module):
    """In the place of a normalisation that is part of the layer before it."""

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Array:
        """Returns x, whatever else a normalisation is told."""
        return x


def fold(model: nnx.Module, found: Mapping[str, Followers]) -> nnx.Module:
    """Scales kernels and shifts biases as the normalisations behind them do.

    With the mean m, variance v, scale s and bias b of a normalisation, a kernel w and
    a bias a become ``w s / sqrt(v + epsilon)`` and ``(a - m) s / sqrt(v + epsilon) +
    b``; what is zero in the kernel stays so.

    Args:
      model: it is changed.
      found: path of a layer -> what follows it.

    Returns:
      The model, with `Folded` in the places of the normalisations.
    """
    layers = dict(modules(model))
    folded = {}
    for path, each in found.items():
        if each.norm is None:
            continue
        layer, norm = layers[path], layers[each.norm]
        scale = jax.lax.rsqrt(norm.var.get_value() + norm.epsilon)
        if norm.scale is not None:
            scale = scale * norm.scale.get_value()
        shift = -norm.mean.get_value() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.get_value()
        old = getattr(layer, "bias", None)
        if old is not None:
            shift = shift + old.get_value() * scale
        kernel = layer.kernel.get_value()
        along = (1,) * (kernel.ndim - 1)
        layer.kernel.set_value(
            (kernel * scale.reshape(*along, -1)).astype(kernel.dtype)
        )
        layer.bias, layer.use_bias = nnx.Param(shift), True
        # A normalisation returns its own type, by default that of its parameters.
        layer.dtype = norm.dtype or jnp.promote_types(shift.dtype, jnp.float32)
        folded[each.norm] = Folded()
    return put(model, folded)
