import jax
import numpy as np

from sparsejax.reinforcement.normalization import normalized, seen, unseen


def test_statistics_are_those_of_all_observations_together():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, size=(n, 4)).astype(np.float32) for n in (1, 5, 40)]
    statistics = unseen((4,))
    for batch in batches:
        statistics = jax.jit(seen)(statistics, batch)
    together = np.concatenate(batches)
    assert int(statistics.count) == 46
    np.testing.assert_allclose(statistics.mean, together.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.deviation, together.var(0), rtol=1e-5)
    shown = np.asarray(normalized(statistics, together))
    np.testing.assert_allclose(shown.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(shown.std(0), 1, rtol=1e-4)


def test_extremes_are_cut_and_none_changes_nothing():
    statistics = seen(unseen(()), np.float32([0.0, 2.0]))
    assert float(normalized(statistics, np.float32(1e9))) == 10
    assert normalized(None, 7) == 7
