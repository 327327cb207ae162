"""Exact top-k masks by threshold search: no sort, no gather, k may be traced.

Every score becomes an unsigned integer whose order is the order of the scores. The
k-th largest key is then found by a bracketing search that only ever *counts* how many
keys reach a threshold, so that a leaf sharded over devices exchanges counts and
nothing else, and a ranking over many leaves never concatenates them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Num, PyTree, UInt

__all__ = ["order_key", "top_k_mask"]


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
        excluded = jnp.isnan(wide) | (wide == -jnp.inf)
        key = jnp.where(excluded, jnp.zeros_like(key), key)
    else:
        raise TypeError(
            f"scores have dtype {scores.dtype}; use a float or unsigned integer dtype"
        )
    return key if where is None else jnp.where(where, key, jnp.zeros_like(key))


def top_k_mask(
    scores: PyTree[Num[Array, "..."]],
    k: int | Int[Array, ""],
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
      k: how many entries to select, 0 or more; may be traced.
      where: entries that may be selected, like ``scores``; all of them if None.

    Returns:
      Bool arrays in the structure of ``scores``.

    Example:
      >>> import jax.numpy as jnp
      >>> top_k_mask(jnp.array([0.3, 0.9, 0.3, 0.1]), 2).tolist()
      [True, True, False, False]
    """
    leaves, treedef = jax.tree.flatten(scores)
    if where is None:
        eligible = [None] * len(leaves)
    else:
        eligible = treedef.flatten_up_to(where)
    keys = [order_key(leaf, mask) for leaf, mask in zip(leaves, eligible, strict=True)]
    if not keys:
        return scores
    widest = max((key.dtype for key in keys), key=lambda dtype: dtype.itemsize)
    keys = [key.astype(widest) for key in keys]
    wanted = jnp.maximum(jnp.asarray(k, jnp.int32), 0).astype(jnp.uint32)

    threshold, reached = _search(keys, wanted)
    above = _count([key > threshold for key in keys])
    # Ties: among the keys equal to the threshold the lowest indices win. Counting down
    # from the end turns "lowest index" into "largest key", so the same search decides.
    ranks = _descending_ranks(keys)
    zero = jnp.zeros((), jnp.uint32)
    tied = [
        jnp.where(key == threshold, rank, zero)
        for key, rank in zip(keys, ranks, strict=True)
    ]
    surplus = reached > wanted
    rank_threshold, _ = lax.cond(
        surplus,
        lambda tied: _search(tied, wanted - above),
        lambda tied: (jnp.ones((), jnp.uint32), reached),
        tied,
    )
    masks = [
        (wanted > 0) & ((key > threshold) | (rank >= rank_threshold))
        for key, rank in zip(keys, tied, strict=True)
    ]
    return jax.tree.unflatten(treedef, masks)


def _count(marks: Sequence[Bool[Array, "..."]]) -> UInt[Array, ""]:
    total = jnp.zeros((), jnp.uint32)
    for mark in marks:
        total = total + jnp.sum(mark, dtype=jnp.uint32)
    return total


def _descending_ranks(keys: Sequence[Array]) -> list[UInt[Array, "..."]]:
    """Distinct uint32 ranks over all entries, largest at the first flat index.

    Built from one iota per axis, never by reshaping, so that shards stay where they
    are.
    """
    total = sum(key.size for key in keys)
    if total >= 2**32:
        raise ValueError(
            f"cannot rank {total} entries at once; 2**32 - 1 is the most: "
            "rank per layer, or split the leaf along a stacked axis"
        )
    ranks, before = [], 0
    for key in keys:
        rank = jnp.full(key.shape, total - before, jnp.uint32)
        for axis in range(key.ndim):
            stride = jnp.uint32(math.prod(key.shape[axis + 1 :]))
            rank = rank - stride * lax.broadcasted_iota(jnp.uint32, key.shape, axis)
        ranks.append(rank)
        before += key.size
    return ranks


def _search(
    keys: Sequence[UInt[Array, "..."]], wanted: UInt[Array, ""]
) -> tuple[UInt[Array, ""], UInt[Array, ""]]:
    """Finds the k-th largest key and how many keys reach it.

    Keeps a bracket ``low < high`` with ``count(low) >= wanted > count(high)`` and
    probes it in turn by interpolating the counts and by bisection: interpolation finds
    smooth distributions in a few passes, bisection bounds the number of passes for any
    input. Where fewer than ``wanted`` keys are eligible the threshold is the smallest
    eligible key.
    """
    dtype = keys[0].dtype
    one, bound = jnp.ones((), dtype), jnp.array(jnp.iinfo(dtype).max, dtype)
    largest, smallest = one, bound
    for key in keys:
        eligible = jnp.where(key == 0, bound, key)
        largest = jnp.maximum(largest, jnp.max(key, initial=1))
        smallest = jnp.minimum(smallest, jnp.min(eligible, initial=bound))
    smallest = jnp.minimum(smallest, largest)
    count_all = _count([key >= smallest for key in keys])

    def unfinished(carry):
        low, high, count_low, _, _ = carry
        return (count_low > wanted) & (high - low > one)

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
        count = _count([key >= middle for key in keys])
        enough = count >= wanted
        return (
            jnp.where(enough, middle, low),
            jnp.where(enough, high, middle),
            jnp.where(enough, count, count_low),
            jnp.where(enough, count_high, count),
            turn + 1,
        )

    none = jnp.zeros((), jnp.uint32)
    start = (smallest, largest + one, count_all, none, jnp.int32(0))
    low, _, count_low, _, _ = lax.while_loop(unfinished, probe, start)
    return low, count_low
