"""The product with a packed weight: its own kernel, or those of the fan-in format."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels import fan_in_matmul, native
from sparsejax_kernels.choosing import LARGEST_PACKED_BATCH
from sparsejax_kernels.fan_in_matmul.api import product
from sparsejax_kernels.formats import Packed
from sparsejax_kernels.formats.packed import LANES
from sparsejax_kernels.operations import (
    PRODUCTS,
    check_epilogue,
    check_inputs,
    choose,
)
from sparsejax_kernels.packed_matmul import cpu

__all__ = ["matmul"]

# Measured on Zen 4; from there on panels of the batch are faster, unpacking included.
LARGEST_BATCH = 16
LARGEST_DENSE_BATCH = 64
DENSE_SLOTS = 16


def matmul(
    x: Float[Array, "*batch in"],
    w: Packed,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    On CPUs with AVX-512 a packed weight has a kernel of its own, for batches up to 16
    where it is N:M, or 64 where it has room for half of the weights, and up to 4 where
    it has a rest. Otherwise the weight becomes a fan-in one in each call, at a cost
    that grows with the kept weights and not with the batch. Arguments, result and
    errors are those of `sparsejax_kernels.fan_in_matmul.matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import FanIn
      >>> weights = jnp.asarray([[1.0], [0.0], [2.0], [0.0]])
      >>> w = Packed.from_fan_in(FanIn.fromdense(weights, weights != 0))
      >>> matmul(jnp.asarray([1.0, 2.0, 3.0, 4.0]), w).tolist()
      [7.0]
    """
    name = choose(implementation, PRODUCTS, w, math.prod(x.shape[:-1]))
    if not _has_kernel(x, w, name):
        return fan_in_matmul.matmul(
            x,
            w.to_fan_in(),
            bias=bias,
            activation=activation,
            implementation=implementation,
        )
    check_inputs(x, w)
    check_epilogue(bias, activation, w.out_features)
    flat = x.reshape(-1, w.in_features)
    if bias is not None:
        bias = jnp.pad(bias, (0, -w.out_features % LANES))
    run = cast(Callable[..., Array], product)
    y = run(cpu, activation, flat, w.values, (w.offsets, w.rest), None, bias)
    y = y[:, : w.out_features].astype(x.dtype)
    return y.reshape(*x.shape[:-1], w.out_features)


def _has_kernel(x: Array, w: Packed, name: str) -> bool:
    """Whether the packed kernel runs: on CPUs that can permute, for small batches."""
    if jax.default_backend() != "cpu" or name != "cpu":
        return False
    if not native.has_avx512():
        largest = 1
    elif w.depth:
        largest = LARGEST_PACKED_BATCH
    else:
        largest = LARGEST_DENSE_BATCH if w.slots >= DENSE_SLOTS else LARGEST_BATCH
    return 0 < math.prod(x.shape[:-1]) <= largest
