"""The cases of the benchmark that are convolutions, and the ways that XLA has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax_kernels import FanIn, depthwise_convolution, pointwise_convolution

__all__ = ["DEPTHWISE", "POINTWISE", "depthwise_cases", "pointwise_cases"]

POINTWISE = "1x1 convolution"
DEPTHWISE = "depthwise 3x3"
# Channels, which stay the same, and pixels in each direction.
POINTWISE_SHAPES = ((256, 28), (512, 14), (1024, 7))
DEPTHWISE_SHAPES = ((64, 56, 1), (512, 14, 1), (512, 14, 2))

Runs = dict[str, tuple[Callable, tuple]]


def xla_convolution(stride: int, groups: int = 1) -> Callable:
    """XLA's convolution of channel-last images, padded as "SAME"."""

    def run(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return jax.jit(run)


def our_depthwise(stride: int, implementation: str | None) -> Callable:
    """One of the implementations of the depthwise convolution."""
    options = {"stride": stride, "implementation": implementation}
    return jax.jit(functools.partial(depthwise_convolution, **options))


def pointwise_cases(
    sparsities, random_fan_in: Callable[[int, int, float], FanIn]
) -> Iterator[tuple[dict, Runs]]:
    """One image through a layer, in the two layouts of the dense product."""
    generator = np.random.default_rng(1)
    for channels, side in POINTWISE_SHAPES:
        for sparsity in sparsities:
            w = random_fan_in(channels, channels, sparsity)
            dense = w.todense()
            x = jnp.asarray(generator.standard_normal((channels, side**2)), jnp.float32)
            image = x.T.reshape(1, side, side, channels)
            yield (
                {
                    "op": POINTWISE,
                    "shape": f"{channels}@{side}",
                    "sparsity": sparsity,
                    "batch": 1,
                },
                {
                    "XLA dense": (jax.jit(jnp.dot), (jnp.array(dense.T), x)),
                    "sparsejax": (jax.jit(pointwise_convolution), (x, w)),
                    "XLA dense NHWC": (jax.jit(jnp.dot), (jnp.array(x.T), dense)),
                    "XLA conv": (xla_convolution(1), (image, dense[None, None])),
                },
            )


def depthwise_cases() -> Iterator[tuple[dict, Runs]]:
    """One image through a layer; nothing of it is sparse."""
    generator = np.random.default_rng(1)
    for channels, side, stride in DEPTHWISE_SHAPES:
        shape = (1, channels, side, side)
        x = jnp.asarray(generator.standard_normal(shape), jnp.float32)
        kernel = jnp.asarray(generator.standard_normal((channels, 3, 3)), jnp.float32)
        run = functools.partial(our_depthwise, stride)
        image, taps = x.transpose(0, 2, 3, 1), kernel.transpose(1, 2, 0)[:, :, None]
        yield (
            {
                "op": DEPTHWISE,
                "shape": f"{channels}@{side}/{stride}",
                "sparsity": 0.0,
                "batch": 1,
            },
            {
                "XLA grouped": (run("reference"), (x, kernel)),
                "sparsejax": (run(None), (x, kernel)),
                "XLA grouped NHWC": (
                    xla_convolution(stride, channels),
                    (image, taps),
                ),
                "XLA shifted": (run("xla"), (x, kernel)),
            },
        )
