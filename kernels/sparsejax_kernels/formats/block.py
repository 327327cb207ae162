"""Block: whole rectangles of the dense weight are kept or left out."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from sparsejax_kernels.formats.base import (
    CompressedWeight,
    check_range,
    compressed,
    concrete,
    index_dtype,
)

__all__ = ["Block"]


@compressed("in_features", "out_features")
class Block(CompressedWeight):
    """A weight of shape ``(in, out)`` as dense blocks and where they lie.

    Block ``(r, c)`` covers the inputs from ``r * height`` and the outputs from
    ``c * width``. ``y[c * width + o] = sum over blocks (r, c) and i of
    values[block, i, o] * x[r * height + i]``. Where the block's shape does not divide
    the weight's, the last blocks reach over its edge; what lies outside is zero and
    stays zero. Blocks are sorted by column, then row. A padding block has the
    coordinates ``(rows, columns)``, one past the last ones, and reads nothing.

    Attributes:
      values: float32 or bfloat16, ``(blocks, height, width)``.
      coordinates: uint8, uint16 or int32, ``(blocks, 2)``, row and column in blocks.
      in_features: number of inputs, static.
      out_features: number of outputs, static.

    Raises:
      ValueError: if shapes do not fit or, where it is known, a coordinate is out of
        range.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 0.0, 5.0], [0.0, 0.0, 6.0], [1.0, 2.0, 0.0]])
      >>> mask = jnp.asarray([[0, 0, 1], [0, 0, 1], [1, 1, 0]]) == 1
      >>> w = Block.fromdense(weights, mask, block=(2, 2))
      >>> w.values.tolist()
      [[[1.0, 2.0], [0.0, 0.0]], [[5.0, 0.0], [6.0, 0.0]]]
      >>> w.coordinates.tolist(), w.count.tolist()
      ([[1, 0], [0, 1]], 4)
      >>> bool((w.todense() == weights).all())
      True
    """

    values: Float[Array, "blocks height width"]
    coordinates: Integer[Array, "blocks 2"]
    in_features: int
    out_features: int

    def __post_init__(self):
        shape = self.values.shape
        if len(shape) != 3 or min(shape[1:]) < 1:
            raise ValueError(
                f"Block.values has shape {shape}; it has to be (blocks, height, width) "
                "with a height and width of 1 or more"
            )
        if self.coordinates.shape != (shape[0], 2):
            raise ValueError(
                f"Block.coordinates has shape {self.coordinates.shape}; it has to be "
                f"({shape[0]}, 2), a row and a column for each block"
            )
        if not jnp.issubdtype(self.coordinates.dtype, jnp.integer):
            raise ValueError(
                f"Block.coordinates is {self.coordinates.dtype}; it has to be an "
                "integer type"
            )
        for axis, largest in enumerate(self.grid):
            one = self.coordinates[:, axis]
            check_range("Block", f"coordinates[:, {axis}]", one, largest)

    @classmethod
    def fromdense(
        cls,
        w: Float[Array, "in out"],
        mask: Bool[Array, "in out"],
        *,
        block: tuple[int, int],
        blocks: int | None = None,
    ) -> Block:
        """Keeps the blocks that a mask names, also weights in them that are zero.

        Args:
          w: dense weights, in Flax's orientation.
          mask: True where a weight is kept, in whole blocks.
          block: height and width of a block, in inputs and outputs.
          blocks: number of blocks to have room for; default those that the mask keeps,
            which have to be known (under ``jit`` they are not).

        Raises:
          ValueError: if the mask keeps a part of a block, or ``blocks`` is missing
            under ``jit`` or too small.
        """
        if w.ndim != 2 or w.shape != mask.shape:
            raise ValueError(
                f"w has shape {w.shape} and mask {mask.shape}; "
                "both have to be (in, out)"
            )
        height, width = block
        if height < 1 or width < 1:
            raise ValueError(f"block is {block}; height and width have to be positive")
        (inputs, outputs), known = w.shape, concrete(mask)
        rows, columns = -(-inputs // height), -(-outputs // width)

        def cut(dense):
            rest = ((0, rows * height - inputs), (0, columns * width - outputs))
            split = jnp.pad(dense, rest).reshape(rows, height, columns, width)
            return split.transpose(2, 0, 1, 3).reshape(columns * rows, height, width)

        masks = cut(mask)
        some = masks.any(axis=(1, 2))
        if known:
            kept = int(some.sum())
            if blocks is None:
                blocks = kept
            elif blocks < kept:
                raise ValueError(
                    f"blocks is {blocks}, but the mask keeps {kept}; raise it to {kept}"
                )
        elif blocks is None:
            raise ValueError("blocks is unknown: under jit, give it as a number")
        order = jnp.argsort(~some, stable=True)[:blocks]
        taken = some[order]
        place = order.astype(jnp.int32)
        row, column = jnp.divmod(place, jnp.int32(max(rows, 1)))[::-1]
        coordinates = jnp.stack(
            [jnp.where(taken, row, rows), jnp.where(taken, column, columns)], axis=1
        )
        values = jnp.where(masks[order], cut(w)[order], 0).astype(w.dtype)
        small = index_dtype(max(rows, columns))
        result = cls(values, coordinates.astype(small), inputs, outputs)
        if known and int(result.count) != int(mask.sum()):
            raise ValueError(
                f"mask keeps {int(mask.sum())} weights in blocks that have "
                f"{int(result.count)}, so some only in part; train with "
                f"`sj.block({height}, {width})`, or use FanIn"
            )
        return result

    def todense(self) -> Float[Array, "in out"]:
        """The dense weight, zeros where nothing is kept."""
        (rows, columns), (height, width) = self.grid, self.block
        place = self.coordinates.astype(jnp.int32)
        dense = jnp.zeros((rows, columns, height, width), self.values.dtype)
        dense = dense.at[place[:, 0], place[:, 1]].add(self.values, mode="drop")
        dense = dense.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
        return dense[: self.in_features, : self.out_features]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense weight, ``(in, out)``."""
        return self.in_features, self.out_features

    @property
    def block(self) -> tuple[int, int]:
        """Height and width of a block."""
        return self.values.shape[-2], self.values.shape[-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks that cover the dense weight."""
        height, width = self.block
        return -(-self.in_features // height), -(-self.out_features // width)

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights; padding and what lies over the edge left out."""
        place = self.coordinates.astype(jnp.int32)
        sides = [
            jnp.clip(size - place[..., axis] * side, 0, side)
            for axis, (size, side) in enumerate(
                zip(self.shape, self.block, strict=True)
            )
        ]
        inside = (place[..., 0] < self.grid[0]) & (place[..., 1] < self.grid[1])
        return jnp.sum(jnp.where(inside, sides[0] * sides[1], 0), dtype=jnp.int32)
