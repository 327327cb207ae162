"""The depthwise convolution: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.depthwise_convolution import cpu, reference, xla
from sparsejax_kernels.operations import check_epilogue, choose, finish, run_native

__all__ = ["depthwise_convolution"]


def depthwise_convolution(
    x: Float[Array, "*batch _ _ _"],
    kernel: Float[Array, "channels 3 3"],
    *,
    stride: int = 1,
    padding: str | int = "SAME",
    bias: Float[Array, " channels"] | None = None,
    activation: str | None = None,
    channels_last: bool = False,
    implementation: str | None = None,
) -> Float[Array, "*batch _ _ _"]:
    """The 3x3 depthwise convolution, of channel-first images by default.

    It is dense. A network of sparse 1x1 convolutions needs it between them, and the
    grouped convolution of XLA takes longer than all of its sparse layers. The gradient
    is that of nine shifted multiply-adds, which XLA runs well.

    Args:
      x: images ``(*batch, channels, height, width)``, float32 or bfloat16.
      kernel: the filter of each channel.
      stride: 1 or 2, in both directions.
      padding: zeros around an image: "SAME" (an odd one at the end) or 1, on all sides.
      bias: added to every channel; default none.
      activation: "relu" or None.
      channels_last: whether images are ``(*batch, height, width, channels)``. The
        native kernel then asks XLA for memory in which they are channel-first, as
        `sparsejax_kernels.convolution` does, so that nothing is turned around between
        the two.
      implementation: "cpu" (native kernel), "xla" (shifted multiply-adds), "reference"
        (XLA's grouped convolution), or None for the best of them that runs here.

    Returns:
      An array of shape ``(*batch, channels, ceil(height / stride), ceil(width /
      stride))``, or with its channels last, in the type of ``x``.

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
    channels = x.shape[-1 if channels_last else -3]
    if kernel.shape != (channels, 3, 3):
        raise ValueError(
            f"kernel has shape {kernel.shape}; for {channels} channels it has to be "
            f"({channels}, 3, 3)"
        )
    if stride not in (1, 2):
        raise ValueError(f"stride is {stride}; it is 1 or 2")
    if padding not in ("SAME", 1):
        raise ValueError(f"padding is {padding!r}; it is 'SAME' or 1")
    check_epilogue(bias, activation, channels)
    images = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    arguments = (images, kernel, bias)
    name = choose(implementation)
    form = _Form(stride, padding, activation, channels_last)
    native = functools.partial(_native, form)
    shifted = functools.partial(_unfused, xla.forward, form)
    if name == "reference":
        y = _unfused(reference.forward, form, *arguments)
    elif name == "xla" or x.size == 0:
        y = shifted(*arguments)
    else:
        y = run_native(native, shifted, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-3], *y.shape[-3:])


class _Form(NamedTuple):
    """What is known of a convolution when it is traced."""

    stride: int
    padding: str | int
    activation: str | None
    channels_last: bool


def _filtered(function, form, x, kernel):
    """By a function of channel-first images."""
    if not form.channels_last:
        return function(x, kernel, form.stride, form.padding)
    y = function(x.transpose(0, 3, 1, 2), kernel, form.stride, form.padding)
    return y.transpose(0, 2, 3, 1)


def _unfused(function, form, x, kernel, bias):
    axis = -1 if form.channels_last else 1
    return finish(
        _filtered(function, form, x, kernel), bias, form.activation, axis=axis
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native(form, x, kernel, bias):
    return cpu.fused(x, kernel, bias, **form._asdict())


def _forward(form, x, kernel, bias):
    y = _native(form, x, kernel, bias)
    active = y if form.activation == "relu" else None
    return y, (x, kernel, bias, active)


def _backward(form, residuals, cotangent):
    x, kernel, bias, active = residuals
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)
    shifted = functools.partial(_filtered, xla.forward, form)
    _, gradients = jax.vjp(shifted, x, kernel)
    axes = (0, 1, 2) if form.channels_last else (0, 2, 3)
    dbias = None if bias is None else cotangent.sum(axes).astype(bias.dtype)
    return *gradients(cotangent), dbias


_native.defvjp(_forward, _backward)
