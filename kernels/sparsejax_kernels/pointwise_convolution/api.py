"""The 1x1 convolution: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.fan_in_matmul import cpu as fan_in
from sparsejax_kernels.formats import FanIn
from sparsejax_kernels.operations import (
    check_epilogue,
    choose,
    finish,
    no_gradient,
    run_native,
)
from sparsejax_kernels.pointwise_convolution import cpu, reference, xla

__all__ = ["pointwise_convolution"]


def pointwise_convolution(
    x: Float[Array, "*batch in pixels"],
    w: FanIn,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out pixels"]:
    """The 1x1 convolution of channel-first pixels, ``activation(w.T @ x + bias)``.

    Each output channel sums a few input channels, a row of pixels at a time, so that
    nothing is gathered; a chain of layers should stay channel-first, since turning
    pixels around costs as much as a sparse layer. Both gradients are those of
    `sparsejax_kernels.fan_in_matmul.matmul` over the pixels of all images.

    Args:
      x: images with their pixels in one axis, float32 or bfloat16.
      w: the weight, from input to output channels.
      bias: added to every output channel; default none.
      activation: "relu" or None.
      implementation: "cpu" (native kernel), "xla" (a dense product), "reference" (the
        definition), or None for the best of them that runs here.

    Returns:
      An array of shape ``(*batch, out, pixels)`` in the type of ``x``.

    Raises:
      ValueError: if shapes do not fit, or an argument is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
      >>> w = FanIn.fromdense(weights, weights != 0)
      >>> pixels = jnp.asarray([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
      >>> pointwise_convolution(pixels, w)
      Array([[  2.,  20.],
             [ 11., 110.]], dtype=float32)

    The idea is that of sparse 1x1 convolutions in Elsen et al., "Fast Sparse ConvNets"
    (CVPR 2020), with weights by output channel.
    """
    if x.ndim < 2 or x.shape[-2] != w.in_features:
        raise ValueError(
            f"x has shape {x.shape}, but w reads {w.in_features} channels; the last "
            "axis but one of x has to be that long"
        )
    outputs = w.values.shape[0]
    check_epilogue(bias, activation, outputs)
    images = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    name = choose(implementation)
    arguments = (images, w.values, w.indices, w.transposed, bias)
    native = functools.partial(_native, activation)
    densely = functools.partial(_unfused, xla.product, activation)
    if name == "reference" or x.size == 0:
        y = _unfused(reference.forward, activation, *arguments)
    elif name == "xla":
        y = densely(*arguments)
    else:
        y = run_native(native, densely, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-2], outputs, x.shape[-1])


def _unfused(product, activation, x, values, indices, transposed, bias):
    del transposed
    return finish(product(x, values, indices), bias, activation, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native(activation, x, values, indices, transposed, bias):
    del transposed
    return cpu.fused(x, values, indices, bias, activation)


def _forward(activation, x, values, indices, transposed, bias):
    y = _native(activation, x, values, indices, transposed, bias)
    active = y if activation == "relu" else None
    return y, (x, values, indices, transposed, bias, active)


def _backward(activation, residuals, cotangent):
    del activation
    x, values, indices, transposed, bias, active = residuals
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)

    def pixels_first(images):
        return images.transpose(0, 2, 1).reshape(-1, images.shape[1])

    rows, outer = pixels_first(x), pixels_first(cotangent)
    dx = fan_in.input_gradient(outer, values, indices, transposed, x.shape[1])
    dvalues = fan_in.value_gradient(outer, rows, indices)

    return (
        dx.reshape(x.shape[0], -1, x.shape[1]).transpose(0, 2, 1).astype(x.dtype),
        dvalues.astype(values.dtype),
        no_gradient(indices),
        jax.tree.map(no_gradient, transposed),
        None if bias is None else cotangent.sum((0, 2)).astype(bias.dtype),
    )


_native.defvjp(_forward, _backward)
