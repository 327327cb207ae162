"""When a compressed weight pays, by format, density and batch; and saying so."""

from __future__ import annotations

import math
from typing import Any

import jax

from sparsejax_kernels import native

__all__ = ["explain", "largest_density"]

LIMITS = ((8, 0.5), (math.inf, 0.4))
"""(batch up to, density up to) where the native product beats XLA's dense one.

Measured on two cores of an AVX-512 processor by ``python -m sparsejax_kernels.bench
--sparsities 0.3 0.5 0.6 0.7``: float32, 3072x768 and 768x3072. At these densities both
take about as long; below them the compressed product is the faster one.
"""
FALLBACK_LIMITS = ((1, 0.1), (math.inf, 0.0))
"""The same without native kernels: gathering at batch 1 is all that pays."""


def largest_density(batch: int) -> float:
    """The density up to which a compressed product is faster than a dense one here.

    Args:
      batch: rows of x that are multiplied at once.

    Raises:
      ValueError: if ``batch`` is not positive.

    Example:
      >>> 0 <= largest_density(256) <= largest_density(1) <= 1
      True
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; it is a number of rows, at least 1")
    runs = native.available() and jax.default_backend() == "cpu"
    limits = LIMITS if runs else FALLBACK_LIMITS
    return next(density for most, density in limits if batch <= most)


def explain(w: Any, batch: int) -> str:
    """Which product a compressed weight would run on, and why.

    Args:
      w: a compressed weight of any format, not traced.
      batch: rows of x that are multiplied at once.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import FanIn
      >>> mask = jnp.arange(400).reshape(20, 20) % 10 == 0
      >>> print(explain(FanIn.fromdense(mask * 1.0, mask), batch=64).split(":")[0])
      FanIn 20x20, 10 % dense, batch 64
    """
    inputs, outputs = w.shape
    density, limit = float(w.density), largest_density(batch)
    what = (
        f"{type(w).__name__} {inputs}x{outputs}, {100 * density:.3g} % dense, "
        f"batch {batch}"
    )
    if native.available() and jax.default_backend() == "cpu":
        how = "the native CPU kernel"
    else:
        reason = native.why_not() or f"there is none for {jax.default_backend()} yet"
        how = f"XLA's own operations instead of a native kernel ({reason})"
    if density <= limit:
        return f"{what}: {how}; faster than dense up to {100 * limit:g} % at this batch"
    return (
        f"{what}: {how}, but a dense weight is faster above {100 * limit:g} % at this "
        "batch; keep the layer dense (sparsejax.compress(..., batch=...) does)"
    )
