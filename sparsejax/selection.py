"""Exact top-k masks by threshold search: no sort, no gather, k may be traced.

Every score becomes an unsigned integer whose order is the order of the scores. The
k-th largest key is then found by a bracketing search that only ever *counts* how many
keys reach a threshold, so that a leaf sharded over devices exchanges counts and
nothing else, and a ranking over many leaves never concatenates them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Integer, Num, PyTree, UInt

__all__ = ["exact_count", "order_key", "top_k_mask", "top_k_masks"]


def order_key(
    scores: Num[Array, "..."], where: Bool[Array, "..."] | None = None
) -> UInt[Array, "..."]:
    """Maps scores to unsigned integers with the same order; 0 means "never selected".

    For a float with bits ``b`` the key is ``~b`` where the sign bit is set and
    ``b | sign`` elsewhere, the classical radix-sort map. NaN, ``-inf`` and entries
    outside ``where`` get 0; ``-0.0`` equals ``0.0``.

    Args:
      scores: any float dtype (16-bit ones are ranked in float32, exactly), or unsigned
        integers, which are their own keys (0 and the largest one are moved inside by
        1, since 0 and the bound above all keys are taken).
      where: entries that may be selected; all of them if None.

    Returns:
      uint32 (uint64 for 64-bit scores), the shape of ``scores``.

    Example:
      >>> import jax.numpy as jnp
      >>> keys = order_key(jnp.array([-1.0, 0.0, 2.0, jnp.nan]))
      >>> bool(keys[0] < keys[1] < keys[2]), int(keys[3])
      (True, 0)
    """
    if jnp.issubdtype(scores.dtype, jnp.unsignedinteger):
        wide = scores if scores.dtype.itemsize == 8 else scores.astype(jnp.uint32)
        top = jnp.array(jnp.iinfo(wide.dtype).max - 1, wide.dtype)
        key = jnp.clip(wide, jnp.ones((), wide.dtype), top)
    elif jnp.issubdtype(scores.dtype, jnp.floating):
        unsigned = jnp.uint64 if scores.dtype.itemsize == 8 else jnp.uint32
        wide = scores if scores.dtype.itemsize == 8 else scores.astype(jnp.float32)
        wide = jnp.where(wide == 0, jnp.zeros_like(wide), wide)
        bits = lax.bitcast_convert_type(wide, unsigned)
        sign = jnp.array(1 << (jnp.iinfo(unsigned).bits - 1), unsigned)
        key = jnp.where(bits >= sign, ~bits, bits | sign)
        # False for NaN too.
        selectable = wide > -jnp.inf
        where = selectable if where is None else where & selectable
    else:
        raise TypeError(
            f"scores have dtype {scores.dtype}; use a float or unsigned integer dtype"
        )
    return key if where is None else jnp.where(where, key, jnp.zeros_like(key))


def top_k_mask(
    scores: PyTree[Num[Array, "..."]],
    k: int | Integer[Array, ""],
    *,
    where: PyTree[Bool[Array, "..."]] | None = None,
) -> PyTree[Bool[Array, "..."]]:
    """Marks the k largest scores of an array, or of all leaves of a tree together.

    Exactly ``min(k, eligible)`` entries are marked; among equal scores the lowest flat
    index wins (for a tree: the first leaf in flattening order, then the lowest index).
    NaN and ``-inf`` are never selected. O(n) work in about a dozen passes; under
    ``jax.vmap`` each replica searches its own threshold.

    Args:
      scores: an array or a tree of arrays of one kind (all floats, or all unsigned
        integers); leaves of different float widths are ranked in the widest.
      k: how many entries to select; may be traced. Above 2**31 - 1 it has to be an
        int or unsigned.
      where: entries that may be selected, like ``scores``; all of them if None.

    Returns:
      Bool arrays in the structure of ``scores``.

    Example:
      >>> import jax.numpy as jnp
      >>> top_k_mask(jnp.array([0.3, 0.9, 0.3, 0.1]), 2).tolist()
      [True, True, False, False]
    """
    leaves, treedef = jax.tree.flatten(scores)
    eligible = [None] * len(leaves) if where is None else treedef.flatten_up_to(where)
    pairs = zip(leaves, eligible, strict=True)
    keys = _same_width([order_key(leaf, mask) for leaf, mask in pairs])
    if not keys:
        return scores
    return treedef.unflatten(_select(keys, _Joint(keys), _unsigned(k).reshape(1)))


def top_k_masks(
    scores: Sequence[Num[Array, "..."]],
    k: Sequence[Integer[Array, "..."]],
    *,
    where: Sequence[Bool[Array, "..."]] | None = None,
) -> list[Bool[Array, "..."]]:
    """Marks the largest scores of each array on its own, in one search for all.

    As `top_k_mask` of every array, or of every slice along its leading axes, but all
    thresholds are searched side by side: one small program, and on sharded leaves one
    exchange of counts per pass, however many layers there are.

    Args:
      scores: arrays.
      k: for each array how many entries to select: a scalar, or an array over leading
        axes of the scores, along which slices are ranked apart.
      where: entries that may be selected; all of them if None.

    Returns:
      One bool array for each array of scores.

    Example:
      >>> import jax.numpy as jnp
      >>> scores = [jnp.array([0.3, 0.9, 0.1]), jnp.array([[1.0, 2.0], [4.0, 3.0]])]
      >>> masks = top_k_masks(scores, [jnp.array(2), jnp.array([1, 1])])
      >>> [mask.tolist() for mask in masks]
      [[True, True, False], [[False, True], [True, False]]]
    """
    eligible = [None] * len(scores) if where is None else where
    pairs = zip(scores, eligible, strict=True)
    keys = _same_width([order_key(leaf, mask) for leaf, mask in pairs])
    if not keys:
        return []
    counts = [_unsigned(one) for one in k]
    # Arrays of one shape are stacked, so that the program does not grow with depth.
    groups: dict[Any, list[int]] = {}
    for index, (key, count) in enumerate(zip(keys, counts, strict=True)):
        groups.setdefault((key.shape, count.shape), []).append(index)
    stacked = [jnp.stack([keys[i] for i in group]) for group in groups.values()]
    numbers = [jnp.stack([counts[i] for i in group]) for group in groups.values()]
    segments = _Apart(stacked, [one.shape for one in numbers])
    wanted = jnp.concatenate([one.reshape(-1) for one in numbers])
    found = _select(stacked, segments, wanted)
    masks = {
        index: mask[position]
        for group, mask in zip(groups.values(), found, strict=True)
        for position, index in enumerate(group)
    }
    return [masks[index] for index in range(len(keys))]


def _unsigned(k: int | Integer[Array, "..."]) -> UInt[Array, "..."]:
    """As unsigned integers, up to 2**32 - 1; a negative number is none."""
    if isinstance(k, int):
        return jnp.asarray(min(max(k, 0), 2**32 - 1), jnp.uint32)
    return jnp.maximum(k, jnp.zeros_like(k)).astype(jnp.uint32)


def _same_width(keys: list[Array]) -> list[Array]:
    widest = max((key.dtype for key in keys), key=lambda d: d.itemsize, default=None)
    return [key.astype(widest) for key in keys]


class _Joint:
    """All arrays are ranked together: one threshold."""

    def __init__(self, keys):
        self.totals = [sum(key.size for key in keys)]
        sizes = [key.size for key in keys]
        self._before = [sum(sizes[:i]) for i in range(len(sizes))]

    def spread(self, values, keys):
        """Per-segment values, broadcastable against each array."""
        return [values[0]] * len(keys)

    def reduce(self, arrays, function, combine):
        """Reduces each array and combines what belongs to one segment."""
        return functools.reduce(combine, [function(a, None) for a in arrays]).reshape(1)

    def ranks(self, keys, one):
        return [
            _descending_rank(key.shape, 0, self.totals[0] - before, one)
            for key, before in zip(keys, self._before, strict=True)
        ]


class _Apart:
    """Each array, and each slice along its leading ``batch`` axes, has a threshold."""

    def __init__(self, keys, batches):
        self._batches = batches
        counts = [math.prod(batch) for batch in batches]
        self._starts = [sum(counts[:i]) for i in range(len(counts))]
        sizes = [
            math.prod(key.shape[len(batch) :])
            for key, batch in zip(keys, batches, strict=True)
        ]
        self._sizes = sizes
        self.totals = [
            size for size, n in zip(sizes, counts, strict=True) for _ in range(n)
        ]

    def spread(self, values, keys):
        spread = []
        for key, batch, start in zip(keys, self._batches, self._starts, strict=True):
            part = values[start : start + math.prod(batch)]
            spread.append(part.reshape(*batch, *(1,) * (key.ndim - len(batch))))
        return spread

    def reduce(self, arrays, function, combine):
        del combine
        parts = [
            function(array, tuple(range(len(batch), array.ndim))).reshape(-1)
            for array, batch in zip(arrays, self._batches, strict=True)
        ]
        return jnp.concatenate(parts)

    def ranks(self, keys, one):
        return [
            _descending_rank(key.shape, len(batch), total, one)
            for key, batch, total in zip(keys, self._batches, self._sizes, strict=True)
        ]


def _select(keys, segments, wanted):
    """Marks the ``wanted`` largest keys of every segment, ties to the lowest index."""
    if max(segments.totals) >= 2**32:
        raise ValueError(
            f"cannot rank {max(segments.totals)} entries at once; 2**32 - 1 is the "
            "most: rank per layer, or split the leaf along a stacked axis"
        )

    def reaching(thresholds):
        spread = segments.spread(thresholds, keys)
        return _count(segments, [k >= t for k, t in zip(keys, spread, strict=True)])

    smallest, largest = _bounds(segments, keys)
    threshold, reached = _search(
        reaching, wanted, smallest, largest, reaching(smallest)
    )
    at = segments.spread(threshold, keys)
    above = _count(segments, [key > t for key, t in zip(keys, at, strict=True)])

    # Ties: among the keys equal to the threshold the lowest indices win. Ranks that
    # count down turn "lowest index" into "largest key", so the same search decides;
    # where every tied key is wanted it is over before its first pass.
    def tied_reaching(thresholds):
        # The barrier keeps ranks and ties inside this pass: hoisted out of the loop
        # they would be arrays as large as the weights, even with nothing to search.
        thresholds, here, one = lax.optimization_barrier(
            (thresholds, threshold, jnp.ones((), jnp.uint32))
        )
        ranks = segments.ranks(keys, one)
        at = segments.spread(here, keys)
        rows = zip(keys, at, ranks, segments.spread(thresholds, keys), strict=True)
        return _count(segments, [(k == t) & (rank >= r) for k, t, rank, r in rows])

    totals = jnp.asarray(segments.totals, jnp.uint32)
    rank_threshold, _ = _search(
        tied_reaching,
        wanted - above,
        jnp.ones_like(totals),
        totals,
        reached - above,
    )
    none = segments.spread(wanted == 0, keys)
    from_rank = segments.spread(rank_threshold, keys)
    ranks = segments.ranks(keys, jnp.ones((), jnp.uint32))
    rows = zip(keys, at, ranks, from_rank, none, strict=True)
    return [~no & ((k > t) | ((k == t) & (rank >= r))) for k, t, rank, r, no in rows]


def exact_count(
    marks: Bool[Array, "..."], axis: tuple[int, ...] | None = None
) -> UInt[Array, "..."]:
    """Counts True entries over some axes (all if None), exactly below 2**32.

    Example:
      >>> import jax.numpy as jnp
      >>> exact_count(jnp.array([[True, False], [True, True]]), (1,)).tolist()
      [1, 2]
    """
    axes = range(marks.ndim) if axis is None else axis
    # The CPU backend sums floats several times faster than integers; up to 2**24 they
    # are as exact.
    small = math.prod(marks.shape[a] for a in axes) <= 2**24
    dtype = jnp.float32 if small else jnp.uint32
    return jnp.sum(marks, axis=axis, dtype=dtype).astype(jnp.uint32)


def _count(segments, marks) -> UInt[Array, " segments"]:
    return segments.reduce(marks, exact_count, jnp.add)


def _bounds(segments, keys):
    """Smallest eligible key and largest key of every segment."""
    dtype = keys[0].dtype
    bound = jnp.array(jnp.iinfo(dtype).max, dtype)

    def largest_of(key, axis):
        return jnp.max(key, axis=axis, initial=1)

    def smallest_of(key, axis):
        return jnp.min(jnp.where(key == 0, bound, key), axis=axis, initial=bound)

    largest = segments.reduce(keys, largest_of, jnp.maximum)
    smallest = segments.reduce(keys, smallest_of, jnp.minimum)
    return jnp.minimum(smallest, largest), largest


def _descending_rank(
    shape: tuple[int, ...], batch: int, first: int, one: UInt[Array, ""]
) -> UInt[Array, "..."]:
    """Distinct ranks, counting down by ``one`` from ``first`` after the batch axes.

    Built from one iota per axis, never by reshaping, so that shards stay where they
    are.
    """
    rank = jnp.full(shape, first, jnp.uint32)
    for axis in range(batch, len(shape)):
        stride = one * jnp.uint32(math.prod(shape[axis + 1 :]))
        rank = rank - stride * lax.broadcasted_iota(jnp.uint32, shape, axis)
    return rank


def _search(reaching, wanted, smallest, largest, count_smallest):
    """Finds per segment the largest threshold that ``wanted`` keys reach.

    Keeps brackets ``low < high`` with ``count(low) >= wanted > count(high)`` and probes
    them in turn by interpolating the counts and by bisection: interpolation finds
    smooth distributions in a few passes, bisection bounds the number of passes for any
    input. Where fewer than ``wanted`` keys are eligible the threshold is the smallest.

    Args:
      reaching: thresholds -> how many keys reach them.
      wanted: how many keys are to reach the threshold.
      smallest: a threshold that all eligible keys reach.
      largest: the largest key, or a bound on it.
      count_smallest: how many keys reach ``smallest``.

    Returns:
      The thresholds, and how many keys reach them.
    """
    dtype = smallest.dtype
    one = jnp.ones((), dtype)

    def unfinished(carry):
        low, high, count_low, _, _ = carry
        return jnp.any((count_low > wanted) & (high - low > one))

    def probe(carry):
        low, high, count_low, count_high, turn = carry
        width = high - low
        share = (count_low - wanted).astype(jnp.float32) / jnp.maximum(
            count_low - count_high, 1
        ).astype(jnp.float32)
        # float32 cannot hold 2**32 - 1: 0.99 keeps the product inside the unsigned
        # range, and the clip keeps the probe inside the bracket.
        step = (width.astype(jnp.float32) * jnp.minimum(share, 0.99)).astype(dtype)
        step = jnp.where(turn % 3 == 2, width // 2, step)
        middle = low + jnp.clip(step, one, width - one)
        count = reaching(middle)
        enough = count >= wanted
        return (
            jnp.where(enough, middle, low),
            jnp.where(enough, high, middle),
            jnp.where(enough, count, count_low),
            jnp.where(enough, count_high, count),
            turn + 1,
        )

    none = jnp.zeros_like(wanted)
    start = (smallest, largest + one, count_smallest, none, jnp.int32(0))
    low, _, count_low, _, _ = lax.while_loop(unfinished, probe, start)
    return low, count_low
