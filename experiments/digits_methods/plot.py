"""Accuracy against sparsity, drawn from the same cells as the table."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.digits_methods.settings import SETTINGS
from experiments.digits_methods.tables import Cell
from sparsejax import plot_style

_COLOURS = {
    "static": plot_style.MUTED,
    "set": plot_style.OVERHEAD,
    "rigl": plot_style.SPARSE,
    "magnitude": plot_style.GROWN,
}
_OTHERS = (plot_style.DROPPED, plot_style.EVALUATION, "#7b5ea7", "#8a6d4f")
_TICKS = (20, 40, 60, 70, 80, 90, 95, 98, 99, 99.5)
# Accuracies are cut here: on a scale of errors there is no place for 100 %.
_LOWEST, _HIGHEST = 5.0, 99.7

Label = tuple[float, str, str]
"""Accuracy that it belongs to, text and colour."""


def draw(found: Sequence[Cell], path: pathlib.Path) -> None:
    """Writes the plot.

    Args:
      found: the cells to show.
      path: of the PNG file.
    """
    figure = plot_style.drawn(6.4, 4.4, lambda figure: _draw(figure.subplots(), found))
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    plot_style.save(figure, path)


def _draw(axes: Any, found: Sequence[Cell]) -> None:
    sparse = [cell for cell in found if cell.sparsity > 0]
    places = {s: i for i, s in enumerate(sorted({cell.sparsity for cell in sparse}))}
    dense = [cell for cell in found if cell.sparsity == 0]
    labels = [*_draw_dense(axes, dense), *_draw_sparse(axes, sparse, places)]

    lows, highs = zip(*[_ends(cell) for cell in found], strict=True)
    axes.set_yscale("function", functions=(_position, _accuracy))
    axes.set_ylim(min(lows) - 0.15 * (100 - min(lows)), 100 - 0.8 * (100 - max(highs)))
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in _TICKS if low < tick < high])
    axes.set_xlim(-0.3, max(len(places) - 1, 0) + 0.3)
    axes.set_xticks(list(places.values()), [f"{100 * s:g} %" for s in places])
    axes.set_xlabel("sparsity")
    axes.grid(axis="x", visible=False)
    plot_style.titles(
        axes,
        "Test accuracy on the digits",
        "%, mean and 95 % interval of the mean; the scale is logarithmic in the errors",
    )
    for height, text, colour in _apart(labels, axes):
        plot_style.beside(axes, height, 8, text, ha="left", color=colour, fontsize=9.5)


def _draw_dense(axes: Any, dense: Sequence[Cell]) -> Iterator[Label]:
    for cell in dense:
        low, high = _ends(cell)
        axes.axhspan(low, high, color=plot_style.DENSE, alpha=0.6, linewidth=0)
        axes.axhline(_cut(cell.mean), color=plot_style.INK, linewidth=1)
        yield _cut(cell.mean), SETTINGS[cell.method].title, plot_style.INK


def _draw_sparse(
    axes: Any, sparse: Sequence[Cell], places: dict[float, int]
) -> Iterator[Label]:
    methods = list(dict.fromkeys(cell.method for cell in sparse))
    spare = iter(_OTHERS * len(methods))
    for index, method in enumerate(methods):
        colour = _COLOURS.get(method) or next(spare)
        cells = [cell for cell in sparse if cell.method == method]
        cells.sort(key=lambda cell: cell.sparsity)
        # Side by side, so that no interval hides another.
        aside = 0.05 * (index - (len(methods) - 1) / 2)
        across = [places[cell.sparsity] + aside for cell in cells]
        means = [_cut(cell.mean) for cell in cells]
        lows, highs = zip(*[_ends(cell) for cell in cells], strict=True)
        style = {"color": colour, "linewidth": 1.6}
        axes.plot(across, means, marker="o", markersize=4.5, **style)
        axes.vlines(across, lows, highs, **style)
        yield means[-1], SETTINGS[method].title, colour


def _ends(cell: Cell) -> tuple[float, float]:
    half = float(np.nan_to_num(cell.interval.half_width))
    return _cut(cell.mean - half), _cut(cell.mean + half)


def _cut(accuracy: float) -> float:
    return min(max(accuracy, _LOWEST), _HIGHEST)


def _position(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(100 - accuracy, 1e-3))


def _accuracy(position: np.ndarray) -> np.ndarray:
    return 100 - 10.0 ** -np.asarray(position)


def _apart(labels: Sequence[Label], axes: Any) -> Iterator[Label]:
    """Moves labels up where they would touch the one below."""
    low, high = _position(np.array(axes.get_ylim()))
    gap, previous = 0.06 * (high - low), -np.inf
    for accuracy, text, colour in sorted(labels):
        previous = max(_position(np.array(accuracy)), previous + gap)
        yield float(_accuracy(previous)), text, colour
