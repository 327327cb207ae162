"""Packed N:M: the weights of 16 outputs side by side, for register permutations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.formats.base import CompressedWeight, check_range, compressed
from sparsejax_kernels.formats.fan_in import FanIn

__all__ = ["BLOCK", "LANES", "PackedNM"]

BLOCK = 32
"""Inputs that two registers of AVX-512 hold, and one instruction selects from."""
LANES = 16
"""Outputs that are summed side by side."""


@compressed("in_features", "out_features")
class PackedNM(CompressedWeight):
    """A weight of shape ``(in, out)`` in the order in which a processor reads it.

    Outputs are cut into slices of 16 and inputs into blocks of 32; every output has
    ``slots`` values in each block, those of a 2:4 weight 16 and those of N:32 N.
    ``y[16 s + l] = sum over b, q of
    values[s, b, q, l] * x[32 b + offsets[s, b, q, l]]``. Padding has the offset 32,
    which reads a zero. Values and offsets stay apart, so that values are exact and can
    be trained. Made by `sparsejax_kernels.NM.packed`.

    Attributes:
      values: float32 or bfloat16, ``(slices, blocks, slots, 16)``.
      offsets: uint8, ``(slices, blocks, slots, 16)``, ascending along the slots.
      in_features: number of inputs, static.
      out_features: number of outputs, static.

    Raises:
      ValueError: if shapes do not fit or, where it is known, an offset is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import NM
      >>> weights = jnp.zeros((64, 3)).at[40, 1].set(5.0)
      >>> w = NM.fromdense(weights, weights != 0, n=1, m=32).packed()
      >>> w.values.shape, int(w.offsets[0, 1, 0, 1]), int(w.count), w.shape
      ((1, 2, 1, 16), 8, 1, (64, 3))
    """

    values: Float[Array, "slices blocks slots 16"]
    offsets: Integer[Array, "slices blocks slots 16"]
    in_features: int
    out_features: int

    def __post_init__(self):
        slices = -(-self.out_features // LANES)
        blocks = -(-self.in_features // BLOCK)
        shape = self.values.shape
        fits = len(shape) == 4 and shape[:2] == (slices, blocks) and shape[3] == LANES
        if self.offsets.shape != shape or not fits:
            raise ValueError(
                f"PackedNM.values has shape {shape} and PackedNM.offsets "
                f"{self.offsets.shape}; both have to be ({slices}, {blocks}, slots, "
                f"{LANES}) for {self.in_features} inputs and {self.out_features} "
                "outputs; build it by `NM.packed()`"
            )
        if not jnp.issubdtype(self.offsets.dtype, jnp.integer):
            raise ValueError(
                f"PackedNM.offsets is {self.offsets.dtype}; it has to be an integer "
                "type"
            )
        check_range("PackedNM", "offsets", self.offsets, BLOCK)

    def to_fan_in(self) -> FanIn:
        """The same weight with the index of each input, row by row."""
        indices = indices_of(self.offsets, self.in_features)
        return FanIn(
            rows_of(self.values)[: self.out_features],
            indices[: self.out_features],
            self.in_features,
        )

    def todense(self) -> Float[Array, "in out"]:
        """The dense weight, zeros where nothing is kept."""
        return self.to_fan_in().todense()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense weight, ``(in, out)``."""
        return self.in_features, self.out_features

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights, padding left out."""
        return jnp.sum(self.offsets < BLOCK, dtype=jnp.int32)


def rows_of(packed: Array) -> Array:
    """``(slices, blocks, slots, 16)`` as one row per output."""
    slices, blocks, slots, lanes = packed.shape
    return packed.transpose(0, 3, 1, 2).reshape(slices * lanes, blocks * slots)


def packed_of(rows: Array, shape: tuple[int, ...]) -> Array:
    """What `rows_of` undoes."""
    slices, blocks, slots, lanes = shape
    return rows.reshape(slices, lanes, blocks, slots).transpose(0, 2, 3, 1)


def indices_of(
    offsets: Integer[Array, "slices blocks slots 16"], in_features: int
) -> Integer[Array, "out k"]:
    """The indices of a fan-in weight, also of the outputs that are padding."""
    wide = offsets.astype(jnp.int32)
    first = BLOCK * jax.lax.broadcasted_iota(jnp.int32, (1, wide.shape[1], 1, 1), 1)
    indices = jnp.where(wide < BLOCK, first + wide, in_features)
    # What a corrupt offset of the last, shorter block would read.
    indices = rows_of(jnp.minimum(indices, in_features))
    small = in_features <= jnp.iinfo(jnp.uint16).max
    return indices.astype(jnp.uint16 if small else jnp.int32)
