"""Published orderings, stated before the runs, and whether they hold here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.digits_methods.settings import SETTINGS
from experiments.digits_methods.tables import Cell, markdown


class Ordering(NamedTuple):
    """The claim that one setting is at least as accurate as another.

    Attributes:
      worse: name of the setting that is behind (or equal).
      better: name of the setting that is ahead.
      sparsity: where.
      source: who published it.
    """

    worse: str
    better: str
    sparsity: float
    source: str


ORDERINGS = (
    Ordering("static", "set", 0.98, "Mocanu et al., 2018"),
    Ordering("set", "rigl", 0.98, "Evci et al., 2020"),
    Ordering("srigl_whole", "srigl", 0.98, "Lasby et al., 2024"),
    Ordering("rigl", "granet", 0.98, "Liu et al., 2021"),
    Ordering("rigl", "magnitude", 0.98, "Evci et al., 2020"),
    Ordering("one_shot_2_4", "sr_ste", 0.5, "Zhou et al., 2021"),
    Ordering("sr_ste", "s_ste", 0.5, "Hu et al., 2024"),
)
"""In the words of the papers the first is a strict ordering, the others ">="."""


def verdict(worse: Sequence[float], better: Sequence[float]) -> tuple[str, float]:
    """Whether an ordering holds, by the 95 % interval of the difference (Welch's t).

    Args:
      worse: accuracies of the seeds of one setting.
      better: and of the one that is claimed to be ahead.

    Returns:
      ``"held"`` if the interval lies above 0, ``"not held"`` if below, else
      ``"undecided"``; and the difference of the means.
    """
    difference = float(np.mean(better) - np.mean(worse))
    if np.std(better) == 0 and np.std(worse) == 0:
        return "held" if difference > 0 else "undecided", difference
    test = stats.ttest_ind(better, worse, equal_var=False)
    low, high = test.confidence_interval(0.95)
    word = "held" if low > 0 else "not held" if high < 0 else "undecided"
    return word, difference


def orderings_table(found: Sequence[Cell]) -> str:
    """The orderings among these cells, with their verdicts.

    Args:
      found: cells of at least two seeds each.

    Returns:
      A Markdown table; empty if no ordering can be judged.
    """
    cells = {(cell.method, cell.sparsity): cell for cell in found}
    lines = [["stated beforehand", "published by", "difference", "verdict"]]
    for one in ORDERINGS:
        pair = [cells.get((name, one.sparsity)) for name in (one.worse, one.better)]
        if None in pair or any(len(cell.accuracies) < 2 for cell in pair if cell):
            continue
        worse, better = (cell.accuracies for cell in pair if cell)
        word, difference = verdict(worse, better)
        titles = [SETTINGS[name].title for name in (one.worse, one.better)]
        claim = f"{titles[0]} <= {titles[1]} at {100 * one.sparsity:g} %"
        lines.append([claim, one.source, f"{difference:+.2f}", word])
    return markdown(lines) if len(lines) > 1 else ""
