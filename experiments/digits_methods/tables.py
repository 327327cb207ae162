"""Means with intervals, and tests between neighbours, as Markdown."""

import itertools
import statistics
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
      active: weights that are left, the mean over the seeds.
      accuracies: in percent, one per seed.
    """

    method: str
    sparsity: float
    active: float
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
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.sparsity), []).append(row)
    found = []
    for (method, sparsity), group in groups.items():
        active = statistics.mean(row.active for row in group)
        accuracies = tuple(100 * row.accuracy for row in group)
        found.append(Cell(method, sparsity, active, accuracies))
    return found


def accuracy_table(found: Sequence[Cell]) -> str:
    """Test accuracy, a line per method and a column per sparsity.

    A column's head has the number of weights that most of its methods have; the others
    say how many they have.

    Args:
      found: the cells to show.

    Returns:
      A Markdown table.
    """
    columns = {
        sparsity: statistics.mode(c.active for c in found if c.sparsity == sparsity)
        for sparsity in sorted({cell.sparsity for cell in found})
    }
    by_place = {(cell.method, cell.sparsity): cell for cell in found}
    heads = [f"{100 * s:g} % ({active:,.0f} weights)" for s, active in columns.items()]
    lines = [["method", *heads]]
    for method in dict.fromkeys(cell.method for cell in found):
        places = [(by_place.get((method, s)), active) for s, active in columns.items()]
        lines.append([SETTINGS[method].title, *[_shown(*place) for place in places]])
    return markdown(lines)


def _shown(cell: Cell | None, active: float) -> str:
    if cell is None:
        return ""
    own = "" if cell.active == active else f" ({round(cell.active, 1):,})"
    return f"{cell.interval}{own}"


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
