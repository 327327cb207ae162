"""Checks of values inside traced programs: an error that names the layer, on the host.

Inside `jax.jit` values are not known, so that the checks are calls of the host, once
per topology move, whatever surrounds it (`jax.vmap`, `jax.lax.scan`, sharding). Under
`jax.jit` the error is a `jax.errors.JaxRuntimeError` with the message in it, raised
where the step's result is first read.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Num

from sparsejax.layers import Layer

__all__ = ["check_signal", "check_weights_remain", "is_silent", "raise_where"]


def raise_where(flags: Bool[Array, " n"], messages: Sequence[str]) -> None:
    """Raises a ValueError with the messages whose flags are True; traced flags, too.

    Args:
      flags: one for each message.
      messages: what is wrong, and the fix.

    Example:
      >>> raise_where(jnp.array([False]), ["never said"])
    """

    def report(found):
        wrong = [text for flag, text in zip(found, messages, strict=True) if flag]
        if wrong:
            raise ValueError("; ".join(wrong))

    if isinstance(flags, Tracer):
        jax.debug.callback(report, flags)
    else:
        report(np.asarray(flags))


def is_silent(
    layer: Layer, values: Num[Array, "..."] | Bool[Array, "..."]
) -> Bool[Array, ""]:
    """Whether all values are zero in any of the layers that are stacked in a leaf."""
    axes = tuple(range(len(layer.spec.stacked), len(layer.shape)))
    return (values == jnp.zeros_like(values)).all(axes).any()


def check_signal(
    layers: Sequence[Layer], silent: Sequence[Bool[Array, ""]], what: str
) -> None:
    """Raises where a layer has no signal to rank its weights by.

    Args:
      layers: the sparsified leaves.
      silent: of each leaf, whether what ranks it is zero everywhere (`is_silent`).
      what: ranks the weights, for the message: ``"the gradient"``.
    """
    messages = [
        f"{what} of {layer.path} is zero everywhere, so that its weights cannot be "
        "ranked; likely a zero-initialised scale or output layer behind it: initialise "
        "that to ones, or leave the layer dense by `where`"
        for layer in layers
    ]
    raise_where(jnp.stack(list(silent)), messages)


def check_weights_remain(
    layers: Sequence[Layer], masks: Sequence[Bool[Array, "..."]]
) -> None:
    """Raises where a ranking over all layers leaves a layer without any weight.

    Args:
      layers: the sparsified leaves.
      masks: what was selected.
    """
    messages = [
        f"pruning all layers together leaves {layer.path} without a single weight "
        "(layer collapse); lower `sparsity`, rank within layers if the method has "
        "scope='layer', or leave the layer dense by `where`"
        for layer in layers
    ]
    empty = [is_silent(*pair) for pair in zip(layers, masks, strict=True)]
    raise_where(jnp.stack(empty), messages)
