"""Fan-in: for every output its kept weights and which inputs they read."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCOO
from jaxtyping import Array, Bool, Float, Integer

from sparsejax_kernels.formats.base import (
    CompressedWeight,
    check_range,
    compressed,
    concrete,
    index_dtype,
)
from sparsejax_kernels.formats.transposed import Transposed, transpose

__all__ = ["FanIn"]


@compressed("in_features")
class FanIn(CompressedWeight):
    """A weight of shape ``(in, out)`` as ``fan-in`` values and indices per output.

    ``y[o] = sum_j values[o, j] * x[indices[o, j]]``. An output that keeps fewer than
    ``fan-in`` weights is padded with the index ``in_features``, which reads a zero. The
    memory is that of SRigL's condensed layer (Lasby et al., ICLR 2024), with indices of
    the smallest type that holds ``in_features``.

    Attributes:
      values: float32 or bfloat16, ``(out, fan-in)``.
      indices: uint8, uint16 or int32, ``(out, fan-in)``, ascending within a row.
      in_features: number of inputs, static.
      transposed: which outputs read an input, for the backward pass; None to have it
        made in every backward pass. See `with_transpose`.

    Raises:
      ValueError: if shapes do not fit or, where it is known, an index is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
      >>> w = FanIn.fromdense(weights, weights != 0)
      >>> w.values.tolist(), w.indices.tolist(), w.count.tolist()
      ([[1.0, 0.0], [2.0, 3.0]], [[1, 3], [0, 2]], 3)
      >>> bool((w.todense() == weights).all())
      True
    """

    values: Float[Array, "out k"]
    indices: Integer[Array, "out k"]
    in_features: int
    transposed: Transposed | None = None

    def __post_init__(self):
        if self.values.shape != self.indices.shape or self.values.ndim != 2:
            raise ValueError(
                f"FanIn.values has shape {self.values.shape} and FanIn.indices "
                f"{self.indices.shape}; both have to be (out, fan-in)"
            )
        if not jnp.issubdtype(self.indices.dtype, jnp.integer):
            raise ValueError(
                f"FanIn.indices is {self.indices.dtype}; it has to be an integer type"
            )
        check_range("FanIn", "indices", self.indices, self.in_features)

    @classmethod
    def fromdense(
        cls,
        w: Float[Array, "in out"],
        mask: Bool[Array, "in out"],
        *,
        fan_in: int | None = None,
    ) -> FanIn:
        """Keeps the weights that a mask names, also those that are zero.

        Args:
          w: dense weights, in Flax's orientation.
          mask: True where a weight is kept.
          fan_in: weights per output to have room for; default the largest number that
            an output keeps, which has to be known (under ``jit`` it is not).

        Raises:
          ValueError: if ``fan_in`` is missing under ``jit`` or too small.
        """
        if w.ndim != 2 or w.shape != mask.shape:
            raise ValueError(
                f"w has shape {w.shape} and mask {mask.shape}; "
                "both have to be (in, out)"
            )
        inputs = w.shape[0]
        if concrete(mask):
            largest = int(jnp.max(jnp.sum(mask, axis=0), initial=0))
            if fan_in is None:
                fan_in = largest
            elif fan_in < largest:
                raise ValueError(
                    f"fan_in is {fan_in}, but an output keeps {largest} weights; "
                    f"raise it to {largest}"
                )
        elif fan_in is None:
            raise ValueError("fan_in is unknown: under jit, give it as a number")
        fan_in = max(min(fan_in, inputs), 1)
        order = jnp.argsort(~mask.T, axis=1, stable=True)[:, :fan_in]
        kept = jnp.take_along_axis(mask.T, order, axis=1)
        values = jnp.where(kept, jnp.take_along_axis(w.T, order, axis=1), 0)
        indices = jnp.where(kept, order, inputs).astype(index_dtype(inputs))
        return cls(values.astype(w.dtype), indices, inputs)

    def todense(self) -> Float[Array, "in out"]:
        """The dense weight, zeros where nothing is kept."""
        outputs = jnp.arange(self.values.shape[-2])[:, None]
        dense = jnp.zeros(self.shape, self.values.dtype)
        rows = self.indices.astype(jnp.int32)
        return dense.at[rows, outputs].set(self.values, mode="drop")

    def to_bcoo(self) -> BCOO:
        """The same weight in JAX's own format, kept zeros kept.

        Padding has an index past the end, as JAX's padding has;
        ``BCSR.from_bcoo(w.to_bcoo().sort_indices())`` is the compressed-row format.
        """
        outputs = jax.lax.broadcasted_iota(jnp.int32, self.indices.shape, 0)
        padding = self.indices >= self.in_features
        outputs = jnp.where(padding, self.values.shape[0], outputs)
        pairs = jnp.stack([self.indices.astype(jnp.int32), outputs], axis=-1)
        return BCOO(
            (self.values.reshape(-1), pairs.reshape(-1, 2)),
            shape=self.shape,
            unique_indices=True,
        )

    def with_transpose(self) -> FanIn:
        """The same weight, with what the backward pass needs; call it once a move."""
        return dataclasses.replace(
            self, transposed=transpose(self.indices, self.in_features)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense weight, ``(in, out)``."""
        return self.in_features, self.values.shape[-2]

    @property
    def fan_in(self) -> int:
        """Weights per output that there is room for."""
        return self.values.shape[-1]

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights, padding left out."""
        return jnp.sum(self.indices < self.in_features, dtype=jnp.int32)
