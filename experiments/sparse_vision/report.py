"""What the networks came to, as tables and as a plot."""

import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.digits_methods.tables import markdown
from experiments.records import interval
from experiments.sparse_vision.training import CONFIGS, Row
from sparsejax import plot_style


class Measure(NamedTuple):
    """A quality of networks.

    Attributes:
      field: of a row.
      title: as tables and plots call it.
      detail: what it is of.
    """

    field: str
    title: str
    detail: str


ACCURACY = Measure("score", "accuracy", "%, MobileNetV1")
AT_50 = Measure("score", "AP at 50 % overlap", "%, SSDLite")
MEAN = Measure("average_precision", "AP, mean over overlaps", "%, SSDLite")


def tables(rows: Sequence[Row]) -> str:
    """Of each network a table: a line per method, and the difference of the two.

    Args:
      rows: the trained networks, at least one.
    """
    parts = []
    for network, group in _networks(rows).items():
        measures = _measures(group)
        lines = [
            [
                network,
                *[f"{measure.title} in %" for measure in measures],
                "parameters",
                "FLOPs of an image",
                "bytes",
            ]
        ]
        for method, own in _methods(group).items():
            found = [str(interval(_values(own, measure))) for measure in measures]
            lines.append([_name(method, own), *found, *_costs(own)])
        if len(lines) == 3:
            dense, sparse = _methods(group).values()
            compared = [_difference(dense, sparse, measure) for measure in measures]
            lines.append(["difference, seed by seed", *compared, "", "", ""])
        parts.append(markdown(lines))
    return "\n".join(parts)


def _name(method: str, rows: Sequence[Row]) -> str:
    sparsity = statistics.mean(row.sparsity for row in rows)
    return f"{method}, {100 * sparsity:.0f} % sparse" if sparsity else method


def _costs(rows: Sequence[Row]) -> list[str]:
    # RigL leaves each layer its number of weights: these are the same for all seeds.
    first = rows[0]
    share = f" ({100 * first.flops_ratio:.1f} %)" if first.flops_ratio < 1 else ""
    return [
        f"{first.parameters:,}",
        f"{first.flops:,}{share}",
        f"{first.stored_bytes:,}",
    ]


def _difference(dense: Sequence[Row], sparse: Sequence[Row], measure: Measure) -> str:
    first, second = ({row.seed: row for row in group} for group in (dense, sparse))
    seeds = sorted(first.keys() & second.keys())
    found = interval(
        [
            100 * (getattr(second[s], measure.field) - getattr(first[s], measure.field))
            for s in seeds
        ]
    )
    return f"{found.mean:+.1f} ± {found.half_width:.1f}"


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes the plot: every measure, of each seed and in the mean.

    Args:
      rows: the trained networks, at least one.
      path: of the PNG file.
    """
    panels = [
        (measure, group)
        for group in _networks(rows).values()
        for measure in _measures(group)
    ]

    def fill(figure: Any) -> None:
        together = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, group) in zip(together, panels, strict=True):
            _draw(axes, measure, _methods(group))

    figure = plot_style.drawn(3.1 * len(panels), 3.7, fill)
    figure.get_layout_engine().set(w_pad=0.12)
    plot_style.save(figure, path)


def _draw(axes: Any, measure: Measure, methods: dict[str, list[Row]]) -> None:
    colours = {"dense": plot_style.MUTED, "RigL": plot_style.SPARSE}
    for seed in sorted({row.seed for rows in methods.values() for row in rows}):
        heights = [
            [100 * getattr(row, measure.field) for row in rows if row.seed == seed]
            for rows in methods.values()
        ]
        if all(heights):
            line = [height for [height] in heights]
            axes.plot(range(len(line)), line, color=plot_style.DENSE, zorder=1)
    for place, (method, rows) in enumerate(methods.items()):
        values, colour = _values(rows, measure), colours[method]
        axes.scatter([place] * len(values), values, s=14, color=colour, alpha=0.6)
        mean, half = interval(values)
        aside = place + (0.16 if place else -0.16)
        if len(values) > 2:  # of two seeds it is too wide to show anything
            ends = (max(mean - half, 0), min(mean + half, 100))
            axes.vlines(aside, *ends, color=colour, linewidth=1.6)
        axes.plot(aside, mean, marker="o", markersize=6, color=colour)
        axes.annotate(
            f"{mean:.1f}",
            (aside, mean),
            xytext=(7 if place else -7, 0),
            textcoords="offset points",
            ha="left" if place else "right",
            va="center",
            color=colour,
        )
    axes.set_xlim(-0.65, len(methods) - 0.35)
    names = [
        f"{_name(method, rows)}\n{plot_style.short(rows[0].flops)}FLOPs"
        for method, rows in methods.items()
    ]
    axes.set_xticks(range(len(methods)), names)
    axes.grid(axis="x", visible=False)
    title = measure.title[0].upper() + measure.title[1:]
    plot_style.titles(axes, title, measure.detail)


def _networks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (tuple(CONFIGS).index(row.config), row)):
        found.setdefault(CONFIGS[row.config].network, []).append(row)
    return found


def _methods(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(CONFIGS[row.config].method, []).append(row)
    return found


def _measures(rows: Sequence[Row]) -> tuple[Measure, ...]:
    return (ACCURACY,) if math.isnan(rows[0].average_precision) else (AT_50, MEAN)


def _values(rows: Sequence[Row], measure: Measure) -> list[float]:
    return [100 * getattr(row, measure.field) for row in rows]
