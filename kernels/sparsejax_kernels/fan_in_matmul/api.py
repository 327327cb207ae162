"""The product with a fan-in weight: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.fan_in_matmul import cpu, reference, xla
from sparsejax_kernels.formats import FanIn
from sparsejax_kernels.operations import (
    PRODUCTS,
    check_epilogue,
    check_inputs,
    choose,
    finish,
    module_of,
    run_native,
)

__all__ = ["matmul", "product"]


def matmul(
    x: Float[Array, "*batch in"],
    w: FanIn,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    The gradient with respect to ``w.values`` is sampled at the kept weights, that with
    respect to ``x`` runs over the transposed index (`FanIn.with_transpose`; without it
    each backward pass makes its own). One that is not asked for is not computed, as in
    a first layer that to ``x``. The native kernel builds no array of the dense weight's
    shape in either.

    Args:
      x: activations of any batch rank, float32 or bfloat16.
      w: the weight.
      bias: added to every output; default none.
      activation: "relu" or None.
      implementation: "cpu" (native kernel), "xla" (XLA's operations, dense inside where
        that is fastest), "reference" (the definition), "pallas_gpu" or "pallas_tpu"
        (kernels in Pallas, on such a device alone), or None for the best of them that
        runs here.

    Returns:
      An array of shape ``(*batch, out)``.

    Raises:
      ValueError: if shapes do not fit, or an argument is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
      >>> w = FanIn.fromdense(weights, weights != 0).with_transpose()
      >>> x = jnp.asarray([[1.0, 2.0, 3.0]])
      >>> matmul(x, w, bias=jnp.asarray([-9.0, 1.0]), activation="relu")
      Array([[ 0., 12.]], dtype=float32)
    """
    outputs = w.values.shape[0]
    check_inputs(x, w)
    check_epilogue(bias, activation, outputs)
    rows = math.prod(x.shape[:-1])
    flat = x.reshape(rows, w.in_features)
    name = choose(implementation, PRODUCTS, w, rows)
    if name == "reference" or rows == 0:
        y = finish(reference.forward(flat, w.values, w.indices), bias, activation)
    else:
        arguments = (flat, w.values, w.indices, w.transposed, bias)
        densely = functools.partial(product, xla, activation)
        if name == "cpu":
            sparsely = functools.partial(product, cpu, activation)
            y = run_native(sparsely, densely, *arguments)
        else:
            run = cast(Callable[..., Array], product)
            y = run(module_of("fan_in_matmul", name), activation, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-1], outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def product(module: Any, activation, x, values, indices, transposed, bias):
    """The product by a module's functions, and its gradients by them too."""
    if hasattr(module, "fused"):
        return module.fused(x, values, indices, bias, activation)
    return finish(module.product(x, values, indices), bias, activation)


def _forward(module, activation, *primals):
    arguments = jax.tree.map(lambda leaf: leaf.value, primals)
    x, values, indices, transposed, bias = arguments
    # Which gradients somebody wants is known here only; residuals carry no flags, but
    # their structure may differ.
    wanted = tuple(() if leaf.perturbed else None for leaf in primals[:2])
    y = product(module, activation, x, values, indices, transposed, bias)
    active = y if activation == "relu" else None
    return y, (wanted, x, values, indices, transposed, bias, active)


def _backward(module, activation, residuals, cotangent):
    del activation
    wanted, x, values, indices, transposed, bias, active = residuals
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return (None,) * 5
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)
    of_x, of_values = (want is not None for want in wanted)
    inputs = x.shape[1]
    dx = dvalues = None
    if of_x and of_values and hasattr(module, "gradients"):
        dx, dvalues = module.gradients(cotangent, x, values, indices, transposed)
    else:
        if of_x:
            dx = module.input_gradient(cotangent, values, indices, transposed, inputs)
        if of_values:
            dvalues = module.value_gradient(cotangent, x, indices)
    return (
        None if dx is None else dx.astype(x.dtype),
        None if dvalues is None else dvalues.astype(values.dtype),
        None,
        None,
        None if bias is None else cotangent.sum(0).astype(bias.dtype),
    )


product.defvjp(_forward, _backward, symbolic_zeros=True)
