"""The depthwise convolution: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.depthwise_convolution import cpu, reference, xla
from sparsejax_kernels.operations import check_epilogue, choose, finish, run_native

__all__ = ["depthwise_convolution"]


def depthwise_convolution(
    x: Float[Array, "*batch channels height width"],
    kernel: Float[Array, "channels 3 3"],
    *,
    stride: int = 1,
    bias: Float[Array, " channels"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch channels rows columns"]:
    """The 3x3 depthwise convolution of channel-first images, padded as "SAME".

    It is dense. A network of sparse 1x1 convolutions needs it between them, and the
    grouped convolution of XLA takes longer than all of its sparse layers. The gradient
    is that of nine shifted multiply-adds, which XLA runs well.

    Args:
      x: images, float32 or bfloat16.
      kernel: the filter of each channel.
      stride: 1 or 2, in both directions.
      bias: added to every channel; default none.
      activation: "relu" or None.
      implementation: "cpu" (native kernel), "xla" (shifted multiply-adds), "reference"
        (XLA's grouped convolution), or None for the best of them that runs here.

    Returns:
      An array of shape ``(*batch, channels, ceil(height / stride), ceil(width /
      stride))`` in the type of ``x``.

    Raises:
      ValueError: if shapes do not fit, or an argument is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> import jax.numpy as jnp
      >>> depthwise_convolution(jnp.ones((1, 3, 4)), jnp.ones((1, 3, 3)), stride=2)
      Array([[[6., 4.],
              [6., 4.]]], dtype=float32)
    """
    if x.ndim < 3:
        raise ValueError(
            f"x has shape {x.shape}; it has to be (*batch, channels, height, width)"
        )
    channels = x.shape[-3]
    if kernel.shape != (channels, 3, 3):
        raise ValueError(
            f"kernel has shape {kernel.shape}; for {channels} channels it has to be "
            f"({channels}, 3, 3)"
        )
    if stride not in (1, 2):
        raise ValueError(f"stride is {stride}; it is 1 or 2")
    check_epilogue(bias, activation, channels)
    images = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    arguments = (images, kernel, bias)
    name = choose(implementation)
    native = functools.partial(_native, stride, activation)
    shifted = functools.partial(_unfused, xla.forward, stride, activation)
    if name == "reference":
        y = _unfused(reference.forward, stride, activation, *arguments)
    elif name == "xla" or x.size == 0:
        y = shifted(*arguments)
    else:
        y = run_native(native, shifted, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-2], *y.shape[-2:])


def _unfused(function, stride, activation, x, kernel, bias):
    return finish(function(x, kernel, stride), bias, activation, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _native(stride, activation, x, kernel, bias):
    return cpu.fused(x, kernel, bias, stride, activation)


def _forward(stride, activation, x, kernel, bias):
    y = _native(stride, activation, x, kernel, bias)
    active = y if activation == "relu" else None
    return y, (x, kernel, bias, active)


def _backward(stride, activation, residuals, cotangent):
    del activation
    x, kernel, bias, active = residuals
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)
    _, gradients = jax.vjp(lambda x, kernel: xla.forward(x, kernel, stride), x, kernel)
    dbias = None if bias is None else cotangent.sum((0, 2, 3)).astype(bias.dtype)
    return *gradients(cotangent), dbias


_native.defvjp(_forward, _backward)
