"""What the networks took, as tables and as a plot."""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.always_sparse.training import Row
from experiments.digits_methods.tables import markdown
from experiments.records import interval
from sparsejax import plot_style


def tables(rows: Sequence[Row], wide: Sequence[int], narrow: Sequence[int]) -> str:
    """Memory and time of wide networks; accuracy of narrow ones, both kinds.

    Args:
      rows: the networks.
      wide: widths of the first table.
      narrow: widths of the second.
    """
    lines = [
        [
            "width",
            "weights in both layers",
            "dense they would be",
            "peak of the process",
            "step",
            "step with a move",
            "accuracy in %",
        ]
    ]
    for row in sorted(rows, key=lambda row: row.width):
        if row.width in wide:
            lines.append(
                [
                    f"{row.width:,}",
                    f"{row.weights:,}",
                    f"{8 * row.width**2 / 2**30:.2f} GiB",
                    f"{row.peak / 2**30:.2f} GiB",
                    f"{row.step:.3f} s",
                    f"{row.move:.2f} s",
                    f"{100 * row.accuracy:.1f}",
                ]
            )
    text = markdown(lines)
    lines = [["width", "compressed", "masks over dense weights"]]
    for width in narrow:
        shown = [
            [100 * r.accuracy for r in rows if r.width == width and r.kind == kind]
            for kind in ("compressed", "masked")
        ]
        if all(shown):
            lines.append([f"{width:,}", *[str(interval(one)) for one in shown]])
    return text + ("\n" + markdown(lines) if len(lines) > 1 else "")


def draw(rows: Sequence[Row], output: pathlib.Path) -> None:
    """Writes plot.png: peak memory and time of a step against the number of weights.

    Args:
      rows: the wide networks.
      output: folder to write to.
    """
    rows = sorted(rows, key=lambda row: row.weights)
    if not rows:
        return

    def fill(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        weights = [row.weights / 1e6 for row in rows]
        _line(left, weights, [row.peak / 2**30 for row in rows])
        plot_style.titles(left, "Peak memory of training", "GiB, the whole process")
        _line(right, weights, [row.step for row in rows])
        plot_style.titles(right, "Time of a training step", "seconds, median")

    plot_style.save(plot_style.drawn(7.4, 3.4, fill), output / "plot.png")


def _line(axes: Any, weights: Sequence[float], heights: Sequence[float]) -> None:
    axes.plot(weights, heights, marker="o", color=plot_style.SPARSE)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("weights in millions")
