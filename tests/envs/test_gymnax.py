import jax
import numpy as np
import pytest

pytest.importorskip("gymnax")

from rollout import check, rollout

from sparsejax.building import ConfigError
from sparsejax.envs import make
from sparsejax.envs.gymnax import gymnax

MINATAR = ["Asterix-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar"]


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
def test_classic_control(name):
    environment = gymnax(name)
    before, found = rollout(environment, steps=300)
    check(environment, before, found)


@pytest.mark.parametrize(
    "name",
    ["Breakout-MinAtar", *(pytest.param(n, marks=pytest.mark.slow) for n in MINATAR)],
)
def test_minatar(name):
    environment = gymnax(name)
    before, found = rollout(environment, steps=300)
    check(environment, before, found)
    assert environment.observation_shape[:2] == (10, 10)
    assert before.dtype == bool
    assert before.any()


def test_an_episode_that_fails_terminates():
    _, found = rollout(gymnax("CartPole-v1"), steps=200)
    assert found.terminated.any()
    assert not found.truncated.any()
    # The last observation of an episode is what ended it.
    last, first = found.next_observation, found.observation
    assert (np.abs(last[found.terminated][:, [0, 2]]) > [2.4, 0.2]).any(axis=1).all()
    assert (np.abs(first[found.terminated]) <= 0.05).all()


def test_an_episode_that_takes_too_long_is_truncated():
    environment = gymnax("Pendulum-v1")
    _, found = rollout(environment, steps=450)
    assert environment.episode_limit == 200
    assert not found.terminated.any()
    expected = np.zeros(450, bool)
    expected[[199, 399]] = True
    np.testing.assert_array_equal(found.truncated, np.stack([expected] * 2, 1))


def test_new_episodes_differ():
    _, found = rollout(gymnax("Pendulum-v1"), steps=200, copies=4)
    begun = found.observation[found.truncated]
    assert len(np.unique(begun, axis=0)) == 4


def test_numbered_actions_and_vectors():
    numbered, vectors = make("gymnax:CartPole-v1"), make("gymnax:Pendulum-v1")
    assert (numbered.number_of_actions, numbered.action_shape) == (2, ())
    assert numbered.action_dtype == np.int32
    assert (vectors.number_of_actions, vectors.action_shape) == (None, (1,))
    assert (vectors.action_low, vectors.action_high) == ([-2], [2])


def test_making_prints_nothing(capfd):
    gymnax("Breakout-MinAtar")
    assert capfd.readouterr() == ("", "")


def test_the_same_keys_are_the_same_episodes():
    first = rollout(gymnax("CartPole-v1"), steps=50, seed=1)
    second = rollout(gymnax("CartPole-v1"), steps=50, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v1", "give the library and the environment"),
        ("gymnax:", "give the library and the environment"),
        ("gymnax:CartPole", "did you mean 'CartPole-v1'"),
        ("gimnax:CartPole-v1", "did you mean 'gymnax'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(ConfigError, match=message):
        make(name)


def test_options_that_are_none():
    with pytest.raises(ConfigError, match="'gymnax' has no such argument"):
        make("gymnax:CartPole-v1", backend="spring")
