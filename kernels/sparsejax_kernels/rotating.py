"""Products to time on GPUs: many in one program, each with a weight of its own.

A weight that is multiplied again and again stays in the second-level cache, where no
network's weights are, and a single product is shorter than its launch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax_kernels import NM, Block, FanIn, TwoFour, matmul

__all__ = [
    "dense_weight",
    "error",
    "per_product",
    "random_blocks",
    "random_fan_in",
    "random_n_m",
    "random_two_four",
    "rotating",
]

CACHE = 2 * 50 * 2**20
"""Bytes that no second-level cache of today's GPUs holds: twice that of an H200."""
MOST = 64
"""Products in a program, at most: small weights would make a long one."""


def random_fan_in(shape: tuple[int, int], density: float) -> FanIn:
    """Bfloat16; every neuron reads ``density`` of the inputs."""
    inputs, outputs = shape
    generator = np.random.default_rng(0)
    count = max(1, round(inputs * density))
    indices = np.stack(
        [np.sort(generator.choice(inputs, count, False)) for _ in range(outputs)]
    )
    kind = np.uint16 if inputs <= np.iinfo(np.uint16).max else np.int32
    return FanIn(_normal(outputs, count), jnp.asarray(indices.astype(kind)), inputs)


def random_n_m(shape: tuple[int, int], n: int, m: int) -> NM:
    """Bfloat16; n random inputs of every m are kept."""
    inputs, outputs = shape
    order = np.random.default_rng(0).random((outputs, inputs // m, m))
    offsets = np.sort(np.argsort(order, axis=-1)[..., :n], axis=-1)
    values = _normal(*offsets.shape)
    return NM(values, jnp.asarray(offsets.astype(np.uint8)), inputs, m)


def random_two_four(shape: tuple[int, int]) -> TwoFour:
    """Bfloat16; both the mask and its transpose are 2:4."""
    inputs, outputs = shape
    # Rows of a tile of four in two pairs, each the complement of the other.
    generator = np.random.default_rng(0)
    tiles = generator.integers(0, 3, (outputs // 4, inputs // 4, 1))
    first = np.stack([np.zeros_like(tiles), tiles + 1], axis=-1)
    every = np.broadcast_to(np.arange(4), (*tiles.shape[:2], 4))
    rest = ~(every[..., None] == first[..., 0, :][..., None, :]).any(-1)
    second = every[rest].reshape(*tiles.shape[:2], 1, 2)
    offsets = np.concatenate([first, second, first, second], axis=2)
    offsets = offsets.transpose(0, 2, 1, 3).reshape(outputs, inputs // 4, 2)
    w = NM(_normal(*offsets.shape), jnp.asarray(offsets.astype(np.uint8)), inputs, 4)
    return w.for_tensor_cores().with_transpose()


def random_blocks(
    shape: tuple[int, int], density: float, block: tuple[int, int] = (128, 64)
) -> Block:
    """Bfloat16; random blocks, ``density`` of all."""
    inputs, outputs = shape
    rows, columns = inputs // block[0], outputs // block[1]
    count = max(1, round(rows * columns * density))
    generator = np.random.default_rng(0)
    flat = np.sort(generator.choice(rows * columns, count, False))
    coordinates = np.stack(np.divmod(flat, columns), axis=1).astype(np.int32)
    return Block(_normal(count, *block), jnp.asarray(coordinates), inputs, outputs)


def dense_weight(shape: tuple[int, int]) -> jax.Array:
    """Bfloat16, as large as the compressed ones stand for."""
    return _normal(*shape)


def rotating(w: Any, x: jax.Array, product: Callable = matmul) -> tuple[Callable, int]:
    """A program of products by copies of a weight, and how many it has.

    Args:
      w: a weight; its copies together exceed the second-level cache.
      x: activations, the same for all.
      product: a function of activations and one weight.

    Returns:
      A function without arguments that returns when all products are there, and their
      number.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(w))
    count = min(MOST, max(2, -(-CACHE // size)))
    copies = [jax.tree.map(lambda leaf: leaf.copy(), w) for _ in range(count)]
    run = jax.jit(lambda x, copies: [product(x, one) for one in copies])
    return lambda: jax.block_until_ready(run(x, copies)), count


def per_product(seconds: float, count: int) -> float:
    """Microseconds of one product."""
    return 1e6 * seconds / count


def error(
    w: Any, x: jax.Array, *, implementation: str | None, gradients: bool
) -> float:
    """The largest deviation from a product in float64, in units of its largest number.

    Args:
      w: a compressed weight.
      x: activations.
      implementation: of the product, or None.
      gradients: whether those with respect to x and the values count, too.
    """

    def run(x, values):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, implementation=implementation)

    def wide(array):
        return np.asarray(array.astype(jnp.float32)).astype(np.float64)

    dense, left = wide(w.todense()), wide(x)
    y, vjp = jax.vjp(jax.jit(run), x, w.values)
    pairs = [(y, left @ dense)]
    if gradients:
        cotangent = _normal(*y.shape)
        dx, dvalues = vjp(cotangent)
        right = wide(cotangent)
        pairs.append((dx, right @ dense.T))

        # That of the dense weight, read where the values are.
        def spread(values):
            return dataclasses.replace(w, values=values).todense()

        _, gather = jax.vjp(spread, w.values.astype(jnp.float32))
        (expected,) = gather(jnp.asarray(left.T @ right, jnp.float32))
        pairs.append((dvalues, wide(expected)))
    return max(
        float(np.abs(wide(found) - exact).max() / np.abs(exact).max())
        for found, exact in pairs
    )


def _normal(*shape: int) -> jax.Array:
    numbers = np.random.default_rng(1).standard_normal(shape, np.float32)
    return jnp.asarray(numbers, jnp.bfloat16)
