"""Means with intervals, and tests between neighbours, as Markdown."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

from experiments.digits_methods.results import Row
from experiments.digits_methods.settings import SETTINGS
from experiments.records import Interval, interval


class Cell(NamedTuple):
    """The seeds of one method at one sparsity.

    Attributes:
      method: name of a setting.
      sparsity: share of the weights that are zero; 0 for ``dense``.
      active: weights that are left; the same in every seed.
      accuracies: in percent, one per seed.
    """

    method: str
    sparsity: float
    active: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return self.interval.mean

    @property
    def interval(self) -> Interval:
        """The mean, and half of its 95 % interval."""
        return interval(self.accuracies)


def cells(rows: Sequence[Row]) -> list[Cell]:
    """Groups rows by method and sparsity, in the order of their first rows.

    Args:
      rows: all of the same number of steps.

    Raises:
      ValueError: the seeds of a cell have different numbers of weights.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.sparsity), []).append(row)
    found = []
    for (method, sparsity), group in groups.items():
        active = {row.active for row in group}
        if len(active) > 1:
            raise ValueError(
                f"{method} at {sparsity}: seeds have {sorted(active)} weights"
            )
        accuracies = tuple(100 * row.accuracy for row in group)
        found.append(Cell(method, sparsity, active.pop(), accuracies))
    return found


def accuracy_table(found: Sequence[Cell]) -> str:
    """Test accuracy, a line per method and a column per sparsity.

    Args:
      found: the cells to show.

    Returns:
      A Markdown table.
    """
    columns = {}
    for cell in sorted(found, key=lambda cell: cell.sparsity):
        columns.setdefault(cell.sparsity, cell.active)
    by_place = {(cell.method, cell.sparsity): cell for cell in found}
    heads = [f"{100 * s:g} % ({active:,} weights)" for s, active in columns.items()]
    lines = [["method", *heads]]
    for method in dict.fromkeys(cell.method for cell in found):
        places = [by_place.get((method, sparsity)) for sparsity in columns]
        shown = [str(cell.interval) if cell else "" for cell in places]
        lines.append([SETTINGS[method].title, *shown])
    return markdown(lines)


def neighbour_table(found: Sequence[Cell]) -> str:
    """Welch's t-test between methods next to each other in accuracy at one sparsity.

    Args:
      found: cells of at least two seeds each.

    Returns:
      A Markdown table, the most accurate pair first.
    """
    lines = [["pair", "difference", "Welch's t", "p"]]
    ranked = sorted(found, key=lambda cell: cell.mean, reverse=True)
    for better, worse in itertools.pairwise(ranked):
        test = stats.ttest_ind(better.accuracies, worse.accuracies, equal_var=False)
        names = [SETTINGS[cell.method].title for cell in (better, worse)]
        lines.append(
            [
                " - ".join(names),
                f"{better.mean - worse.mean:.2f}",
                f"{test.statistic:.1f}",
                f"{test.pvalue:.1g}",
            ]
        )
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; its first line is the head, its first column text."""
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    rule = "|---|" + "---:|" * (len(lines[0]) - 1)
    return "\n".join([head, rule, *rest]) + "\n"
