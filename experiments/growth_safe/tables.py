"""Accuracy of each optimizer, and paired differences to the first, as Markdown."""

from collections.abc import Sequence

from scipy import stats

from experiments.digits_methods.tables import markdown
from experiments.growth_safe.settings import METHODS, OPTIMIZERS, Row
from experiments.records import interval

Group = tuple[str, float, int, float]
"""Method, sparsity, steps between moves and learning rate."""

_HEAD = "method, sparsity, steps between moves, learning rate"


def groups(rows: Sequence[Row]) -> dict[Group, dict[str, dict[int, float]]]:
    """Group -> optimizer -> seed -> accuracy in percent."""
    found: dict[Group, dict[str, dict[int, float]]] = {}
    for row in rows:
        key = (row.method, row.sparsity, row.every, row.learning_rate)
        group = found.setdefault(key, {})
        group.setdefault(row.optimizer, {})[row.seed] = 100 * row.accuracy
    return found


def title(group: Group) -> str:
    """How a group is called in tables and plots."""
    method, sparsity, every, rate = group
    return f"{METHODS[method]}, {100 * sparsity:g} %, every {every}, {rate:g}"


def accuracy_table(rows: Sequence[Row]) -> str:
    """Test accuracy in percent with its 95 % interval, a line per group."""
    lines = [[_HEAD, *OPTIMIZERS.values()]]
    for group, found in groups(rows).items():
        values = [found.get(name) for name in OPTIMIZERS]
        shown = [str(interval(list(v.values()))) if v else "" for v in values]
        lines.append([title(group), *shown])
    return markdown(lines)


def difference_table(rows: Sequence[Row]) -> str:
    """Differences to `optax.adam` on the same seeds: mean, interval and paired t-test.

    Args:
      rows: every group with the optimizer "adam" and the same seeds for all.
    """
    others = [name for name in OPTIMIZERS if name != "adam"]
    heads = [f"{OPTIMIZERS[name]}{mark}" for name in others for mark in ("", ": p")]
    lines = [[_HEAD, *heads]]
    for group, found in groups(rows).items():
        line = [title(group)]
        for name in others:
            pairs = [(found[name][seed], found["adam"][seed]) for seed in found["adam"]]
            change = interval([ours - stock for ours, stock in pairs])
            test = stats.ttest_rel(*zip(*pairs, strict=True))
            line += [f"{change.mean:+.2f} ± {change.half_width:.2f}"]
            line += [f"{test.pvalue:.1g}"]
        lines.append(line)
    return markdown(lines)
