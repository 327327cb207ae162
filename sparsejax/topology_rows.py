"""The rows of a run's metrics that say how its topology stands, and what moved."""

from __future__ import annotations

from typing import Any

import optax

import sparsejax as sj
from sparsejax.metrics import MetricsWriter

__all__ = ["write"]


def write(metrics: MetricsWriter, step: int, state: optax.OptState) -> None:
    """Writes a row if the topology has moved since the last one.

    Args:
      metrics: Where to.
      step: Of training.
      state: Of the optimizer, of one replica, with a sparsejax method in it.
    """
    previous = metrics.last("topology")
    try:
        moves = sj.moves(state)
    except ValueError:
        moves = None  # not tracked: only a change of a density can be seen
    if previous is not None and moves is not None and previous["moves"] == moves:
        return
    counts = sj.counts(state)
    density = {path: active / size for path, (active, size) in counts.items()}
    if not density or (previous and moves is None and previous["density"] == density):
        return
    zeros = sum(size - active for active, size in counts.values())
    sparsity = zeros / sum(size for _, size in counts.values())
    row: dict[str, Any] = {"sparsity": sparsity, "density": density}
    row |= {"exploration": {}, "dropped": {}, "grown": {}}
    if moves is not None:
        turnover = sj.turnover(state)
        row["exploration"] = sj.exploration(state)
        row["dropped"] = {path: dropped for path, (dropped, _) in turnover.items()}
        row["grown"] = {path: grown for path, (_, grown) in turnover.items()}
        row["moves"] = moves
    metrics.write(step, "topology", row)
