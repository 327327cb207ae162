"""Accuracy under each optimizer, drawn from the same rows as the table."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.growth_safe.settings import OPTIMIZERS, Row
from experiments.growth_safe.tables import groups, title
from experiments.records import interval
from sparsejax import plot_style

_COLOURS = {
    "adam": plot_style.DROPPED,
    "ages": plot_style.SPARSE,
    "warm-up": plot_style.GROWN,
}


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes the plot.

    Args:
      rows: the networks to show.
      path: of the PNG file.
    """
    height = 1.2 + 0.42 * len(groups(rows))
    figure = plot_style.drawn(
        6.4, height, lambda figure: _draw(figure.subplots(), rows)
    )
    plot_style.save(figure, path)


def _draw(axes: Any, rows: Sequence[Row]) -> None:
    found = groups(rows)
    for index, (name, label) in enumerate(OPTIMIZERS.items()):
        shown = [
            (place, interval(list(group[name].values())))
            for place, group in enumerate(found.values())
            if name in group
        ]
        aside = 0.2 * (index - 1)
        heights = [place + aside for place, _ in shown]
        halves = [float(np.nan_to_num(one.half_width)) for _, one in shown]
        axes.errorbar(
            [one.mean for _, one in shown],
            heights,
            xerr=halves,
            fmt="o",
            markersize=4.5,
            linewidth=1.6,
            color=_COLOURS[name],
            label=label,
        )
    axes.set_yticks(range(len(found)), [title(group) for group in found])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test accuracy in %")
    axes.set_ylabel("method, sparsity, move every, rate", labelpad=8)
    plot_style.titles(axes, "Test accuracy on the digits", "95 % intervals")
    plot_style.legend(axes)
