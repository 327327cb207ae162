import numpy as np
import pytest

from sparsejax.reinforcement.advantages import generalized_advantages


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_advantages_are_those_of_a_walk_through_the_steps(decay):
    rng = np.random.default_rng(0)
    shape, discount = (16, 23), 0.97
    reward, value, next_value = rng.normal(size=(3, *shape)).astype(np.float32)
    ended, cut = rng.random((2, *shape)) < 0.3
    terminated, truncated = ended & ~cut, ended & cut
    assert terminated.any() and truncated.any() and not ended[:, -1].all()
    found = generalized_advantages(
        reward,
        value,
        next_value,
        terminated=terminated,
        truncated=truncated,
        discount=discount,
        decay=decay,
    )
    for row in range(shape[0]):
        for first in range(shape[1]):
            expected, weight = 0.0, 1.0
            for step in range(first, shape[1]):
                after = 0.0 if terminated[row, step] else next_value[row, step]
                surprise = reward[row, step] + discount * after - value[row, step]
                expected += weight * surprise
                weight *= discount * decay
                if ended[row, step]:
                    break
            np.testing.assert_allclose(
                found[row, first], expected, rtol=1e-4, atol=1e-5
            )
