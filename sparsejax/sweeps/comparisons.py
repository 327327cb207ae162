"""Statistics over seeds: intervals of means, paired tests, Pareto fronts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.scipy.special import betainc

# Up to so many pairs all changes of sign are tried, beyond them as many at random.
_EXACT = 14


class Interval(NamedTuple):
    """A mean, and its interval; both ends are the mean of a single value.

    Attributes:
      mean: the mean.
      low: the lower end.
      high: the upper end.
    """

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Two ways to train, by the seeds that both have.

    Attributes:
      count: how many.
      difference: mean and interval of the first less the second, seed by seed.
      paired_t: p-value of the paired t-test; not a number of fewer than two.
      sign_flip: p-value of the permutation test over the differences' signs.
    """

    count: int
    difference: Interval
    paired_t: float
    sign_flip: float


def bootstrap(
    values: Sequence[float], *, confidence: float = 0.95, draws: int = 10_000
) -> Interval:
    """The mean and its bootstrap interval: percentiles of means of resamples.

    With few values it is too narrow (of five by about a fifth), as bootstraps are.

    Args:
      values: Independent ones, such as of several seeds.
      confidence: Which share of resampled means lies within.
      draws: How many resamples; always the same ones.

    Returns:
      The interval.

    Example:
      >>> mean, low, high = bootstrap([1.0, 2.0, 3.0])
      >>> mean, low < 2 < high
      (2.0, True)
    """
    data = np.asarray(values, float)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, mean, mean)
    generator = np.random.default_rng(0)
    means = generator.choice(data, size=(draws, len(data))).mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Tests whether two ways to train differ, by pairs that have the same seed.

    Args:
      first: Values of the one, by seed.
      second: Values of the other, of the same seeds in the same order.

    Returns:
      The comparison; both p-values are two-sided.

    Raises:
      ValueError: They are not as many, or there are none.

    Example:
      >>> compare([3.0, 4.0, 5.0], [1.0, 1.5, 2.0]).sign_flip
      0.25
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} and {len(second)} values: give as many, one for each seed."
        )
    differences = np.asarray(first, float) - np.asarray(second, float)
    return Comparison(
        len(differences),
        bootstrap(differences.tolist()),
        _paired_t(differences),
        sign_flip(differences.tolist()),
    )


def sign_flip(differences: Sequence[float]) -> float:
    """The permutation test of paired differences: how often signs at random do as much.

    Exact up to 14 pairs, by all changes of sign; beyond, by 2**14 random ones, the
    observed one among them.

    Args:
      differences: One for each pair.

    Returns:
      The two-sided p-value; of n pairs at least 2 / 2**n.

    Example:
      >>> sign_flip([1.0, 2.0, 0.5, 1.5, 1.0])
      0.0625
    """
    data = np.asarray(differences, float)
    observed = abs(data.sum())
    if len(data) <= _EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(data))))
    else:
        generator = np.random.default_rng(0)
        signs = generator.choice((1, -1), size=(2**_EXACT, len(data)))
        signs[0] = 1
    sums = np.abs(signs @ data)
    # Equal sums may differ in their last digits, by the order of their terms.
    return float((sums >= observed - 1e-12 * np.abs(data).sum()).mean())


def holm(values: Sequence[float]) -> list[float]:
    """Corrects p-values for how many there are, by Holm's step-down method.

    Args:
      values: The p-values of one family of tests.

    Returns:
      The corrected ones, in the same order.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, values[i] * (len(values) - rank)))
        corrected[i] = largest
    return corrected


def pareto(
    costs: Sequence[float], values: Sequence[float], *, more_is_better: bool = True
) -> list[int]:
    """Finds what nothing else beats: as good for less, or better for as much.

    Args:
      costs: Of each point; less is better.
      values: Of each point.
      more_is_better: Whether that holds for the values.

    Returns:
      The points' indices, by rising cost.

    Example:
      >>> pareto([1.0, 2.0, 3.0], [0.5, 0.4, 0.9])
      [0, 2]
    """
    sign = -1 if more_is_better else 1
    order = sorted(range(len(costs)), key=lambda i: (costs[i], sign * values[i]))
    front: list[int] = []
    for i in order:
        if not front or sign * values[i] < sign * values[front[-1]]:
            front.append(i)
    return front


def _paired_t(differences: np.ndarray) -> float:
    count = len(differences)
    if count < 2:
        return float("nan")
    spread = differences.std(ddof=1)
    if spread == 0:
        return 1.0 if differences[0] == 0 else 0.0
    t = differences.mean() / (spread / np.sqrt(count))
    # The tails of Student's distribution.
    freedom = count - 1
    return float(betainc(freedom / 2, 0.5, freedom / (freedom + t**2)))
