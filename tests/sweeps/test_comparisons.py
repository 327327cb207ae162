import numpy as np
import pytest
from scipy import stats

from sparsejax.sweeps.comparisons import bootstrap, compare, holm, pareto, sign_flip


@pytest.mark.parametrize("count", [2, 5, 9])
def test_the_tests_are_those_of_scipy(count):
    a, b = np.random.default_rng(count).normal(size=(2, count))
    a = a + 0.6
    found = compare(a.tolist(), b.tolist())
    assert found.paired_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-4)
    exact = stats.permutation_test(
        (a, b),
        lambda x, y, axis=-1: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert found.sign_flip == pytest.approx(exact.pvalue)
    assert found.difference.mean == pytest.approx(a.mean() - b.mean())


def test_the_bootstrap_is_scipy_s():
    values = np.random.default_rng(0).normal(size=20)
    ours = bootstrap(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1)
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02)


def test_one_value_is_its_own_interval():
    assert bootstrap([0.5]) == (0.5, 0.5, 0.5)


def test_many_pairs_are_sampled():
    values = np.random.default_rng(1).normal(0.4, 1, size=40)
    t = stats.ttest_1samp(values, 0).pvalue
    assert sign_flip(values.tolist()) == pytest.approx(t, abs=0.02)


def test_equal_values_do_not_differ():
    found = compare([0.9, 0.8], [0.9, 0.8])
    assert (found.paired_t, found.sign_flip) == (1, 1)


def test_pairs_have_two_sides():
    with pytest.raises(ValueError, match="2 and 1 values"):
        compare([1.0, 2.0], [1.0])


def test_holm_keeps_the_order_and_never_exceeds_one():
    # Worked by hand: 4 x 0.01, 3 x 0.02, max(2 x 0.03, 0.06), 1 x 0.8.
    assert holm([0.8, 0.02, 0.01, 0.03]) == pytest.approx([0.8, 0.06, 0.04, 0.06])
    assert holm([0.9, 0.7]) == [1.0, 1.0]


def test_the_front_is_what_nothing_beats():
    costs, values = [4, 1, 2, 3, 2], [0.9, 0.5, 0.7, 0.6, 0.8]
    assert pareto(costs, values) == [1, 4, 0]
    assert pareto(costs, values, more_is_better=False) == [1]
