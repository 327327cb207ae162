import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsejax.reinforcement.statistics import (
    improvement_interval,
    interquartile_mean,
    ordering,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap_interval,
)

stats = pytest.importorskip("scipy.stats")

# Small whole numbers, so that there are ties.
SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.just(3)),
    elements=st.integers(-4, 4).map(float),
)


def drawn(runs, tasks, *, seed=0, better=0.0):
    return np.random.default_rng(seed).normal(better, 1.0, (runs, tasks))


@given(SCORES)
def test_the_interquartile_mean_is_scipys_trimmed_mean(scores):
    expected = stats.trim_mean(scores, proportiontocut=0.25, axis=None)
    assert interquartile_mean(scores) == pytest.approx(expected)


@given(SCORES, SCORES)
def test_the_probability_of_improvement_is_that_of_mann_and_whitney(first, second):
    expected = [
        stats.mannwhitneyu(ours, theirs).statistic / (ours.size * theirs.size)
        for ours, theirs in zip(first.T, second.T, strict=True)
    ]
    found = probability_of_improvement(first, second)
    assert found == pytest.approx(np.mean(expected))
    assert found + probability_of_improvement(second, first) == pytest.approx(1)


def test_the_profile_counts_runs_above_each_threshold():
    scores, thresholds = drawn(7, 3), np.linspace(-2, 2, 5)
    expected = [
        sum(score > threshold for score in scores.ravel()) / 21
        for threshold in thresholds
    ]
    np.testing.assert_allclose(performance_profile(scores, thresholds), expected)


def test_the_interval_of_one_task_is_scipys():
    scores = drawn(12, 1)
    found = stratified_bootstrap_interval(np.mean, scores, seed=0, resamples=20_000)
    expected = stats.bootstrap(
        (scores[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert found.estimate == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)


def test_the_interval_of_two_runs_by_hand():
    # Of the four equally likely resamples one has the mean 0, two 0.5, one 1.
    scores = np.array([[0.0], [1.0]])
    found = stratified_bootstrap_interval(
        np.mean, scores, seed=0, resamples=5_000, confidence=0.6
    )
    assert found[1:] == (0.0, 1.0)
    found = stratified_bootstrap_interval(
        np.mean, scores, seed=0, resamples=5_000, confidence=0.4
    )
    assert found[1:] == (0.5, 0.5)


def test_runs_are_drawn_within_their_task_for_each_task_alone():
    scores = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
    seen = []

    def statistic(resampled):
        assert set(resampled[:, 0]) <= {0.0, 1.0, 2.0}
        assert set(resampled[:, 1]) <= {10.0, 11.0, 12.0}
        seen.append(tuple(resampled[:, 1] - resampled[:, 0]))
        return 0.0

    stratified_bootstrap_interval(statistic, scores, seed=0, resamples=50)
    assert set(seen) != {(10.0, 10.0, 10.0)}


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        found = stratified_bootstrap_interval(
            np.mean, drawn(20, 2, seed=seed), seed=seed, resamples=200
        )
        covered += bool(found.low <= 0 <= found.high)
    # Percentiles of few runs are known to be a little too narrow.
    assert 170 <= covered <= 199


def test_an_interval_has_the_shape_of_the_statistic_and_its_seed():
    def profile(scores):
        return performance_profile(scores, np.array([-1.0, 0.0, 1.0]))

    def interval(seed):
        return stratified_bootstrap_interval(
            profile, drawn(6, 2), seed=seed, resamples=100
        )

    found = interval(0)
    assert all(np.shape(part) == (3,) for part in found)
    assert (found.low <= found.estimate).all()
    assert (found.estimate <= found.high).all()
    np.testing.assert_array_equal(found, interval(np.random.default_rng(0)))


def test_both_sides_of_a_comparison_are_drawn_anew():
    # Were they drawn together, a run would always be compared with itself.
    scores = drawn(5, 1)
    found = improvement_interval(scores, scores, seed=0, resamples=500)
    assert found.estimate == 0.5
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    ("better", "expected"),
    [(5.0, "held"), (-5.0, "not held"), (0.0, "undecided")],
)
def test_orderings(better, expected):
    first, second = np.linspace(-1, 1, 8)[:, None], np.linspace(-1, 1, 6)[:, None]
    first = first + better
    assert ordering(first, second, resamples=500) == expected


@pytest.mark.parametrize(
    ("runs", "tasks", "expected"),
    # By chance alone: 2 of 20 ways, 2 of 70, 2 of 36, and 2 of 6 ** 3.
    [(3, 1, "undecided"), (4, 1, "held"), (2, 2, "undecided"), (2, 3, "held")],
)
def test_few_runs_decide_nothing(runs, tasks, expected):
    first, second = drawn(runs, tasks, better=50), drawn(runs, tasks)
    assert ordering(first, second, resamples=100) == expected


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((0, 2)), r"shape \(0, 2\): give an array \[runs, tasks\]"),
        (np.array([[0.0], [np.nan]]), "1 entries that are not finite"),
    ],
)
def test_scores_that_are_none(scores, message):
    with pytest.raises(ValueError, match=message):
        interquartile_mean(scores)
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap_interval(np.mean, scores, seed=0)


def test_scores_of_one_task_need_its_axis():
    with pytest.raises(ValueError, match=r"for one task, scores\[:, None\]"):
        interquartile_mean(np.zeros(3))


def test_scores_of_other_tasks_are_not_compared():
    with pytest.raises(ValueError, match="of 2 and 3 tasks"):
        probability_of_improvement(np.zeros((4, 2)), np.zeros((4, 3)))


@pytest.mark.parametrize("bad", [{"resamples": 0}, {"confidence": 1.0}])
def test_intervals_that_are_none(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        stratified_bootstrap_interval(np.mean, np.zeros((2, 1)), seed=0, **bad)
