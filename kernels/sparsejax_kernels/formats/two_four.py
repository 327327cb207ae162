"""2:4 weights in the layout that sparse tensor cores read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from sparsejax_kernels.formats.base import CompressedWeight, compressed, concrete

if TYPE_CHECKING:
    from sparsejax_kernels.formats.n_m import NM

__all__ = [
    "ROWS",
    "STEP",
    "TwoFour",
    "TwoFourTransposed",
    "for_tensor_cores",
    "offsets_of",
    "words_of",
]

ROWS = 128
"""Outputs of a tile: two instructions of 64."""
STEP = 128
"""Inputs of a tile: four instructions of 32."""
NO_WEIGHTS = 0b0100
"""The offsets of padding, 0 and 1: two equal ones are undefined to the hardware."""


@compressed()
class TwoFourTransposed:
    """What the product with the transposed weight reads, of a transposable mask.

    Attributes:
      places: ``(in, out / 2)``, position in the flat values of each kept weight.
      words: as in `TwoFour`, of the transposed weight.
    """

    places: Int[Array, "in half_out"]
    words: Int[Array, "row_tiles steps 2 256"]


@compressed("in_features")
class TwoFour(CompressedWeight):
    """A weight of shape ``(in, out)``, exactly two of every four inputs kept.

    ``values[o, 2 g]`` and ``values[o, 2 g + 1]`` multiply the two inputs of group ``g``
    that the four bits of this group in ``words`` name. A tile of 128 outputs and 128
    inputs has 512 words, four for each of 128 threads, as `wgmma.mma_async.sp` wants
    them: lane ``4 q + 2 s + h`` of a warp has rows ``q`` (low half of the word) and
    ``q + 8`` (high half) of the warp's 16, of which inputs ``16 h`` to ``16 h + 15``
    of the instructions whose selector is ``s``. Made by `NM.for_tensor_cores`.

    Attributes:
      values: bfloat16 or float32, ``(out, in / 2)``.
      words: int32, ``(row tiles, steps, 2, 256)``, padding included.
      in_features: number of inputs, a multiple of four, static.
      transposed: what the gradient with respect to activations needs, or None.

    Raises:
      ValueError: if shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import NM
      >>> weights = jnp.asarray([[0.0], [1.0], [0.0], [3.0]])
      >>> w = NM.fromdense(weights, weights != 0, n=2, m=4).for_tensor_cores()
      >>> w.values.tolist(), hex(w.words[0, 0, 0, 0])
      ([[1.0, 3.0]], '0x4444444d')
      >>> bool((w.todense() == weights).all())
      True

    References:
      PTX ISA, matrix fragments of `wgmma.mma_async.sp`, shape m64nNk32 for bfloat16.
    """

    values: Float[Array, "out half_in"]
    words: Int[Array, "row_tiles steps 2 256"]
    in_features: int
    transposed: TwoFourTransposed | None = None

    def __post_init__(self):
        outputs, half = self.values.shape
        expected = (-(-outputs // ROWS), -(-self.in_features // STEP), 2, 256)
        fits = 2 * half == self.in_features and self.in_features % 4 == 0
        if not fits or self.words.shape != expected:
            raise ValueError(
                f"TwoFour.values has shape {self.values.shape} and TwoFour.words "
                f"{self.words.shape}; they have to be (out, {self.in_features} / 2) "
                f"and {expected}; build it by `NM.for_tensor_cores()`"
            )

    def with_transpose(self) -> TwoFour:
        """The same weight, with what the backward pass needs; call it once a move.

        Raises:
          ValueError: unless every input has two weights in each four outputs, which
            `sparsejax.transposable` takes care of.

        Example:
          >>> import jax.numpy as jnp
          >>> from sparsejax_kernels import NM
          >>> weights = jnp.tile(jnp.asarray([[1.0, 0.0], [0.0, 2.0]]), (2, 2))
          >>> w = NM.fromdense(weights, weights != 0, n=2, m=4).for_tensor_cores()
          >>> w.with_transpose().transposed.places.tolist()
          [[0, 4], [2, 6], [1, 5], [3, 7]]
        """
        places, offsets = _transposed(self.to_n_m().offsets)
        transposed = TwoFourTransposed(places, words_of(offsets))
        return dataclasses.replace(self, transposed=transposed)

    def to_n_m(self) -> NM:
        """The same weight with one offset a value."""
        from sparsejax_kernels.formats.n_m import NM

        outputs = self.values.shape[0]
        offsets = offsets_of(self.words)[:outputs, : self.in_features // 4]
        return NM(self.values.reshape(offsets.shape), offsets, self.in_features, 4)

    def to_fan_in(self):
        """The same weight with the index of each input, row by row."""
        return self.to_n_m().to_fan_in()

    def todense(self) -> Float[Array, "in out"]:
        """The dense weight, zeros where nothing is kept."""
        return self.to_fan_in().todense()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense weight, ``(in, out)``."""
        return self.in_features, self.values.shape[0]

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights: half of all."""
        return jnp.asarray(self.values.size, jnp.int32)


def for_tensor_cores(w: NM) -> TwoFour:
    """See `NM.for_tensor_cores`."""
    if (w.n, w.m) != (2, 4):
        raise ValueError(
            f"n is {w.n} and m is {w.m}; sparse tensor cores read 2:4 weights alone"
        )
    inputs, outputs = w.shape
    if inputs % 4:
        raise ValueError(
            f"in_features is {inputs}; sparse tensor cores read groups of four inputs: "
            "make it a multiple of 4"
        )
    if concrete(w.offsets) and bool((w.offsets >= 4).any()):
        output, group, _ = np.argwhere(np.asarray(w.offsets) >= 4)[0]
        raise ValueError(
            f"group {group} of output {output} keeps fewer than two weights; sparse "
            "tensor cores need two in each: train with exactly 2:4, or multiply by "
            "the NM weight as it is"
        )
    values = w.values.reshape(outputs, inputs // 2)
    return TwoFour(values, words_of(w.offsets), inputs)


def words_of(
    offsets: Integer[Array, "rows groups 2"],
) -> Int[Array, "row_tiles steps 2 256"]:
    """The words of all threads for the offsets of a weight, padded to whole tiles."""
    codes = offsets[..., 0].astype(jnp.uint32) | offsets[..., 1].astype(jnp.uint32) << 2
    rows, groups = codes.shape
    rest = ((0, -rows % ROWS), (0, -groups % (STEP // 4)))
    codes = jnp.pad(codes, rest, constant_values=NO_WEIGHTS)
    tiles, steps = codes.shape[0] // ROWS, codes.shape[1] * 4 // STEP
    # Rows are (instruction, warp, half, quad), groups (pair, selector, half, group).
    codes = codes.reshape(tiles, 2, 4, 2, 8, steps, 2, 2, 2, 4)
    words = (codes << _shifts()).sum(axis=(3, 9), dtype=jnp.uint32)
    words = words.transpose(0, 4, 2, 3, 6, 7, 1, 5)
    words = jax.lax.bitcast_convert_type(words, jnp.int32)
    return words.reshape(tiles, steps, 2, 256)


def offsets_of(
    words: Int[Array, "row_tiles steps 2 256"],
) -> Integer[Array, "rows groups 2"]:
    """The offsets of all weights, those of padding included; `words_of` undone."""
    tiles, steps, _, _ = words.shape
    words = jax.lax.bitcast_convert_type(words, jnp.uint32)
    words = words.reshape(tiles, steps, 4, 8, 2, 2, 2, 2)
    words = words.transpose(0, 6, 2, 3, 1, 7, 4, 5)[:, :, :, None, ..., None]
    codes = (words >> _shifts()).reshape(tiles * ROWS, steps * STEP // 4)
    offsets = jnp.stack([codes & 3, codes >> 2 & 3], axis=-1)
    return offsets.astype(jnp.uint8)


def _shifts() -> Array:
    """Where in a word the offsets of a half and a group are, of all ten axes."""
    groups = 4 * jax.lax.broadcasted_iota(jnp.uint32, (2, 4), 1)
    halves = 16 * jax.lax.broadcasted_iota(jnp.uint32, (2, 4), 0)
    return (groups + halves).reshape(1, 1, 1, 2, 1, 1, 1, 1, 1, 4)


def _transposed(
    offsets: Integer[Array, "out groups 2"],
) -> tuple[Int[Array, "in half_out"], Integer[Array, "in out_groups 2"]]:
    """Where the weights of the transposed weight are, and its offsets."""
    outputs, groups, _ = offsets.shape
    inputs = 4 * groups
    places = jnp.arange(offsets.size, dtype=jnp.int32).reshape(outputs, -1)
    group = jax.lax.broadcasted_iota(jnp.int32, offsets.shape, 1)
    rows = (4 * group + offsets.astype(jnp.int32)).reshape(places.shape)
    columns = jax.lax.broadcasted_iota(jnp.int32, places.shape, 0)
    dense = jnp.full((inputs, outputs), -1, jnp.int32).at[rows, columns].set(places)
    grouped = dense[:, : outputs // 4 * 4].reshape(inputs, outputs // 4, 4)
    counts = (grouped >= 0).sum(axis=-1)
    if outputs % 4 or (concrete(offsets) and bool((counts != 2).any())):
        raise ValueError(
            "the mask is not transposable: not every input has exactly two weights "
            "among four consecutive outputs; train with sparsejax.transposable(2, 4), "
            "or multiply without the transposed weight"
        )
    kept = jnp.argsort(grouped < 0, axis=-1, stable=True)[..., :2]
    found = jnp.take_along_axis(grouped, kept, axis=-1)
    return found.reshape(inputs, outputs // 2), kept.astype(jnp.uint8)
