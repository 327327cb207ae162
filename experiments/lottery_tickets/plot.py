"""Accuracy against the weights that are left, drawn from the rows of the table."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lottery_tickets.settings import BRANCHES, Row
from experiments.lottery_tickets.tables import accuracies, shares
from experiments.records import interval
from sparsejax import plot_style

_COLOURS = {
    "weights": plot_style.SPARSE,
    "rate": plot_style.GROWN,
    "random": plot_style.DROPPED,
}


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes the plot.

    Args:
      rows: the networks to show.
      path: of the PNG file.
    """
    figure = plot_style.drawn(6.4, 4.0, lambda figure: _draw(figure.subplots(), rows))
    plot_style.save(figure, path)


def _draw(axes: Any, rows: Sequence[Row]) -> None:
    found, left = accuracies(rows), shares(rows)
    dense = interval(found["dense", 0])
    half = float(np.nan_to_num(dense.half_width))
    low, high = dense.mean - half, dense.mean + half
    axes.axhspan(low, high, color=plot_style.DENSE, alpha=0.6, linewidth=0)
    axes.axhline(dense.mean, color=plot_style.INK, linewidth=1)
    style = {"ha": "left", "color": plot_style.INK, "fontsize": 9.5}
    plot_style.beside(axes, dense.mean, 8, "dense", **style)
    for branch, title in BRANCHES.items():
        numbers = [number for name, number in found if name == branch]
        means = [interval(found[branch, number]) for number in numbers]
        axes.errorbar(
            [left[number] for number in numbers],
            [one.mean for one in means],
            yerr=[float(np.nan_to_num(one.half_width)) for one in means],
            color=_COLOURS[branch],
            marker="o",
            markersize=4,
            linewidth=1.6,
            label=title,
        )
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = [tick for tick in (80, 50, 20, 10, 5, 2, 1) if tick >= min(left.values())]
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("weights left")
    plot_style.titles(axes, "Test accuracy on the digits", "%, 95 % intervals")
    plot_style.legend(axes)
