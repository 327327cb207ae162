"""Figures of one training run, drawn with matplotlib and nothing global."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.extras import require
from sparsejax.plot_style import (
    DROPPED,
    EVALUATION,
    FULL,
    GRID,
    GROWN,
    HALF,
    INK,
    MUTED,
    PAPER,
    SPARSE,
    bare,
    bars,
    beside,
    drawn,
    legend,
    mark,
    percent,
    short,
    steps_axis,
    tick,
    titles,
)

Rows = Sequence[Mapping[str, Any]]
"""Rows of `metrics.jsonl` of one kind, in order of their step."""


# Metrics that are fractions, and how their percentages read.
_PERCENT = {
    "accuracy": "% correct",
    "mean_average_precision": "%, mean of 50 to 95 % overlap",
    "average_precision_50": "%, at 50 % overlap",
}
_NAMES = {
    "bits_per_byte": "bits per byte",
    "mean_average_precision": "average precision",
    "average_precision_50": "average precision at 50 %",
}


_UNITS = {"bits_per_byte": "of the text"}


class Share(NamedTuple):
    """A cost and what the dense network costs, both in `unit`."""

    label: str
    value: float
    dense: float
    unit: str = ""

    @property
    def ratio(self) -> float:
        """The cost as a fraction of the dense network's."""
        return self.value / self.dense


def curve(metric: str, train: Rows, evaluation: Rows, last_move: int | None) -> Any:
    """Draws a metric over the steps, of training batches and of evaluations.

    Args:
      metric: name of the scalar: `"loss"`, `"bits_per_byte"`, or a fraction shown in %:
        `"accuracy"`, `"mean_average_precision"`, `"average_precision_50"`.
      train: training rows; drawn with their running mean when there are many.
      evaluation: evaluation rows.
      last_move: step after which the masks no longer change, marked; or None.

    Returns:
      A `matplotlib.figure.Figure`; None when no row has the metric.
    """
    detail = _PERCENT.get(metric)
    scale = 100.0 if detail else 1.0
    series = {
        "training": _series(train, metric, scale),
        "evaluation": _series(evaluation, metric, scale),
    }
    if not any(values for _, values in series.values()):
        return None

    def draw(figure):
        axes = figure.add_subplot()
        steps, values = series["training"]
        window = len(values) // 40
        if window > 1:
            axes.plot(steps, values, color=SPARSE, alpha=0.22, linewidth=0.8)
            values = _running_mean(values, window)
        axes.plot(steps, values, color=SPARSE, linewidth=1.8, label="training")
        style = {"marker": "o", "markersize": 3.6, "markeredgecolor": PAPER}
        steps, values = series["evaluation"]
        if values:
            style |= {"color": EVALUATION, "linewidth": 1.8, "markeredgewidth": 0.6}
            axes.plot(steps, values, label="evaluation", **style)
        shown = [line.get_ydata() for line in axes.get_lines()[-2:]]
        logarithmic = metric == "loss" and _spans_decades(shown)
        if logarithmic:
            ticker = require("matplotlib.ticker", extra="train")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        if detail:
            # Room for a marker at 100 %, however narrow the range.
            axes.set_ylim(top=100 + 0.03 * max(1.0, 100 - axes.get_ylim()[0]))
        unit = detail or _UNITS.get(metric, "mean over examples")
        unit += ", log scale" if logarithmic else ""
        titles(axes, _curve_title(metric, series), unit)
        steps_axis(axes)
        mark(axes, last_move, 0.06 if detail else 0.94)
        legend(axes)

    return drawn(HALF, 3.3, draw)


def turnover(rows: Rows, sizes: Mapping[str, int]) -> Any:
    """Draws the share of the active weights that each topology move replaced.

    Args:
      rows: topology rows with `density`, `dropped` and `grown` per layer.
      sizes: number of weights per layer, in the order of the forward pass.

    Returns:
      A figure; None when nothing moved, or the sizes are not known yet.
    """
    rows = [row for row in rows if sum(row.get("dropped", {}).values())]
    if not rows or not sizes:
        return None

    def share(row, path):
        active = row["density"].get(path, 0.0) * sizes.get(path, 0)
        return 100.0 * row["dropped"].get(path, 0) / active if active else math.nan

    def overall(row):
        active = sum(d * sizes.get(path, 0) for path, d in row["density"].items())
        return 100.0 * sum(row["dropped"].values()) / active if active else math.nan

    totals = [overall(row) for row in rows]
    moves = "replace" if any(sum(row["grown"].values()) for row in rows) else "drop"
    title = f"Moves {moves} {percent(totals[0])} of the active weights"
    if len(rows) > 1:
        title += f", at last {percent(totals[-1])}"
    return _per_layer(rows, sizes, share, totals, title, "% of active weights dropped")


def exploration(rows: Rows, sizes: Mapping[str, int]) -> Any:
    """Draws the share of all weights that have been active at some time (ITOP's R_s).

    Args:
      rows: topology rows with `exploration` per layer.
      sizes: number of weights per layer, in the order of the forward pass.

    Returns:
      A figure; None when it was not tracked, or every weight was active at first.
    """
    rows = [row for row in rows if row.get("exploration")]
    if not rows or min(rows[0]["exploration"].values()) == 1:
        return None

    def share(row, path):
        return 100.0 * row["exploration"].get(path, math.nan)

    totals = [100.0 * _weighted(row["exploration"], sizes) for row in rows]
    title = f"{percent(totals[-1])} of all weights were active at some time"
    detail = "% of weights ever active (R_s)"
    return _per_layer(rows, sizes, share, totals, title, detail)


def density(rows: Rows, sizes: Mapping[str, int]) -> Any:
    """Draws the density over the steps, where it changes.

    Args:
      rows: topology rows with `density` per layer.
      sizes: number of weights per layer, in the order of the forward pass.

    Returns:
      A figure; None when the density of no layer changes by 0.1 %.
    """
    rows = [row for row in rows if row.get("density")]
    if not rows:
        return None
    first, last = rows[0]["density"], rows[-1]["density"]
    if all(abs(first.get(path, 1.0) - d) < 1e-3 for path, d in last.items()):
        return None

    def share(row, path):
        return 100.0 * row["density"].get(path, math.nan)

    totals = [100.0 * _weighted(row["density"], sizes) for row in rows]
    title = f"Density goes from {percent(totals[0])} to {percent(totals[-1])}"
    return _per_layer(rows, sizes, share, totals, title, "% of weights active")


def moves(rows: Rows) -> Any:
    """Draws how many weights each topology move dropped and grew, over all layers.

    Args:
      rows: topology rows with `dropped` and `grown` per layer.

    Returns:
      A figure; None when nothing moved.
    """
    steps = [row["step"] for row in rows]
    grown = [sum(row.get("grown", {}).values()) for row in rows]
    dropped = [sum(row.get("dropped", {}).values()) for row in rows]
    if not any(grown) and not any(dropped):
        return None

    def draw(figure):
        axes = figure.add_subplot()
        gaps = [b - a for a, b in itertools.pairwise(steps) if b > a]
        width = 0.7 * (min(gaps) if gaps else 1)
        if any(grown):
            axes.bar(steps, grown, width, color=GROWN, label="grown")
        if any(dropped):
            lengths = [-count for count in dropped]
            axes.bar(steps, lengths, width, color=DROPPED, label="dropped")
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.yaxis.set_major_formatter(lambda value, _: tick(abs(value)))
        largest = max([*grown, *dropped])
        axes.set_ylim(
            -1.1 * largest if any(dropped) else 0, 1.1 * largest if any(grown) else 0
        )
        verb = "move" if any(grown) else "are dropped"
        title = f"At most {largest:,} weights {verb} at once"
        titles(axes, title, "weights per move, at the logged moves")
        steps_axis(axes)
        axes.grid(axis="x", visible=False)
        legend(axes)

    return drawn(FULL, 2.9, draw)


def layers(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draws density and FLOPs of every layer as horizontal bars.

    Args:
      rows: `path`, `active` and `size` of each layer; `sparse_flops` and `dense_flops`
        per example where they are known.

    Returns:
      A figure; None without layers.
    """
    if not rows:
        return None
    names = [shorten(row["path"]) for row in rows]
    groups = [name.split("/")[0] for name in names]
    edges = [i - 0.5 for i in range(1, len(rows)) if groups[i] != groups[i - 1]]
    counts = [(row["active"], row["size"]) for row in rows]
    flops = [(row.get("sparse_flops", 0), row.get("dense_flops", 0)) for row in rows]

    def draw(figure):
        columns = figure.subplots(
            1, 1 + any(dense for _, dense in flops), squeeze=False
        )
        for axes in columns[0]:
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_yticks(range(len(rows)), names, color=INK, fontsize=8.6)
            axes.hlines(edges, 0, 1, GRID, transform=axes.get_yaxis_transform())
            bare(axes)
        left, *right = columns[0]
        shares = [100.0 * active / size for active, size in counts]
        bars(left, [100.0] * len(rows), shares)
        left.set_xlim(0, 100)
        left.set_xticks([0, 50, 100], ["0", "50 %", "100 %"])
        for place, (share, (active, size)) in enumerate(
            zip(shares, counts, strict=True)
        ):
            beside(left, place, 42, percent(share), weight="bold")
            beside(left, place, 142, f"{active:,} of {size:,}", color=MUTED)
        dense = sum(active == size for active, size in counts)
        sparse = len(rows) - dense
        title = f"{sparse} sparse and {dense} dense layers"
        if not dense or not sparse:
            title = f"Every layer is {'sparse' if sparse else 'dense'}"
        titles(left, title, "density: % of weights active")
        for axes in right:
            bars(axes, [dense for _, dense in flops], [sparse for sparse, _ in flops])
            axes.tick_params(labelleft=False)
            axes.xaxis.set_major_formatter(lambda value, _: tick(value))
            axes.set_xlim(0, max(dense for _, dense in flops))
            axes.set_xticks([0, axes.get_xlim()[1]])
            for place, (sparse, dense) in enumerate(flops):
                text = f"{short(sparse)} of {short(dense)}"
                beside(axes, place, 92, text, color=MUTED)
            sparse, dense = (short(sum(column)) for column in zip(*flops, strict=True))
            title = f"Forward pass: {sparse} of {dense} FLOPs"
            titles(axes, title, "per example, sparse (blue) of dense (grey)")

    return drawn(FULL, 1.2 + 0.215 * len(rows), draw)


def cost(shares: Sequence[Share], title: str) -> Any:
    """Draws costs as shares of the dense network's.

    Args:
      shares: the costs.
      title: what the figure shows.

    Returns:
      A figure; None without costs.
    """
    if not shares:
        return None

    def draw(figure):
        axes = figure.add_subplot()
        bars(axes, [100.0] * len(shares), [100 * share.ratio for share in shares])
        axes.axvline(100, color=INK, linewidth=0.9)
        for place, share in enumerate(shares):
            value, dense = (f"{short(n)}{share.unit}" for n in share[1:3])
            beside(axes, place, 48, percent(100 * share.ratio), weight="bold")
            beside(axes, place, 158, f"{value} of {dense}", color=MUTED)
        axes.set_xlim(0, 100 * max(1.0, *(share.ratio for share in shares)))
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_yticks(
            range(len(shares)), [share.label for share in shares], color=INK
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        bare(axes)
        titles(axes, title, "% of the dense network; the line at 100 % is dense")

    return drawn(FULL, 1.1 + 0.36 * len(shares), draw)


def shorten(path: str) -> str:
    """A layer's name: the path of its kernel without the last part."""
    head, _, tail = path.rpartition("/")
    return head if head and tail in ("kernel", "weight", "w") else path


def _per_layer(
    rows: Rows,
    sizes: Mapping[str, int],
    share: Callable[[Mapping[str, Any], str], float],
    totals: Sequence[float],
    title: str,
    detail: str,
) -> Any:
    steps = [row["step"] for row in rows]
    logged = rows[-1]["density"]
    paths = [path for path in sizes if path in logged]
    paths += [path for path in logged if path not in sizes]

    def draw(figure):
        colours = require("matplotlib", extra="train").colormaps["viridis"]
        axes = figure.add_subplot()
        for index, path in enumerate(paths):
            colour = colours(0.1 + 0.8 * index / max(1, len(paths) - 1))
            values = [share(row, path) for row in rows]
            axes.plot(steps, values, color=colour, linewidth=0.9, alpha=0.55)
        style = {"marker": "o", "markersize": 3} if len(rows) < 25 else {}
        axes.plot(steps, totals, color=INK, linewidth=2.2, label="all layers", **style)
        if len(paths) > 1:
            for name, place in (("first layer", 0.1), ("last layer", 0.9)):
                axes.plot([], [], color=colours(place), linewidth=1.6, label=name)
        axes.set_ylim(bottom=0)
        titles(axes, title, detail)
        steps_axis(axes)
        legend(axes)

    return drawn(HALF, 3.3, draw)


def _series(rows: Rows, metric: str, scale: float) -> tuple[list, list]:
    found = [(row["step"], scale * row[metric]) for row in rows if metric in row]
    return [step for step, _ in found], [value for _, value in found]


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    means = []
    for index in range(len(values)):
        recent = values[max(0, index - window + 1) : index + 1]
        means.append(sum(recent) / len(recent))
    return means


def _spans_decades(lines: Sequence[Sequence[float]]) -> bool:
    values = [value for line in lines for value in line if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def _curve_title(metric: str, series: Mapping[str, tuple[list, list]]) -> str:
    _, values = series["evaluation"]
    which = "Evaluation" if values else "Training"
    last = (values or series["training"][1])[-1]
    written = f"{last:.2f} %" if metric in _PERCENT else f"{last:.4g}"
    return f"{which} {_NAMES.get(metric, metric)} ends at {written}"


def _weighted(values: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    total = sum(sizes.get(path, 0) for path in values)
    if not total:
        return sum(values.values()) / len(values)
    return sum(value * sizes.get(path, 0) for path, value in values.items()) / total
