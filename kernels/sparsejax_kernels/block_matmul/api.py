"""The product with a block weight: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.block_matmul import cpu, reference, xla
from sparsejax_kernels.formats import Block
from sparsejax_kernels.operations import (
    PRODUCTS,
    check_epilogue,
    check_inputs,
    choose,
    finish,
    module_of,
    no_gradient,
    run_native,
)

__all__ = ["matmul"]


def matmul(
    x: Float[Array, "*batch in"],
    w: Block,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    The native kernel multiplies the kept blocks alone, in the gradients with respect to
    ``x`` and ``w.values`` too, and builds no array of the dense weight's shape. It is
    fastest where the block's width is a multiple of 32.

    Args:
      x: activations of any batch rank, float32 or bfloat16.
      w: the weight.
      bias: added to every output; default none.
      activation: "relu" or None.
      implementation: "cpu" (native kernel), "xla" (XLA's operations, dense inside while
        that fits), "reference" (the definition), "pallas_gpu" or "pallas_tpu" (kernels
        in Pallas, on such a device alone), or None for the best of them that runs here.

    Returns:
      An array of shape ``(*batch, out)``.

    Raises:
      ValueError: if shapes do not fit, or an argument is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 0.0, 5.0], [0.0, 0.0, 6.0], [1.0, 2.0, 0.0]])
      >>> mask = jnp.asarray([[0, 0, 1], [0, 0, 1], [1, 1, 0]]) == 1
      >>> w = Block.fromdense(weights, mask, block=(2, 2))
      >>> matmul(jnp.asarray([[1.0, 1.0, 2.0]]), w, bias=jnp.asarray([0.0, 0.0, -9.0]))
      Array([[2., 4., 2.]], dtype=float32)
    """
    outputs = w.out_features
    check_inputs(x, w)
    check_epilogue(bias, activation, outputs)
    rows = math.prod(x.shape[:-1])
    flat = x.reshape(rows, w.in_features)
    name = choose(implementation, PRODUCTS, w, rows)
    arguments = (flat, w.values, w.coordinates, bias)
    densely = functools.partial(_unfused, xla.product, outputs, activation)
    if name == "reference" or rows == 0:
        y = _unfused(reference.forward, outputs, activation, *arguments)
    elif name == "xla":
        y = densely(*arguments)
    elif name == "cpu":
        native = functools.partial(product, cpu, outputs, activation)
        y = run_native(native, densely, *arguments)
    else:
        run = cast(Callable[..., Array], product)
        y = run(module_of("block_matmul", name), outputs, activation, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-1], outputs)


def _unfused(product, outputs, activation, x, values, coordinates, bias):
    return finish(product(x, values, coordinates, outputs), bias, activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def product(module: ModuleType, outputs, activation, x, values, coordinates, bias):
    """The product by a module's functions, and its gradients by them too."""
    return module.fused(x, values, coordinates, bias, activation, outputs)


def _forward(module, outputs, activation, x, values, coordinates, bias):
    y = product(module, outputs, activation, x, values, coordinates, bias)
    active = y if activation == "relu" else None
    return y, (x, values, coordinates, bias, active)


def _backward(module, outputs, activation, residuals, cotangent):
    del outputs, activation
    x, values, coordinates, bias, active = residuals
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)
    dx = module.input_gradient(cotangent, values, coordinates, x.shape[1])
    dvalues = module.value_gradient(cotangent, x, coordinates, values.shape[1:])
    return (
        dx.astype(x.dtype),
        dvalues.astype(values.dtype),
        no_gradient(coordinates),
        None if bias is None else cotangent.sum(0).astype(bias.dtype),
    )


product.defvjp(_forward, _backward)
