"""Accuracy against sparsity, drawn from the same cells as the table."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.digits_methods.tables import NAMES, Cell
from sparsejax import plot_style

_COLOURS = {
    "static": plot_style.MUTED,
    "set": plot_style.OVERHEAD,
    "rigl": plot_style.SPARSE,
    "magnitude": plot_style.GROWN,
}
_OTHERS = (plot_style.DROPPED, plot_style.EVALUATION, "#7b5ea7", "#8a6d4f")
_TICKS = (50, 60, 70, 80, 90, 95, 98, 99)
# Of the vertical axis: beyond them accuracies are drawn at the edge.
_LOWEST, _HIGHEST = 10.0, 99.5


def draw(found: Sequence[Cell], path: pathlib.Path) -> None:
    """Writes the plot.

    Args:
      found: the cells to show.
      path: of the PNG file.
    """
    figure = plot_style.drawn(6.4, 4.4, lambda figure: _draw(figure, found))
    plot_style.save(figure, path)


def _draw(figure: Any, found: Sequence[Cell]) -> None:
    axes = figure.subplots()
    sparse = [cell for cell in found if cell.sparsity > 0]
    places = {s: i for i, s in enumerate(sorted({cell.sparsity for cell in sparse}))}
    ends = []
    for cell in found:
        if cell.sparsity == 0:
            low, high = _ends(cell)
            axes.axhspan(low, high, color=plot_style.DENSE, linewidth=0)
            axes.axhline(cell.mean, color=plot_style.INK, linewidth=1)
            label = NAMES.get(cell.method, cell.method)
            ends.append((cell.mean, label, plot_style.INK))
    methods = list(dict.fromkeys(cell.method for cell in sparse))
    spare = iter(_OTHERS * len(methods))
    for index, method in enumerate(methods):
        colour = _COLOURS.get(method) or next(spare)
        own = sorted(
            (cell for cell in sparse if cell.method == method),
            key=lambda cell: cell.sparsity,
        )
        # Side by side, so that no interval hides another.
        aside = 0.05 * (index - (len(methods) - 1) / 2)
        across = [places[cell.sparsity] + aside for cell in own]
        means = [cell.mean for cell in own]
        spans = [_ends(cell) for cell in own]
        axes.plot(
            across, means, color=colour, linewidth=1.6, marker="o", markersize=4.5
        )
        axes.vlines(across, *zip(*spans, strict=True), color=colour, linewidth=1.6)
        ends.append((own[-1].mean, NAMES.get(method, method), colour))

    lowest = min([_ends(cell)[0] for cell in found], default=90.0)
    axes.set_yscale("function", functions=(_from_accuracy, _to_accuracy))
    axes.set_ylim(max(lowest - 3, _LOWEST), _HIGHEST)
    axes.set_yticks([tick for tick in _TICKS if tick >= lowest - 3])
    axes.set_xlim(-0.3, max(len(places) - 1, 0) + 0.3)
    axes.set_xticks(list(places.values()), [f"{100 * s:g} %" for s in places])
    axes.set_xlabel("sparsity")
    axes.grid(axis="x", visible=False)
    plot_style.titles(
        axes,
        "Test accuracy on the digits",
        "%, mean and 95 % interval of the mean; the scale is logarithmic in the errors",
    )
    for height, label, colour in _apart(ends, axes):
        plot_style.beside(axes, height, 8, label, ha="left", color=colour, fontsize=9.5)


def _ends(cell: Cell) -> tuple[float, float]:
    half = np.nan_to_num(cell.half_width)
    low, high = np.clip([cell.mean - half, cell.mean + half], _LOWEST, _HIGHEST)
    return float(low), float(high)


def _from_accuracy(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(100 - accuracy, 1e-3))


def _to_accuracy(position: np.ndarray) -> np.ndarray:
    return 100 - 10.0 ** -np.asarray(position)


def _apart(
    labels: Sequence[tuple[float, str, str]], axes: Any
) -> list[tuple[float, str, str]]:
    """Moves labels up where they would touch the one below."""
    low, high = _from_accuracy(np.array(axes.get_ylim()))
    gap, previous, placed = 0.05 * (high - low), -np.inf, []
    for accuracy, label, colour in sorted(labels):
        previous = max(_from_accuracy(np.array(accuracy)), previous + gap)
        placed.append((float(_to_accuracy(previous)), label, colour))
    return placed
