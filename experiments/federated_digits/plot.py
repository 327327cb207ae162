"""Accuracy against bytes, drawn from the same cells as the table."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.federated_digits.tables import NAMES, Cell
from sparsejax import plot_style

_COLOURS = {
    "dense": plot_style.INK,
    "static": plot_style.MUTED,
    "rigl": plot_style.SPARSE,
}


def draw(found: Sequence[Cell], path: pathlib.Path) -> None:
    """Writes the plot.

    Args:
      found: the cells to show.
      path: of the PNG file.
    """
    figure = plot_style.drawn(6.4, 4.0, lambda one: _draw(one.subplots(), found))
    plot_style.save(figure, path)


def _draw(axes: Any, found: Sequence[Cell]) -> None:
    for method, name in NAMES.items():
        shown = [cell for cell in found if cell.method == method]
        shown.sort(key=lambda cell: cell.sparsity)
        bytes_sent = [cell.download + cell.upload for cell in shown]
        axes.errorbar(
            bytes_sent,
            [cell.accuracy.mean for cell in shown],
            yerr=[float(np.nan_to_num(cell.accuracy.half_width)) for cell in shown],
            marker="o",
            markersize=4.5,
            linewidth=1.6,
            color=_COLOURS[method],
            label=name,
        )
        for cell, place in zip(shown, bytes_sent, strict=True):
            if cell.sparsity and method == "rigl":
                axes.annotate(
                    f"{100 * cell.sparsity:g} %",
                    (place, cell.accuracy.mean),
                    xytext=(0, 9),
                    textcoords="offset points",
                    ha="center",
                    color=plot_style.MUTED,
                )
    axes.set_xscale("log")
    ticks = [5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("kB per client and round, both ways")
    plot_style.titles(axes, "Test accuracy in %", "95 % intervals")
    plot_style.legend(axes)
