"""The convolution: arguments, choice of implementation, gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.convolution import cpu, reference, xla
from sparsejax_kernels.formats import FanIn
from sparsejax_kernels.operations import (
    check_epilogue,
    choose,
    finish,
    no_gradient,
    run_native,
)
from sparsejax_kernels.windows import Padding, borders

__all__ = ["convolution"]


def convolution(
    x: Float[Array, "*batch height width in"],
    w: FanIn,
    *,
    kernel_size: tuple[int, int] = (1, 1),
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch rows columns out"]:
    """The convolution of images with a weight of constant fan-in.

    Every output channel sums some inputs of its window, a row of pixels at a time. For
    that the native kernel asks XLA for images that lie channel-first in memory, and
    returns such, while their shapes stay channels-last: a chain of these layers, and of
    whatever XLA computes entry by entry between them, turns nothing around. The
    gradient is that of the dense convolution.

    Args:
      x: images, float32 or bfloat16.
      w: the weight, from the inputs of a window to output channels. It has the inputs
        in the order of a dense kernel (height, width, in, out) whose first three axes
        are made one.
      kernel_size: height and width of the window.
      strides: of the window, down and to the right.
      padding: zeros around an image, as in Flax: "SAME", "VALID", or numbers.
      bias: added to every output channel; default none.
      activation: "relu" or None.
      implementation: "cpu" (native kernel), "xla" (a dense convolution), "reference"
        (the definition), or None for the best of them that runs here.

    Returns:
      An array of shape ``(*batch, rows, columns, out)`` in the type of ``x``.

    Raises:
      ValueError: if shapes do not fit, or an argument is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.zeros((3, 3, 1, 1)).at[1, 0].set(1.0).reshape(9, 1)
      >>> w = FanIn.fromdense(kernel, kernel != 0)
      >>> convolution(jnp.asarray([[[1.0], [2.0], [3.0]]]), w, kernel_size=(3, 3))
      Array([[[0.],
              [1.],
              [2.]]], dtype=float32)

    1x1 windows are those of Elsen et al., "Fast Sparse ConvNets" (CVPR 2020).
    """
    if x.ndim < 3:
        raise ValueError(
            f"x has shape {x.shape}; it has to be (*batch, height, width, channels)"
        )
    taps = math.prod(kernel_size)
    if w.in_features != taps * x.shape[-1]:
        raise ValueError(
            f"w reads {w.in_features} inputs, but windows of {tuple(kernel_size)} over "
            f"the {x.shape[-1]} channels of x have {taps * x.shape[-1]}"
        )
    if min(strides) < 1:
        raise ValueError(f"strides are {tuple(strides)}; they are 1 or more")
    outputs = w.values.shape[0]
    check_epilogue(bias, activation, outputs)
    sizes = x.shape[-3:-1]
    edges = borders(sizes, kernel_size, strides, padding)
    window = _Window(kernel_size, strides, edges, activation)
    rows, columns = window.result(sizes)
    if min(rows, columns) < 0:
        raise ValueError(
            f"images of {sizes} are smaller than windows of {window.size}, with "
            f"{edges} zeros around them"
        )
    images = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    name = choose(implementation)
    arguments = (images, w.values, w.indices, bias)
    native = functools.partial(_native, window)
    densely = functools.partial(_unfused, xla.forward, window)
    if name == "reference":
        y = _unfused(reference.forward, window, *arguments)
    elif name == "xla" or x.size * rows * columns == 0:
        y = densely(*arguments)
    else:
        y = run_native(native, densely, *arguments)
    return y.astype(x.dtype).reshape(*x.shape[:-3], *y.shape[-3:])


class _Window(NamedTuple):
    """What is known of a convolution when it is traced."""

    size: tuple[int, int]
    strides: tuple[int, int]
    edges: Sequence[tuple[int, int]]
    activation: str | None

    def result(self, sizes: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the result."""
        rows, columns = (
            (size + before + behind - taps) // stride + 1
            for size, taps, stride, (before, behind) in zip(
                sizes, self.size, self.strides, self.edges, strict=True
            )
        )
        return rows, columns


def _unfused(function, window, x, values, indices, bias):
    y = function(x, values, indices, window.size, window.strides, window.edges)
    return finish(y, bias, window.activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native(window, x, values, indices, bias):
    rows_and_columns = window.result(x.shape[1:3])
    return cpu.fused(
        x, values, indices, bias, rows_and_columns=rows_and_columns, **window._asdict()
    )


def _forward(window, x, values, indices, bias):
    y = _native(window, x, values, indices, bias)
    active = y if window.activation == "relu" else None
    return y, (x, values, indices, bias, active)


def _backward(window, residuals, cotangent):
    x, values, indices, bias, active = residuals
    if active is not None:
        cotangent = jnp.where(active > 0, cotangent, 0)

    def densely(x, values):
        return _unfused(
            xla.forward, window._replace(activation=None), x, values, indices, None
        )

    _, gradients = jax.vjp(densely, x, values)
    dbias = None if bias is None else cotangent.sum((0, 1, 2)).astype(bias.dtype)
    return *gradients(cotangent), no_gradient(indices), dbias


_native.defvjp(_forward, _backward)
