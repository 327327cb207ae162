"""N:M: of every M consecutive inputs of an output at most N are kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from sparsejax_kernels.formats.base import (
    CompressedWeight,
    check_range,
    compressed,
    concrete,
)
from sparsejax_kernels.formats.fan_in import FanIn
from sparsejax_kernels.formats.packed import BLOCK, LANES, Packed, no_rest
from sparsejax_kernels.formats.two_four import TwoFour, for_tensor_cores

__all__ = ["NM"]


@compressed("in_features", "m")
class NM(CompressedWeight):
    """A weight of shape ``(in, out)`` with ``n`` values per output and group of inputs.

    ``y[o] = sum over g, j of values[o, g, j] * x[g * m + offsets[o, g, j]]``. A group
    that keeps fewer than ``n`` weights is padded with the offset ``m``, which reads a
    zero. The last group is shorter where ``m`` does not divide ``in_features``.

    Attributes:
      values: float32 or bfloat16, ``(out, groups, n)``.
      offsets: uint8, ``(out, groups, n)``, ascending within a group.
      in_features: number of inputs, static.
      m: inputs per group, static.

    Raises:
      ValueError: if shapes do not fit or, where it is known, an offset is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[1.0], [0.0], [2.0], [0.0], [0.0], [3.0]])
      >>> w = NM.fromdense(weights, weights != 0, n=2, m=4)
      >>> w.values.tolist(), w.offsets.tolist()
      ([[[1.0, 2.0], [3.0, 0.0]]], [[[0, 2], [1, 4]]])
      >>> bool((w.todense() == weights).all())
      True
    """

    values: Float[Array, "out groups n"]
    offsets: Integer[Array, "out groups n"]
    in_features: int
    m: int

    def __post_init__(self):
        if not 1 <= self.m <= 255:
            raise ValueError(f"NM.m is {self.m}; it has to be from 1 to 255")
        groups = -(-self.in_features // self.m)
        shape = self.values.shape
        if self.offsets.shape != shape or len(shape) != 3 or shape[1] != groups:
            raise ValueError(
                f"NM.values has shape {shape} and NM.offsets {self.offsets.shape}; "
                f"both have to be (out, {groups}, n) for {self.in_features} inputs in "
                f"groups of {self.m}"
            )
        if not jnp.issubdtype(self.offsets.dtype, jnp.integer):
            raise ValueError(
                f"NM.offsets is {self.offsets.dtype}; it has to be an integer type"
            )
        check_range("NM", "offsets", self.offsets, self.m)

    @classmethod
    def fromdense(
        cls,
        w: Float[Array, "in out"],
        mask: Bool[Array, "in out"],
        *,
        n: int,
        m: int,
    ) -> NM:
        """Keeps the weights that a mask names, also those that are zero.

        Args:
          w: dense weights, in Flax's orientation.
          mask: True where a weight is kept.
          n: largest number of weights that a group keeps.
          m: inputs per group.

        Raises:
          ValueError: if a group keeps more than ``n`` weights.
        """
        if w.ndim != 2 or w.shape != mask.shape:
            raise ValueError(
                f"w has shape {w.shape} and mask {mask.shape}; "
                "both have to be (in, out)"
            )
        if not 1 <= n <= m:
            raise ValueError(f"n is {n} and m is {m}; n has to be from 1 to m")
        inputs, outputs = w.shape
        groups = -(-inputs // m)
        rest = ((0, 0), (0, groups * m - inputs))
        grouped = jnp.pad(mask.T, rest).reshape(outputs, groups, m)
        if concrete(mask):
            largest = int(jnp.max(grouped.sum(axis=-1), initial=0))
            if largest > n:
                raise ValueError(
                    f"n is {n}, but a group of {m} inputs keeps {largest} weights; "
                    f"raise n to {largest}, or train with `sj.n_m({n}, {m})`"
                )
        weights = jnp.pad(w.T, rest).reshape(outputs, groups, m)
        order = jnp.argsort(~grouped, axis=-1, stable=True)[..., :n]
        kept = jnp.take_along_axis(grouped, order, axis=-1)
        values = jnp.where(kept, jnp.take_along_axis(weights, order, axis=-1), 0)
        offsets = jnp.where(kept, order, m).astype(jnp.uint8)
        return cls(values.astype(w.dtype), offsets, inputs, m)

    def to_fan_in(self) -> FanIn:
        """The same weight with the index of each input, three times the index bytes."""
        outputs, groups, n = self.values.shape
        offsets = self.offsets.astype(jnp.int32)
        first = self.m * jax.lax.broadcasted_iota(jnp.int32, (1, groups, 1), 1)
        indices = jnp.where(offsets < self.m, first + offsets, self.in_features)
        # What a corrupt offset of the last, shorter group would read.
        indices = jnp.minimum(indices, self.in_features)
        small = self.in_features <= jnp.iinfo(jnp.uint16).max
        indices = indices.astype(jnp.uint16 if small else jnp.int32)
        shape = (outputs, groups * n)
        return FanIn(
            self.values.reshape(shape), indices.reshape(shape), self.in_features
        )

    def packed(self) -> Packed:
        """The same weight in the layout that is fastest on CPUs.

        It is a copy with values of its own; call it once, after training or before.

        Raises:
          ValueError: unless groups of ``m`` fit into blocks of 32 inputs.

        Example:
          >>> import jax.numpy as jnp
          >>> weights = jnp.tile(jnp.asarray([[1.0], [0.0], [2.0], [0.0]]), (16, 16))
          >>> w = NM.fromdense(weights, weights != 0, n=2, m=4).packed()
          >>> w.values.shape, bool((w.todense() == weights).all())
          ((1, 32, 16), True)
        """
        if BLOCK % self.m:
            raise ValueError(
                f"m is {self.m}; a packed weight has groups of 1, 2, 4, 8, 16 or 32 "
                "inputs. Train with one of them, or multiply by the weight as it is"
            )
        outputs, groups, n = self.values.shape
        each = BLOCK // self.m
        blocks, slices = -(-self.in_features // BLOCK), -(-outputs // LANES)
        offsets = self.offsets.astype(jnp.int32)
        first = self.m * jax.lax.rem(
            jax.lax.broadcasted_iota(jnp.int32, (1, groups, 1), 1), jnp.int32(each)
        )
        offsets = jnp.where(offsets < self.m, first + offsets, BLOCK)

        def pack(array, padding):
            rest = (slices * LANES - outputs, blocks * each - groups, 0)
            array = jnp.pad(
                array, [(0, more) for more in rest], constant_values=padding
            )
            array = array.reshape(slices, LANES, blocks, each * n)
            return array.transpose(0, 2, 3, 1)

        return Packed(
            pack(self.values, 0).reshape(slices, -1, LANES),
            pack(offsets.astype(jnp.uint8), BLOCK),
            no_rest(slices, self.in_features),
            self.in_features,
            outputs,
        )

    def for_tensor_cores(self) -> TwoFour:
        """The same 2:4 weight in the layout that sparse tensor cores read.

        Call it once a move; values that a `TwoFour` has can be trained.

        Raises:
          ValueError: unless every group of four inputs keeps exactly two weights.

        Example:
          >>> import jax.numpy as jnp
          >>> weights = jnp.tile(jnp.asarray([[1.0, 0.0], [0.0, 2.0]]), (2, 2))
          >>> w = NM.fromdense(weights, weights != 0, n=2, m=4).for_tensor_cores()
          >>> w.values.tolist()
          [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]
        """
        return for_tensor_cores(self)

    def todense(self) -> Float[Array, "in out"]:
        """The dense weight, zeros where nothing is kept."""
        return self.to_fan_in().todense()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense weight, ``(in, out)``."""
        return self.in_features, self.values.shape[-3]

    @property
    def n(self) -> int:
        """Weights per group that there is room for."""
        return self.values.shape[-1]

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights, padding left out."""
        return jnp.sum(self.offsets < self.m, dtype=jnp.int32)
