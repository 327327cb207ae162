"""The cost of a network as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

import rich.box
import rich.console
import rich.table

from sparsejax.cost import Cost, Number

__all__ = ["print_cost"]

# Wide enough for the longest rows where there is no terminal to ask.
_WIDTH = 150


def print_cost(
    cost: Cost, title: str, *, remarks: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Prints a table of the layers and one of the totals.

    Args:
      cost: what to print.
      title: stands above the layers.
      remarks: printed last.
      stream: where to; default standard output.

    Example:
      >>> import io, jax, jax.numpy as jnp, sparsejax as sj
      >>> image = jax.ShapeDtypeStruct((1, 4), "float32")
      >>> report = sj.cost(lambda w, x: x @ w, jnp.ones((4, 8)), None, image)
      >>> print_cost(report, "a layer", stream=io.StringIO())
    """
    console = rich.console.Console(file=stream)
    if not console.is_terminal:
        console = rich.console.Console(file=stream, width=_WIDTH)
    console.print(_layers(cost, title))
    console.print(_totals(cost))
    for remark in remarks:
        console.print(remark, highlight=False, markup=False)


def _layers(cost: Cost, title: str) -> rich.table.Table:
    table = rich.table.Table(
        title=title, title_justify="left", show_footer=True, box=rich.box.SIMPLE_HEAD
    )
    rows = cost.layers
    sums = [sum(getattr(row, field) for row in rows) for field in ("weights", "active")]
    table.add_column("layer", f"{len(rows)} layers", overflow="fold")
    table.add_column("shape", no_wrap=True)
    for heading, footer in (
        ("weights", f"{sums[0]:,}"),
        ("active", f"{sums[1]:,}"),
        ("density", _percent(sums[1], sums[0])),
        ("MACs", _count(cost.dense_macs)),
        ("sparse MACs", _count(cost.sparse_macs)),
        ("FLOPs", _count(cost.dense_flops)),
        ("sparse FLOPs", _count(cost.sparse_flops)),
    ):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.path,
            "x".join(map(str, row.shape)),
            f"{row.weights:,}",
            f"{row.active:,}",
            _percent(row.active, row.weights),
            *map(_count, (row.dense_macs, row.sparse_macs)),
            *map(_count, (row.dense_flops, row.sparse_flops)),
        )
    if cost.unattributed_flops:
        free = _count(cost.unattributed_flops)
        cells = [""] * 4
        table.add_row("(no weights)", *cells, "", "", free, free)
    return table


def _totals(cost: Cost) -> rich.table.Table:
    headings = ("", "dense", "sparse", "ratio")
    table = rich.table.Table(*headings, box=rich.box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, dense, sparse in (
        ("parameters", cost.parameters, cost.active_parameters),
        ("MACs per example", cost.dense_macs, cost.sparse_macs),
        (f"FLOPs per example ({cost.mode})", cost.dense_flops, cost.sparse_flops),
        (
            "FLOPs per example and training step",
            cost.training.dense_flops,
            cost.training.flops,
        ),
    ):
        table.add_row(name, _count(dense), _count(sparse), _percent(sparse, dense))
    stored = cost.stored_bytes
    for form, size in (
        ("dense + 1-byte masks", stored.masked),
        ("dense + 1-bit masks", stored.packed),
        ("values + indices", stored.condensed),
        ("compressed sparse rows", stored.csr),
    ):
        cells = (f"{stored.dense:,}", f"{size:,}", _percent(size, stored.dense))
        table.add_row(f"bytes, {form}", *cells)
    activations = cost.activation_bytes
    for name, size in (
        ("at most at once", activations.peak),
        ("kept for the backward pass", activations.kept),
    ):
        table.add_row(f"activation bytes per example, {name}", _count(size), "", "")
    return table


def _count(value: Number) -> str:
    return f"{round(value):,}"


def _percent(part: Number, whole: Number) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""
