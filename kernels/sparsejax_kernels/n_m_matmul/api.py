"""The product with an N:M weight: by Pallas, or by kernels of the fan-in format."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

from jaxtyping import Array, Float

from sparsejax_kernels import fan_in_matmul
from sparsejax_kernels.fan_in_matmul.api import product
from sparsejax_kernels.formats import NM, TwoFour
from sparsejax_kernels.operations import (
    PLATFORMS,
    PRODUCTS,
    check_epilogue,
    check_inputs,
    choose,
    module_of,
)

__all__ = ["matmul"]


def matmul(
    x: Float[Array, "*batch in"],
    w: NM | TwoFour,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    Kernels in Pallas ("pallas_gpu", "pallas_tpu") multiply an `NM` weight as it is. On
    Hopper a `TwoFour` weight is multiplied on sparse tensor cores by "pallas_gpu", if x
    and the weight are bfloat16; that kernel was compiled and its data checked, but it
    never ran on a device yet. Otherwise the weight becomes a fan-in one in each call,
    at a cost that grows with the kept weights and not with the batch; on CPUs pack it
    before (`NM.packed`). Arguments, result and errors are those of
    `sparsejax_kernels.fan_in_matmul.matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[1.0], [0.0], [2.0], [0.0]])
      >>> w = NM.fromdense(weights, weights != 0, n=2, m=4)
      >>> x = jnp.asarray([1.0, 2.0, 3.0, 4.0])
      >>> matmul(x, w).tolist()
      [7.0]
    """
    name = choose(implementation, PRODUCTS, w, math.prod(x.shape[:-1]))
    if name in PLATFORMS and x.size:
        return _by_pallas(x, w, bias, activation, name)
    return fan_in_matmul.matmul(
        x,
        w.to_fan_in(),
        bias=bias,
        activation=activation,
        implementation=implementation,
    )


class Kernels(NamedTuple):
    """An implementation's functions for one group size; `product` calls them."""

    fused: Callable[..., Array]
    input_gradient: Callable[..., Array]
    value_gradient: Callable[..., Array]


@functools.cache
def _kernels_of(name: str, m: int) -> Kernels:
    """The same object each time, as what is traced is remembered by it."""
    module = module_of("n_m_matmul", name)
    return Kernels(
        *(functools.partial(getattr(module, field), m=m) for field in Kernels._fields)
    )


def _by_pallas(
    x: Array, w: NM | TwoFour, bias: Array | None, activation: str | None, name: str
) -> Array:
    """By a kernel that reads the weight as it is."""
    check_inputs(x, w)
    check_epilogue(bias, activation, w.shape[1])
    flat = x.reshape(math.prod(x.shape[:-1]), w.in_features)
    run = cast(Callable[..., Array], product)
    if isinstance(w, TwoFour) and name == "pallas_gpu":
        kernels = module_of("n_m_matmul", "sparse_tensor_cores")
        weight = (w.values, w.words, w.transposed)
    else:
        w = w.to_n_m() if isinstance(w, TwoFour) else w
        kernels = _kernels_of(name, w.m)
        weight = (w.values, w.offsets, None)
    y = run(kernels, activation, flat, *weight, bias)
    return y.astype(x.dtype).reshape(*x.shape[:-1], w.shape[1])
