"""Bytes that hold the parameters of a sparse network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparsejax.cost.records import StoredBytes
from sparsejax.graph import Use

__all__ = ["stored_bytes"]

# Libraries for compressed rows index by 32-bit integers.
_INDEX = 4


def stored_bytes(
    leaves: dict[str, Any], active: dict[str, int], found: tuple[Use, ...]
) -> StoredBytes:
    """Counts every form in which the leaves can be stored.

    Args:
      leaves: path to array or `jax.ShapeDtypeStruct`.
      active: path to active entries, of masked leaves.
      found: the uses of the leaves, which say what their fan-in is.

    Returns:
      The bytes.
    """
    fan_in = {use.path: use.weights_per_output for use in found}
    dense = masks = packed = condensed = csr = 0
    for path, leaf in leaves.items():
        size, width = math.prod(leaf.shape), np.dtype(leaf.dtype).itemsize
        dense += size * width
        if path not in active:
            condensed += size * width
            csr += size * width
            continue
        masks += size
        packed += -(-size // 8)
        inputs = fan_in.get(path, size // leaf.shape[-1] if leaf.shape else 1)
        pair = width + np.min_scalar_type(max(inputs - 1, 0)).itemsize
        condensed += min(size * width, active[path] * pair)
        rows = _INDEX * (size // inputs + 1)
        csr += min(size * width, active[path] * (width + _INDEX) + rows)
    return StoredBytes(dense, dense + masks, dense + packed, condensed, csr)
