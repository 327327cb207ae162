"""Accuracy of every branch in every round, and paired differences, as Markdown."""

import itertools
from collections.abc import Sequence

from scipy import stats

from experiments.digits_methods.tables import markdown
from experiments.lottery_tickets.settings import BRANCHES, Row
from experiments.records import interval

Accuracies = dict[tuple[str, int], list[float]]
"""(branch, round) -> accuracies in percent, by seed."""


def accuracies(rows: Sequence[Row]) -> Accuracies:
    """Groups rows by branch and round."""
    found: Accuracies = {}
    for row in sorted(rows, key=lambda row: row.seed):
        found.setdefault((row.branch, row.number), []).append(100 * row.accuracy)
    return found


def shares(rows: Sequence[Row]) -> dict[int, float]:
    """Round -> weights that are left, in percent."""
    return {row.number: 100 * row.active / row.weights for row in rows}


def accuracy_table(rows: Sequence[Row]) -> str:
    """Test accuracy in percent with its 95 % interval, a line per round.

    Args:
      rows: of all rounds, the dense one included.
    """
    found = accuracies(rows)
    active = {row.number: row.active for row in rows}
    lines = [["round", "weights left", *BRANCHES.values()]]
    for number, share in shares(rows).items():
        names = ["dense"] * len(BRANCHES) if number == 0 else list(BRANCHES)
        cells = [found.get((name, number)) for name in names]
        shown = [str(interval(cell)) if cell else "" for cell in cells]
        lines.append([str(number), f"{active[number]:,} ({share:.1f} %)", *shown])
    return markdown(lines)


def difference_table(rows: Sequence[Row], number: int) -> str:
    """Differences to the dense network and between branches, seed by seed.

    Args:
      rows: of at least two seeds.
      number: of the round.

    Returns:
      A Markdown table with 95 % intervals and paired t-tests.
    """
    found = accuracies(rows)
    of_round = {branch: found[branch, number] for branch in BRANCHES}
    compared = {"dense": found["dense", 0], **of_round}
    titles = {"dense": "dense", **BRANCHES}
    lines = [["pair", "difference", "p"]]
    for first, second in itertools.combinations(compared, 2):
        pairs = zip(compared[first], compared[second], strict=True)
        changes = [one - other for one, other in pairs]
        change = interval(changes)
        lines.append(
            [
                f"{titles[first]} - {titles[second]}",
                f"{change.mean:+.2f} ± {change.half_width:.2f}",
                f"{stats.ttest_1samp(changes, 0).pvalue:.1g}",
            ]
        )
    return markdown(lines)
