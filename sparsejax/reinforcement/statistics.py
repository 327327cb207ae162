"""What a few runs of some tasks say: intervals, comparisons, orderings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

__all__ = [
    "Interval",
    "improvement_interval",
    "interquartile_mean",
    "ordering",
    "performance_profile",
    "probability_of_improvement",
    "stratified_bootstrap_interval",
]

RESAMPLES = 10_000

Scores = Float[np.ndarray, "runs tasks"]
Statistic = Callable[..., Float[np.ndarray, "*shape"] | float]


class Interval(NamedTuple):
    """What was estimated, and how sure it is.

    Attributes:
      estimate: From the runs themselves.
      low: The interval's lower end.
      high: Its upper end.
    """

    estimate: Float[np.ndarray, "*shape"]
    low: Float[np.ndarray, "*shape"]
    high: Float[np.ndarray, "*shape"]


def interquartile_mean(scores: Scores) -> float:
    """The mean of the middle half of all scores, of all runs and tasks together.

    A quarter of them, rounded down, is left out at either end: less noisy than the
    median, and unlike the mean not led by one lucky run.

    Args:
      scores: Of every run of every task, the tasks on one scale.

    Returns:
      The mean.

    Raises:
      ValueError: The scores are no finite array of runs and tasks.

    Example:
      >>> interquartile_mean(np.array([[0.0], [1.0], [3.0], [100.0]]))
      2.0

    References:
      Agarwal et al., "Deep reinforcement learning at the edge of the statistical
      precipice", NeurIPS 2021.
    """
    return _interquartile_mean(_checked(scores))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """How likely a run of the first is better than one of the second, over the tasks.

    The mean over tasks of the share of pairs of runs in which the first has the higher
    score; a tie is half of one (the Mann-Whitney statistic).

    Args:
      first: Scores of the first [runs, tasks].
      second: Scores of the second, of the same tasks; the runs may be more or fewer.

    Returns:
      From 0 to 1; 0.5 if neither is better.

    Raises:
      ValueError: The scores are no finite arrays of the same tasks.

    Example:
      >>> probability_of_improvement(np.array([[3.0], [2.0]]), np.array([[1.0], [2.0]]))
      0.875

    References:
      Agarwal et al., "Deep reinforcement learning at the edge of the statistical
      precipice", NeurIPS 2021.
    """
    return _probability_of_improvement(*_of_the_same_tasks(first, second))


def performance_profile(
    scores: Scores, thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, " thresholds"]:
    """The share of runs, over all tasks, with a score above each threshold.

    Args:
      scores: Of every run of every task.
      thresholds: Scores to be above.

    Returns:
      A share for each threshold; it falls from 1 to 0.

    Raises:
      ValueError: The scores are no finite array of runs and tasks.

    Example:
      >>> scores = np.array([[0.0, 1.0], [2.0, 3.0]])
      >>> performance_profile(scores, np.array([-1.0, 0.0, 2.5])).tolist()
      [1.0, 0.75, 0.25]
    """
    above: Bool[np.ndarray, "runs tasks thresholds"] = (
        _checked(scores)[:, :, None] > np.asarray(thresholds)[None, None, :]
    )
    return above.mean(axis=(0, 1))


def stratified_bootstrap_interval(
    statistic: Statistic,
    *scores: Scores,
    seed: int | np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """The percentile interval of a statistic, the runs of each task drawn anew.

    Each resample has as many runs of each task as there were, drawn with replacement
    from those of that task, for each task and each of the arrays independently.

    Args:
      statistic: A function of as many arrays as are given: :func:`interquartile_mean`.
      *scores: Arrays [runs, tasks].
      seed: Of the draws, or a generator for them.
      resamples: How many.
      confidence: Of the interval, in (0, 1).

    Returns:
      The interval, with the shape of what the statistic returns.

    Raises:
      ValueError: The scores are no finite arrays of runs and tasks, or a number is out
        of range.

    Example:
      >>> scores = np.arange(20.0).reshape(10, 2)
      >>> found = stratified_bootstrap_interval(
      ...     interquartile_mean, scores, seed=0, resamples=200)
      >>> float(found.estimate), bool(found.low < 9.5 < found.high)
      (9.5, True)

    References:
      Agarwal et al., "Deep reinforcement learning at the edge of the statistical
      precipice", NeurIPS 2021. Their library, rliable, has 50,000 resamples by
      default.
    """
    if not scores or resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"{len(scores)} arrays of scores, resamples = {resamples}, confidence = "
            f"{confidence}: give at least one array, resamples >= 1 and a confidence "
            "in (0, 1)."
        )
    given = [_checked(array) for array in scores]
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.asarray(statistic(*(_resampled(array, generator) for array in given)))
            for _ in range(resamples)
        ]
    )
    outside = (1 - confidence) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside], axis=0)
    return Interval(np.asarray(statistic(*given)), np.asarray(low), np.asarray(high))


def improvement_interval(
    first: Scores,
    second: Scores,
    *,
    seed: int | np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """The interval of :func:`probability_of_improvement`.

    Args:
      first: Scores of the first [runs, tasks].
      second: Scores of the second, of the same tasks.
      seed: Of the draws, or a generator for them.
      resamples: How many.
      confidence: Of the interval.

    Returns:
      The interval, by stratified bootstrap.

    Raises:
      ValueError: As :func:`probability_of_improvement` and
        :func:`stratified_bootstrap_interval`.

    Example:
      >>> scores = np.arange(10.0)[:, None]
      >>> found = improvement_interval(scores + 5, scores, seed=0, resamples=200)
      >>> float(found.estimate), bool(found.low > 0.5)
      (0.875, True)
    """
    return stratified_bootstrap_interval(
        _probability_of_improvement,
        *_of_the_same_tasks(first, second),
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )


def ordering(
    first: Scores,
    second: Scores,
    *,
    seed: int | np.random.Generator = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Literal["held", "not held", "undecided"]:
    """Whether runs bear out that the first is better than the second.

    Args:
      first: Scores [runs, tasks] of what is expected to be better.
      second: Scores of what is expected to be worse.
      seed: Of the draws, or a generator for them.
      resamples: How many.
      confidence: Of the interval.

    Returns:
      "held" where the interval of the probability of improvement lies above 0.5, "not
      held" where it lies below. "undecided" where it contains 0.5, and where the runs
      are so few that even if every one of the first were better, or every one worse,
      it would happen by chance more often than the confidence allows: at 0.95 and with
      one task, fewer than four runs of each. (The bootstrap of such runs has no width.)

    Raises:
      ValueError: As :func:`improvement_interval`.

    Example:
      >>> low, high = np.zeros((4, 1)), np.ones((4, 1))
      >>> ordering(high, low, resamples=200), ordering(low, high, resamples=200)
      ('held', 'not held')
      >>> ordering(low, low, resamples=200), ordering(high[:3], low[:3])
      ('undecided', 'undecided')
    """
    first, second = _of_the_same_tasks(first, second)
    runs, tasks = first.shape
    ways = math.comb(runs + second.shape[0], runs) ** tasks
    if 2 / ways > 1 - confidence:
        return "undecided"
    found = improvement_interval(
        first, second, seed=seed, resamples=resamples, confidence=confidence
    )
    if found.low > 0.5:
        return "held"
    return "not held" if found.high < 0.5 else "undecided"


def _interquartile_mean(scores: Scores) -> float:
    every = np.sort(scores, axis=None)
    left_out = every.size // 4
    return float(every[left_out : every.size - left_out].mean())


def _probability_of_improvement(first: Scores, second: Scores) -> float:
    apart = first[:, None, :] - second[None, :, :]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def _resampled(scores: Scores, generator: np.random.Generator) -> Scores:
    runs = generator.integers(scores.shape[0], size=scores.shape)
    return np.take_along_axis(scores, runs, axis=0)


def _checked(scores: Sequence[Sequence[float]] | Scores) -> Scores:
    found = np.asarray(scores, np.float64)
    if found.ndim != 2 or not found.size:
        raise ValueError(
            f"scores have the shape {found.shape}: give an array [runs, tasks]; for "
            "one task, scores[:, None]."
        )
    if not np.isfinite(found).all():
        raise ValueError(
            f"scores have {int((~np.isfinite(found)).sum())} entries that are not "
            "finite: give a run that diverged the lowest score of its task."
        )
    return found


def _of_the_same_tasks(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    first, second = _checked(first), _checked(second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"scores of {first.shape[1]} and {second.shape[1]} tasks cannot be "
            "compared: give both of the same tasks, in the same order."
        )
    return first, second
