import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.building import ConfigError
from sparsejax.reinforcement.replay import Transition, make_replay, outcome

pytest.importorskip("flashbax")

from reinforcement_environments import endless


def sequences(batch, steps, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, steps)
    ended = rng.random(shape) < 0.4
    cut = rng.random(shape) < 0.5
    return Transition(
        rng.normal(size=(*shape, 3)).astype(np.float32),
        rng.integers(2, size=shape),
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=(*shape, 3)).astype(np.float32),
        ended & ~cut,
        ended & cut,
    )


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_outcome_is_that_of_a_walk_through_the_steps(steps):
    found = sequences(64, steps)
    result = outcome(jax.tree.map(jnp.asarray, found), 0.9)
    for row in range(64):
        reward, factor = 0.0, 1.0
        for step in range(steps):
            reward += factor * found.reward[row, step]
            factor *= 0.9
            if found.terminated[row, step]:
                factor = 0.0
            if found.terminated[row, step] or found.truncated[row, step]:
                break
        np.testing.assert_allclose(result.reward[row], reward, rtol=1e-5)
        np.testing.assert_allclose(result.discount[row], factor, rtol=1e-6)
        np.testing.assert_array_equal(
            result.next_observation[row], found.next_observation[row, step]
        )


def test_what_is_remembered_comes_back_and_the_oldest_goes():
    buffer, example = make_replay(
        endless("numbered"), size=8, environments=2, batch_size=64, steps=1
    )
    state = buffer.init(example)
    for step in range(6):
        row = jax.tree.map(lambda x: jnp.zeros((2, 1, *x.shape), x.dtype), example)
        row = row._replace(reward=jnp.full((2, 1), float(step)))
        state = buffer.add(state, row)
    drawn = buffer.sample(state, jax.random.key(0)).experience.reward
    assert sorted(set(np.asarray(drawn).ravel().tolist())) == [2.0, 3.0, 4.0, 5.0]


def test_a_size_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"replay_size = 7: give a multiple of.* 2"):
        make_replay(endless("numbered"), size=7, environments=2, batch_size=1)
