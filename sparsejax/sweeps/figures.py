"""The plots of a sweep: curves of means, and what each setting reaches at its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.extras import require
from sparsejax.plot_style import FULL, HALF, INK, MUTED, drawn, steps_axis, tick, titles
from sparsejax.sweeps.comparisons import Interval, bootstrap, pareto
from sparsejax.sweeps.results import Result, grouped, more_is_better

_COLOURS = (
    "#2b6cb0",
    "#dd7a1f",
    "#2a8c7f",
    "#c2513f",
    "#7b5aa6",
    "#c99a3b",
    "#5a7d2a",
    "#b0508f",
    "#3f9bbf",
    "#667382",
)
_MARKERS = "osD^vP*X<>"
_MOST_PANELS = 12


class Point(NamedTuple):
    """A setting in the plots.

    Attributes:
      label: All its settings.
      series: What it has its colour by.
      value: Mean and interval over its seeds.
      costs: Their means.
    """

    label: str
    series: str
    value: Interval
    costs: Mapping[str, float]


def points(results: Sequence[Result], metric: str) -> list[Point]:
    """Takes means over seeds.

    Args:
      results: The runs.
      metric: Of their last evaluations.

    Returns:
      One point per setting.
    """
    made = []
    for label, group in grouped(results).items():
        names = set.intersection(*(set(result.costs) for result in group))
        costs = {n: float(np.mean([r.costs[n] for r in group])) for n in sorted(names)}
        value = bootstrap([result.metrics[metric] for result in group])
        made.append(Point(label, group[0].series, value, costs))
    return made


def colours(results: Sequence[Result]) -> dict[str, str]:
    """Gives each series a colour; from the eleventh on they repeat.

    Args:
      results: The runs.

    Returns:
      Series to colour.
    """
    names = dict.fromkeys(result.series for result in results)
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def curves(results: Sequence[Result], metric: str) -> Any:
    """Draws the metric over the steps: means, and bands from worst to best seed.

    Args:
      results: The runs.
      metric: Of their evaluations.

    Returns:
      A figure with a panel for each setting of what is not the series; None without
      evaluations on the way.
    """
    panels: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        series = panels.setdefault(result.panel, {})
        series.setdefault(result.series, []).append(result)
    panels = dict(list(panels.items())[:_MOST_PANELS])
    lines = {
        panel: {name: _mean_curve(group, metric) for name, group in series.items()}
        for panel, series in panels.items()
    }
    if not any(len(line[0]) > 1 for one in lines.values() for line in one.values()):
        return None
    colour = colours(results)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)

    def draw(figure: Any) -> None:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (panel, series) in zip(grid.flat, lines.items(), strict=False):
            for name, (steps, mean, low, high) in series.items():
                axes.plot(steps, mean, color=colour[name], linewidth=1.6, label=name)
                axes.fill_between(steps, low, high, color=colour[name], alpha=0.15)
            titles(axes, panel or _words(metric), _words(metric))
            steps_axis(axes)
        for axes in list(grid.flat)[len(lines) :]:
            axes.set_visible(False)
        _legend(figure, colour)

    width = FULL if columns > 1 else HALF * 1.4
    return drawn(width, 2.9 * rows + 0.5, draw)


def tradeoff(
    results: Sequence[Result], metric: str, cost: str, words: str
) -> tuple[Any, list[str]] | None:
    """Draws the metric over a cost, and the front of what nothing else beats.

    Args:
      results: The runs.
      metric: Of their last evaluations.
      cost: A field of `Result.costs`; ``"density"`` is one less the sparsity.
      words: Which cost, for the axis.

    Returns:
      The figure and the labels on the front; None where the cost is not known.
    """
    found = [p for p in points(results, metric) if _cost(p, cost) is not None]
    if len(found) < 2:
        return None
    costs = [float(_cost(point, cost) or 0) for point in found]
    means = [point.value.mean for point in found]
    front = pareto(costs, means, more_is_better=more_is_better(metric))
    colour = colours(results)
    markers = {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(colour)}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.step(
            [costs[i] for i in front],
            [means[i] for i in front],
            where="post",
            color=MUTED,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            zorder=1,
        )
        for place, point in zip(costs, found, strict=True):
            mean, low, high = point.value
            axes.errorbar(
                place,
                mean,
                [[max(0.0, mean - low)], [max(0.0, high - mean)]],
                fmt=markers[point.series],
                markersize=6,
                color=colour[point.series],
                elinewidth=1.0,
                alpha=0.9,
            )
        for i in front:
            axes.plot(costs[i], means[i], "o", ms=11, mfc="none", mec=INK, mew=0.7)
        titles(
            axes, f"{_words(metric)} against {words}", "front circled, 95 % of seeds"
        )
        axes.set_xlabel(words)
        if min(costs) > 0 and max(costs) > 1.5 * min(costs):
            _logarithmic(axes, costs)
        axes.margins(x=0.08)
        _legend(figure, colour, markers)

    return drawn(HALF, 3.7, draw), [found[i].label for i in front]


def _mean_curve(group: Sequence[Result], metric: str) -> tuple[Any, Any, Any, Any]:
    values: dict[int, list[float]] = {}
    for result in group:
        for step, value in result.curve(metric):
            values.setdefault(step, []).append(value)
    # Only where all seeds are: else a slow one would bend the mean.
    steps = sorted(step for step, some in values.items() if len(some) == len(group))
    some = [np.asarray(values[step]) for step in steps]
    return (
        steps,
        [one.mean() for one in some],
        [one.min() for one in some],
        [one.max() for one in some],
    )


def _cost(point: Point, cost: str) -> float | None:
    if cost == "density":
        sparsity = point.costs.get("sparsity")
        return None if sparsity is None else 1 - sparsity
    return point.costs.get(cost)


def _logarithmic(axes: Any, costs: Sequence[float]) -> None:
    ticker = require("matplotlib.ticker", extra="train")
    axes.set_xscale("log")
    ends = min(costs), max(costs)
    places = np.geomspace(*ends, 4) if ends[1] < 100 * ends[0] else None
    if places is not None:
        axes.xaxis.set_major_locator(ticker.FixedLocator(places))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    small = ends[1] <= 1
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{100 * value:.2g} %" if small else tick(value)
    )


def _legend(figure: Any, colour: Mapping[str, str], markers: Any = None) -> None:
    lines = require("matplotlib.lines", extra="train")
    handles = [
        lines.Line2D([], [], color=c, marker=markers and markers[name], label=name)
        for name, c in colour.items()
    ]
    if markers:
        for handle in handles:
            handle.set_linestyle("none")
    if len(handles) > 1:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(5, len(handles))
        )


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
