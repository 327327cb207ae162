"""The report of a sweep: ``results.csv`` and one self-contained ``sweep.html``."""

from __future__ import annotations

import io
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from sparsejax.plot_style import save
from sparsejax.sweeps import figures
from sparsejax.sweeps.comparisons import compare, holm
from sparsejax.sweeps.page import Tested, page
from sparsejax.sweeps.results import Result, metric, read_results, write_csv

_COSTS = {
    "density": "weights kept",
    "flops": "inference FLOPs per example",
    "training_flops": "training FLOPs per example",
    "bytes": "bytes stored",
}


def write_sweep_report(folder: str | pathlib.Path) -> pathlib.Path:
    """Writes the table and the page of a sweep, of all runs that have logged something.

    Args:
      folder: Of the sweep, with a directory for each run.

    Returns:
      The path of ``sweep.html``.

    Raises:
      RunError: No run has logged anything yet, or a file is broken.
    """
    folder = pathlib.Path(folder)
    results = read_results(folder)
    write_csv(folder / "results.csv", results)
    evaluated = [result for result in results if result.metrics]
    chosen = metric(evaluated or results)
    images: dict[str, tuple[bytes, float]] = {}
    front: set[str] = set()
    for cost, words in _COSTS.items():
        drawn = figures.tradeoff(evaluated, chosen, cost, words)
        if drawn is not None:
            images[cost] = _image(drawn[0])
            front |= set(drawn[1])
    curves = figures.curves(evaluated, chosen)
    if curves is not None:
        images["curves"] = _image(curves)
    target = folder / "sweep.html"
    partial = folder / "sweep.html.partial"
    points = figures.points(evaluated, chosen)
    title = f"Sweep {folder.resolve().name}"
    tests = comparisons(evaluated, chosen)
    text = page(title, evaluated, chosen, points, front, images, tests)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)
    return target


def comparisons(results: Sequence[Result], chosen: str) -> list[Tested]:
    """Tests all pairs of series that share their other settings and two seeds or more.

    Args:
      results: The runs.
      chosen: The metric.

    Returns:
      The tests, with p-values corrected for how many they are.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    for result in results:
        series = values.setdefault(result.panel, {}).setdefault(result.series, {})
        series[result.seed] = result.metrics[chosen]
    found = []
    for panel, by_series in values.items():
        for (first, a), (second, b) in itertools.combinations(by_series.items(), 2):
            seeds = sorted(set(a) & set(b))
            if len(seeds) > 1:
                tested = compare([a[s] for s in seeds], [b[s] for s in seeds])
                found.append((panel, first, second, tested))
    corrected = holm([tested.paired_t for _, _, _, tested in found])
    return [
        Tested(panel, first, second, tested, p)
        for (panel, first, second, tested), p in zip(found, corrected, strict=True)
    ]


def _image(figure: Any) -> tuple[bytes, float]:
    buffer = io.BytesIO()
    save(figure, buffer)
    return buffer.getvalue(), figure.get_figwidth()
