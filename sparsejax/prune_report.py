"""What a pruned network has left, matrix by matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from sparsejax.layers import Layout, leaves_with_paths


def share(masks: PyTree) -> float:
    """The fraction of zeros in all masks together."""
    leaves = jax.tree.leaves(masks)
    kept = sum(int(jnp.sum(mask)) for mask in leaves)
    return 1 - kept / sum(mask.size for mask in leaves)


def rows(masks: PyTree, layout: Layout) -> list[dict[str, Any]]:
    """A row for every matrix, those that are stacked in a leaf one by one."""
    rows = []
    for path, mask in leaves_with_paths(masks):
        depth = len(layout(path, mask.shape).stacked)
        slices = mask.reshape(-1, *mask.shape[depth:])
        for index, one in enumerate(slices):
            kept, size = int(jnp.sum(one)), one.size
            row = {"path": path, "shape": list(one.shape), "kept": kept, "size": size}
            if depth:
                row["index"] = index
            rows.append({**row, "sparsity": 1 - kept / size})
    return rows


def table(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table of what `rows` found."""
    rows = [("matrix", "shape", "kept", "of", "sparsity")]
    for layer in layers:
        index = f" {layer['index']}" if "index" in layer else ""
        shape = "x".join(map(str, layer["shape"]))
        kept, size = f"{layer['kept']:,}", f"{layer['size']:,}"
        rows.append(
            (layer["path"] + index, shape, kept, size, f"{layer['sparsity']:.4f}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
