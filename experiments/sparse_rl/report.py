"""What the agents came to, as tables and as a plot."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.digits_methods.tables import markdown
from experiments.sparse_rl.settings import ARMS, EXPECTED, PROBLEMS
from experiments.sparse_rl.training import Row, curve, run
from sparsejax import plot_style
from sparsejax.reinforcement.statistics import (
    improvement_interval,
    interquartile_mean,
    ordering,
    stratified_bootstrap_interval,
)

_COLOURS = {
    "dense": plot_style.MUTED,
    "small_dense": plot_style.GROWN,
    "static": plot_style.DROPPED,
    "set": plot_style.EVALUATION,
    "rigl": plot_style.SPARSE,
    "magnitude": plot_style.INK,
}


def middle(scores: Sequence[float]) -> float:
    """The interquartile mean of the scores of some agents."""
    return interquartile_mean(_column(scores))


def tables(rows: Sequence[Row]) -> str:
    """Of each problem the arms, and whether the expected orderings held.

    Args:
      rows: the trained agents, at least one.
    """
    parts = []
    for problem, arms in _problems(rows).items():
        lines = [
            [
                PROBLEMS[problem].title,
                "return, IQM",
                "95 % interval",
                "parameters",
                "sparsity",
                "agents",
            ]
        ]
        for arm, own in arms.items():
            found = stratified_bootstrap_interval(
                interquartile_mean, _scores(own), seed=0
            )
            lines.append(
                [
                    ARMS[arm].title,
                    f"{float(found.estimate):.1f}",
                    f"{float(found.low):.1f} to {float(found.high):.1f}",
                    f"{own[0].parameters:,}",
                    f"{100 * own[0].sparsity:.0f} %",
                    str(len(own)),
                ]
            )
        parts.append(markdown(lines))
        parts.append(markdown(_orderings(arms)))
    return "\n".join(parts)


def _orderings(arms: dict[str, list[Row]]) -> list[list[str]]:
    lines = [["expected", "probability that it is so", "95 % interval", ""]]
    for better, worse in EXPECTED:
        if better in arms and worse in arms:
            pair = _scores(arms[better]), _scores(arms[worse])
            found = improvement_interval(*pair, seed=0)
            lines.append(
                [
                    f"{ARMS[better].title} above {ARMS[worse].title}",
                    f"{float(found.estimate):.2f}",
                    f"{float(found.low):.2f} to {float(found.high):.2f}",
                    ordering(*pair, seed=0),
                ]
            )
    return lines


def draw(
    rows: Sequence[Row],
    networks: pathlib.Path,
    updates: int | None,
    path: pathlib.Path,
) -> None:
    """Writes the plot: how the returns went, and what they came to.

    Args:
      rows: the trained agents, at least one.
      networks: folder of the run directories, for the curves.
      updates: as the runs were made.
      path: of the PNG file.
    """
    problems = _problems(rows)

    def fill(figure: Any) -> None:
        grid = figure.subplots(len(problems), 2, squeeze=False, width_ratios=(3, 2))
        for (left, right), (problem, arms) in zip(grid, problems.items(), strict=True):
            for arm, own in arms.items():
                folder = run(problem, arm, len(own), updates, networks)
                if (folder / "metrics.jsonl").exists():
                    _curve(left, arm, folder)
            plot_style.titles(
                left, PROBLEMS[problem].title, "return, IQM and 95 % interval"
            )
            plot_style.steps_axis(left)
            left.set_xlabel("updates")
            _points(right, arms)

    plot_style.save(plot_style.drawn(9.6, 3.9 * len(problems), fill), path)


def _curve(axes: Any, arm: str, folder: pathlib.Path) -> None:
    found = curve(folder)
    intervals = [
        stratified_bootstrap_interval(
            interquartile_mean, _column(returns), seed=0, resamples=500
        )
        for returns in found.returns
    ]
    low, high = ([float(getattr(i, end)) for i in intervals] for end in ("low", "high"))
    colour = _COLOURS[arm]
    axes.fill_between(found.updates, low, high, color=colour, alpha=0.13, linewidth=0)
    middles = [float(i.estimate) for i in intervals]
    axes.plot(found.updates, middles, color=colour, linewidth=1.6)


def _points(axes: Any, arms: dict[str, list[Row]]) -> None:
    for place, (arm, own) in enumerate(arms.items()):
        scores, colour = [row.score for row in own], _COLOURS[arm]
        found = stratified_bootstrap_interval(interquartile_mean, _scores(own), seed=0)
        axes.scatter(scores, [place] * len(scores), s=13, color=colour, alpha=0.45)
        ends = float(found.low), float(found.high)
        axes.hlines(place + 0.22, *ends, color=colour, linewidth=1.8)
        axes.plot(float(found.estimate), place + 0.22, "o", markersize=5, color=colour)
    axes.set_yticks(range(len(arms)), [ARMS[arm].title for arm in arms])
    for label, arm in zip(axes.get_yticklabels(), arms, strict=True):
        label.set_color(_COLOURS[arm])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    plot_style.titles(axes, "At the end", "return of every agent; IQM with interval")


def _problems(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.problem, {}).setdefault(row.arm, []).append(row)
    return found


def _scores(rows: Sequence[Row]) -> np.ndarray:
    return _column([row.score for row in rows])


def _column(scores: Sequence[float]) -> np.ndarray:
    return np.asarray(scores, float)[:, None]
