"""Figures of agents: the returns of their episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax import plot_style
from sparsejax.reinforcement.statistics import (
    interquartile_mean,
    stratified_bootstrap_interval,
)

__all__ = ["activity", "returns"]

Rows = Sequence[Mapping[str, Any]]


def returns(train: Rows, evaluation: Rows) -> Any:
    """Draws the returns of every agent, their interquartile mean and its interval.

    Args:
      train: training rows, whose ``training_return`` is that of exploring.
      evaluation: evaluation rows with ``episode_return_of_seed``.

    Returns:
      A `matplotlib.figure.Figure`; None if nothing was evaluated.
    """
    rows = [row for row in evaluation if "episode_return_of_seed" in row]
    if not rows:
        return None
    steps = [row["step"] for row in rows]
    scores = np.array([[*row["episode_return_of_seed"].values()] for row in rows])
    exploring = [
        (row["step"], row["training_return"])
        for row in train
        if "training_return" in row
    ]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        if exploring:
            axes.plot(
                *zip(*exploring, strict=True),
                color=plot_style.MUTED,
                linewidth=1.0,
                label="exploring",
            )
        for agent in scores.T:
            axes.plot(steps, agent, color=plot_style.SPARSE, alpha=0.25, linewidth=0.8)
        found = [
            stratified_bootstrap_interval(
                interquartile_mean, row[:, None], seed=0, resamples=500
            )
            for row in scores
        ]
        low, high = ([float(getattr(one, end)) for one in found] for end in _ENDS)
        middle = [float(one.estimate) for one in found]
        axes.fill_between(steps, low, high, color=plot_style.SPARSE, alpha=0.15)
        axes.plot(steps, middle, color=plot_style.SPARSE, linewidth=1.8, label="greedy")
        count = scores.shape[1]
        detail = "of an episode"
        if count > 1:
            detail = f"IQM of {count} agents, 95 % interval"
        plot_style.titles(axes, f"Episode return {middle[-1]:.4g} at last", detail)
        plot_style.steps_axis(axes)
        plot_style.legend(axes)

    return plot_style.drawn(plot_style.HALF, 3.3, draw)


def activity(evaluation: Rows) -> Any:
    """Draws how much of the acting network is at work.

    Args:
      evaluation: evaluation rows with ``dormant_ratio`` and ``effective_rank``.

    Returns:
      A figure; None if it was not measured.
    """
    rows = [row for row in evaluation if "dormant_ratio" in row]
    if not rows:
        return None
    steps = [row["step"] for row in rows]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        shares = [100 * row["dormant_ratio"] for row in rows]
        ranks = [row["effective_rank"] for row in rows]
        for axes, values, title, detail in (
            (left, shares, f"{shares[-1]:.1f} % dormant", "% of the hidden neurons"),
            (right, ranks, f"Rank {ranks[-1]:.1f}", "effective, of the last features"),
        ):
            axes.plot(steps, values, color=plot_style.SPARSE, linewidth=1.8)
            axes.set_ylim(bottom=0)
            plot_style.titles(axes, title, detail)
            plot_style.steps_axis(axes, intervals=3)

    return plot_style.drawn(plot_style.HALF, 3.3, draw)


_ENDS = ("low", "high")
