"""Means over the seeds, differences to the small dense network, and a plot of them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments import records
from experiments.stdlib_lm.settings import Cell
from experiments.stdlib_lm.training import Row
from sparsejax import plot_style

TITLES = {
    "dense": "dense",
    "small dense": "small dense",
    "static": "static",
    "set": "SET",
    "rigl": "RigL",
    "magnitude": "gradual pruning",
}
COLOURS = {
    "small dense": plot_style.DROPPED,
    "static": plot_style.MUTED,
    "set": plot_style.OVERHEAD,
    "rigl": plot_style.SPARSE,
    "magnitude": plot_style.GROWN,
}


def of(rows: Sequence[Row], cell: Cell) -> list[float]:
    """The bits per byte of a cell's networks, by seed.

    Args:
      rows: of the study.
      cell: one of its networks.
    """
    found = [row for row in rows if row[:3] == cell]
    return [row.bits_per_byte for row in sorted(found, key=lambda row: row.seed)]


def table(rows: Sequence[Row], cells: Sequence[Cell], references: Any) -> str:
    """The results in Markdown.

    Args:
      rows: of the study.
      cells: its networks, in order.
      references: bits per byte without a network, by their names.
    """
    lines = [
        "| network | sparsity | optimizer | parameters | bits per byte | "
        "less than small dense |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        values = of(rows, cell)
        if not values:
            continue
        parameters = next(row.parameters for row in rows if row[:3] == cell)
        small = of(rows, Cell("small dense", cell.sparsity, "adamw"))
        sparsity = f"{100 * cell.sparsity:g} %" if cell.sparsity else "-"
        mean = records.interval(values)
        shown = f"{mean.mean:.3f}"
        if len(values) > 1:
            shown += f" ± {mean.half_width:.3f}"
        lines.append(
            f"| {TITLES[cell.method]} | {sparsity} | {_optimizer(cell)} | "
            f"{parameters:,} | {shown} | {_difference(small, values, cell)} |"
        )
    lines += [
        f"| {name.replace('_', ' ')} | | | | {value:.3f} | |"
        for name, value in references.items()
    ]
    counts = sorted({len(of(rows, cell)) for cell in cells} - {0})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    seeds += " seed" if seeds == "1" else " seeds"
    steps = sorted({row.steps for row in rows})
    corpora = ", ".join(sorted({row.corpus for row in rows}))
    lines += [
        "",
        f"{seeds} of {', '.join(map(str, steps))} steps; mean and half of its "
        f"95 % interval by Student's t. Corpus: {corpora}.",
        "",
    ]
    return "\n".join(lines)


def _optimizer(cell: Cell) -> str:
    return "growth-safe adamw" if cell.optimizer == "safe" else "adamw"


def _difference(small: Sequence[float], values: Sequence[float], cell: Cell) -> str:
    if not cell.sparsity or cell.method == "small dense" or not small:
        return ""
    less = f"{np.mean(small) - np.mean(values):+.3f}"
    if min(len(small), len(values)) < 2:
        return less
    p = stats.ttest_ind(small, values, equal_var=False).pvalue
    return f"{less} (p = {p:.1g})"


def draw(rows: Sequence[Row], references: Any, path: pathlib.Path) -> None:
    """Bits per byte against sparsity, one line for each method.

    Args:
      rows: of the study.
      references: as for `table`.
      path: of the PNG file.
    """

    def onto(figure: Any) -> None:
        axes = figure.subplots()
        sparsities = sorted({row.sparsity for row in rows} - {0.0})
        names = [name for name in TITLES if any(row.method == name for row in rows)]
        for shift, name in enumerate(n for n in names if n != "dense"):
            found = [
                (place + 0.03 * (shift - 2), of(rows, Cell(name, sparsity, "adamw")))
                for place, sparsity in enumerate(sparsities)
            ]
            found = [(place, values) for place, values in found if values]
            means = [np.mean(values) for _, values in found]
            style = {"color": COLOURS[name], "linewidth": 1.8, "label": TITLES[name]}
            axes.plot([place for place, _ in found], means, marker="o", **style)
            for place, values in found:
                axes.vlines(place, min(values), max(values), color=COLOURS[name])
        dense = of(rows, Cell("dense", 0.0, "adamw"))
        if dense:
            axes.axhline(np.mean(dense), color=plot_style.EVALUATION, label="dense")
        gzip = references["gzip_bits_per_byte"]
        axes.axhline(gzip, color=plot_style.MUTED, linestyle=":", label="gzip -9")
        axes.set_xticks(range(len(sparsities)), [f"{100 * s:g} %" for s in sparsities])
        axes.set_xlim(-0.25, len(sparsities) - 0.75)
        axes.set_xlabel("sparsity")
        plot_style.titles(
            axes,
            "Held-out source of Python's standard library",
            "bits per byte, mean and range of the seeds; lower is better",
        )
        axes.legend(loc="center", ncols=2, frameon=False, fontsize=8)

    plot_style.save(plot_style.drawn(6.4, 4.2, onto), path)
