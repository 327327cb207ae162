"""The product with a packed weight: its own kernel, or those of the fan-in format."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels import fan_in_matmul
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


def matmul(
    x: Float[Array, "*batch in"],
    w: Packed,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    On CPUs it has kernels of its own. With AVX-512 registers are permuted for batches
    up to 4 where the weight has a rest, up to 8 where it is N:M, 16 from eight slots
    on; larger batches are summed over panels whose blocks the nearest cache keeps.
    Other implementations make a fan-in weight of it in each call, at a cost that grows
    with the kept weights and not with the batch. Arguments, result and errors are those
    of `sparsejax_kernels.fan_in_matmul.matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import FanIn
      >>> weights = jnp.asarray([[1.0], [0.0], [2.0], [0.0]])
      >>> w = Packed.from_fan_in(FanIn.fromdense(weights, weights != 0))
      >>> matmul(jnp.asarray([1.0, 2.0, 3.0, 4.0]), w).tolist()
      [7.0]
    """
    name = choose(implementation, PRODUCTS, w, math.prod(x.shape[:-1]))
    if jax.default_backend() != "cpu" or name != "cpu" or x.size == 0:
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
