"""The product with a fan-in weight: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels import native
from sparsejax_kernels.fan_in_matmul import cpu, reference, xla
from sparsejax_kernels.formats import FanIn

__all__ = ["IMPLEMENTATIONS", "matmul"]

IMPLEMENTATIONS = ("reference", "xla", "cpu")
ACTIVATIONS = (None, "relu")


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
        that is fastest), "reference" (the definition), or None for the best of them
        that runs here.

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
    check(x, w, bias, activation)
    outputs = w.values.shape[0]
    rows = math.prod(x.shape[:-1])
    flat = x.reshape(rows, w.in_features)
    name = choose(implementation)
    if name == "reference" or rows == 0:
        y = finish(reference.forward(flat, w.values, w.indices), bias, activation)
    else:
        run = functools.partial(_matmul, {"cpu": cpu, "xla": xla}[name], activation)
        arguments = (flat, w.values, w.indices, w.transposed, bias)
        if name == "cpu" and jax.default_backend() != "cpu":
            other = functools.partial(_matmul, xla, activation)
            y = jax.lax.platform_dependent(*arguments, cpu=run, default=other)
        else:
            y = run(*arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-1], outputs)


def check(x: Array, w: Any, bias: Array | None, activation: str | None) -> None:
    """Raises unless the operands of a product with any compressed weight fit."""
    if x.ndim == 0 or x.shape[-1] != w.in_features:
        raise ValueError(
            f"x has shape {x.shape}, but w reads {w.in_features} inputs; the last axis "
            "of x has to be that long"
        )
    outputs = w.shape[1]
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias has shape {bias.shape}; it has to be ({outputs},)")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; it is 'relu' or None")


def choose(implementation: str | None) -> str:
    """The implementation to run: the one named, or the best that works here."""
    if implementation is None:
        return "cpu" if native.available() else "xla"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation is {implementation!r}; it is one of "
            f"{', '.join(map(repr, IMPLEMENTATIONS))} or None"
        )
    if implementation == "cpu" and not native.available():
        raise RuntimeError(
            f"implementation 'cpu' cannot run here: {native.why_not()}; or leave "
            "`implementation` at None for the best that can"
        )
    return implementation


def finish(y, bias, activation):
    """Adds the bias and applies the activation."""
    if bias is not None:
        y = y + bias.astype(y.dtype)[None]
    return jax.nn.relu(y) if activation == "relu" else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matmul(module: ModuleType, activation, x, values, indices, transposed, bias):
    if hasattr(module, "fused"):
        return module.fused(x, values, indices, bias, activation)
    return finish(module.product(x, values, indices), bias, activation)


def _forward(module, activation, *primals):
    arguments = jax.tree.map(lambda leaf: leaf.value, primals)
    x, values, indices, transposed, bias = arguments
    # Which gradients somebody wants is known here only; residuals carry no flags, but
    # their structure may differ.
    wanted = tuple(() if leaf.perturbed else None for leaf in primals[:2])
    y = _matmul(module, activation, x, values, indices, transposed, bias)
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


_matmul.defvjp(_forward, _backward, symbolic_zeros=True)
