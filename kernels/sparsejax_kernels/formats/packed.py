"""Packed weights: those of 16 outputs side by side, cut at blocks of 32 inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.formats.base import (
    CompressedWeight,
    check_range,
    compressed,
    concrete,
)
from sparsejax_kernels.formats.fan_in import FanIn

__all__ = ["BLOCK", "LANES", "Packed"]

BLOCK = 32
"""Inputs that two registers of AVX-512 hold, and one instruction selects from."""
LANES = 16
"""Outputs that are summed side by side."""
STEP = 3.5
"""What 16 weights of the rest take, in times of 16 slots. Measured on Zen 4."""


@compressed("in_features", "out_features")
class Packed(CompressedWeight):
    """A weight of shape ``(in, out)`` in the order in which a processor reads it.

    Outputs are cut into slices of 16 and inputs into blocks of 32; every output has
    ``slots`` places in each block, those of a 2:4 weight 16 and those of N:32 N. What
    an output keeps of a block beyond them is in the rest, ``depth`` places for each.
    ``y[16 s + l]`` is the sum over blocks b and slots q of ``values[s, b slots + q, l]
    * x[32 b + offsets[s, b, q, l]]``, and over d of ``values[s, blocks slots + d, l] *
    x[rest[s, d, l]]``. Padding has the offset 32, in the rest the input
    ``in_features``, and reads a zero. Values and places stay apart, so that values are
    exact and can be trained. Made by `sparsejax_kernels.NM.packed`, without a rest, and
    of any weight by `from_fan_in`.

    Attributes:
      values: float32 or bfloat16, ``(slices, blocks * slots + depth, 16)``.
      offsets: uint8, ``(slices, blocks, slots, 16)``, ascending along the slots.
      rest: uint16 or int32, ``(slices, depth, 16)``, ascending along the depth.
      in_features: number of inputs, static.
      out_features: number of outputs, static.

    Raises:
      ValueError: if shapes do not fit or, where it is known, a place is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import FanIn
      >>> weights = jnp.zeros((64, 3)).at[40, 1].set(5.0).at[41, 1].set(6.0)
      >>> w = Packed.from_fan_in(FanIn.fromdense(weights, weights != 0), slots=1)
      >>> w.values.shape, int(w.offsets[0, 1, 0, 1]), w.rest[0, 0, :3].tolist()
      ((1, 3, 16), 8, [64, 41, 64])
      >>> int(w.count), w.shape, bool((w.todense() == weights).all())
      (2, (64, 3), True)
    """

    values: Float[Array, "slices entries 16"]
    offsets: Integer[Array, "slices blocks slots 16"]
    rest: Integer[Array, "slices depth 16"]
    in_features: int
    out_features: int

    def __post_init__(self):
        slices = -(-self.out_features // LANES)
        blocks = -(-self.in_features // BLOCK)
        places, read = self.offsets.shape, self.rest.shape
        fits = (
            len(places) == 4
            and len(read) == 3
            and places[:2] == (slices, blocks)
            and read[0] == slices
            and places[3] == read[2] == LANES
            and self.values.shape == (slices, blocks * places[2] + read[1], LANES)
        )
        if not fits:
            raise ValueError(
                f"Packed.values has shape {self.values.shape}, Packed.offsets "
                f"{places} and Packed.rest {read}; they have to be ({slices}, {blocks} "
                f"* slots + depth, {LANES}), ({slices}, {blocks}, slots, {LANES}) and "
                f"({slices}, depth, {LANES}) for {self.in_features} inputs and "
                f"{self.out_features} outputs; build it by `NM.packed()` or "
                "`Packed.from_fan_in(w)`"
            )
        for field, largest in (("offsets", BLOCK), ("rest", self.in_features)):
            places = getattr(self, field)
            if not jnp.issubdtype(places.dtype, jnp.integer):
                raise ValueError(
                    f"Packed.{field} is {places.dtype}; it has to be an integer type"
                )
            check_range("Packed", field, places, largest, "from_fan_in(w)")

    @classmethod
    def from_fan_in(cls, w: FanIn, *, slots: int | None = None) -> Packed:
        """The same weight in the layout that is fastest at small batches.

        It is a copy with values of its own; call it once, after training or before.

        Args:
          w: any weight whose indices are known (under ``jit`` they are not).
          slots: weights of a block of 32 inputs that an output has room for before the
            rest; default: as many as make the product fastest.

        Raises:
          ValueError: if indices are not known, or ``slots`` is not from 0 to 32.
        """
        if not concrete(w.indices):
            raise ValueError(
                "the indices of w are unknown: pack a weight outside of jit"
            )
        if slots is not None and not 0 <= slots <= BLOCK:
            raise ValueError(f"slots is {slots}; it is from 0 to {BLOCK}")
        inputs, outputs = w.shape
        slices, blocks = -(-outputs // LANES), -(-inputs // BLOCK)
        # Every kept weight: its output, its place in w, and its input, in order.
        output, place = np.nonzero(np.asarray(w.indices) < inputs)
        read = np.asarray(w.indices)[output, place].astype(np.int64)
        order = np.lexsort((read, output))
        output, place, read = output[order], place[order], read[order]
        block = read // BLOCK
        group = output * blocks + block
        counts = np.bincount(group, minlength=slices * LANES * blocks)
        if slots is None:
            slots = _fastest(counts.reshape(slices, LANES, blocks))
        rank = _rank(group)
        regular = rank < slots
        rest_rank = _rank(output[~regular])
        # Without any weight there is a place for one.
        depth = max(int(rest_rank.max(initial=-1)) + 1, int(slots == 0))
        slice_, lane = output // LANES, output % LANES
        entry = np.where(regular, block * slots + rank, 0)
        entry[~regular] = blocks * slots + rest_rank

        source = np.full((slices, blocks * slots + depth, LANES), w.values.size)
        source[slice_, entry, lane] = output * w.fan_in + place
        offsets = np.full((slices, blocks * slots, LANES), BLOCK, np.uint8)
        offsets[slice_[regular], entry[regular], lane[regular]] = read[regular] % BLOCK
        rest = np.full((slices, depth, LANES), inputs, _rest_dtype(inputs))
        rest[slice_[~regular], rest_rank, lane[~regular]] = read[~regular]
        values = jnp.append(w.values.reshape(-1), jnp.zeros(1, w.values.dtype))
        return cls(
            values[jnp.asarray(source)],
            jnp.asarray(offsets.reshape(slices, blocks, slots, LANES)),
            jnp.asarray(rest),
            inputs,
            outputs,
        )

    def to_fan_in(self) -> FanIn:
        """The same weight with the index of each input, row by row."""
        indices = indices_of((self.offsets, self.rest), self.in_features)
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
    def slots(self) -> int:
        """Weights of a block of inputs that every output has room for."""
        return self.offsets.shape[2]

    @property
    def depth(self) -> int:
        """Weights beyond them that an output has room for."""
        return self.rest.shape[1]

    @property
    def count(self) -> Integer[Array, ""]:
        """Number of kept weights, padding left out."""
        regular = jnp.sum(self.offsets < BLOCK, dtype=jnp.int32)
        return regular + jnp.sum(self.rest < self.in_features, dtype=jnp.int32)


def no_rest(slices: int, inputs: int) -> Array:
    """The inputs of a rest in which nothing is."""
    return jnp.zeros((slices, 0, LANES), _rest_dtype(inputs))


def rows_of(packed: Array) -> Array:
    """``(slices, entries, 16)`` as one row per output."""
    return packed.transpose(0, 2, 1).reshape(-1, packed.shape[1])


def packed_of(rows: Array) -> Array:
    """What `rows_of` undoes."""
    return rows.reshape(-1, LANES, rows.shape[1]).transpose(0, 2, 1)


def indices_of(
    places: tuple[
        Integer[Array, "slices blocks slots 16"], Integer[Array, "slices depth 16"]
    ],
    in_features: int,
) -> Integer[Array, "out k"]:
    """The indices of a fan-in weight, also of the outputs that are padding."""
    offsets, rest = (each.astype(jnp.int32) for each in places)
    first = BLOCK * jax.lax.broadcasted_iota(jnp.int32, (1, offsets.shape[1], 1, 1), 1)
    regular = jnp.where(offsets < BLOCK, first + offsets, in_features)
    slices, blocks, slots, _ = offsets.shape
    regular = regular.reshape(slices, blocks * slots, LANES)
    # What a corrupt offset of the last, shorter block would read.
    indices = jnp.minimum(jnp.concatenate([regular, rest], axis=1), in_features)
    return rows_of(indices).astype(_rest_dtype(in_features))


def _rest_dtype(inputs: int) -> np.dtype:
    """Of those that kernels read the smaller one that holds the number of inputs."""
    small = inputs <= jnp.iinfo(jnp.uint16).max
    return np.dtype(np.uint16 if small else np.int32)


def _rank(groups: np.ndarray) -> np.ndarray:
    """The how-manieth of its group each is, groups being runs of equal numbers."""
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(first, append=groups.size)
    return np.arange(groups.size) - np.repeat(first, lengths)


def _fastest(counts: np.ndarray) -> int:
    """The number of slots with which a product takes the least time.

    Args:
      counts: kept weights of each slice, lane and block.
    """
    slices, _, blocks = counts.shape
    times = []
    for slots in range(int(counts.max(initial=0)) + 1):
        beyond = np.maximum(counts - slots, 0).sum(axis=2).max(axis=1)
        times.append(slices * blocks * slots + STEP * beyond.sum())
    return int(np.argmin(times))
