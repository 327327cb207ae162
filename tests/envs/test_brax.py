import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("brax")

from rollout import check, rollout

from sparsejax.building import ConfigError
from sparsejax.envs import make
from sparsejax.envs.brax import brax

ROBOTS = "ant halfcheetah hopper humanoid humanoidstandup inverted_double_pendulum "
ROBOTS += "inverted_pendulum pusher reacher walker2d"


def test_a_point_without_physics():
    environment = brax("fast", episode_limit=10)
    before, found = rollout(environment, steps=25)
    check(environment, before, found)
    assert not found.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(found.truncated[:, 0]), [9, 19])
    # It goes on from where it was within an episode, and starts anew after one.
    assert (found.next_observation[9] != 0).any()
    assert (found.observation[9] == 0).all()


@pytest.mark.slow
def test_an_episode_that_fails_terminates():
    environment = brax("inverted_pendulum", episode_limit=5)
    # Pushed to one side it falls; the limit cuts most episodes off before.
    before, found = rollout(environment, steps=40, copies=16)
    check(environment, before, found)
    assert found.terminated.any()
    assert found.truncated.any()
    assert not (found.terminated & found.truncated).any()
    fallen = np.abs(found.next_observation[..., 1]) > 0.2
    np.testing.assert_array_equal(found.terminated, fallen)
    begun = found.observation[found.terminated | found.truncated]
    assert (np.abs(begun) <= 0.01).all()
    assert len(np.unique(begun, axis=0)) == len(begun)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS.split())
def test_every_robot_moves(name):
    environment = brax(name, episode_limit=100)
    before, found = rollout(environment, steps=250)
    check(environment, before, found)
    assert (found.terminated | found.truncated).any()
    assert (found.reward.std(axis=0) > 0).all() or name == "inverted_pendulum"


@pytest.mark.slow
@pytest.mark.xfail(reason="brax 0.14.2 calls jax.numpy.clip as it no longer is")
def test_the_swimmer_moves():
    check(brax("swimmer"), *rollout(brax("swimmer"), steps=250))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["positional", "spring", "mjx"])
def test_other_physics(backend):
    environment = brax("inverted_pendulum", backend=backend, episode_limit=100)
    before, found = rollout(environment, steps=250)
    check(environment, before, found)


def test_actions():
    environment = make("brax:ant", episode_limit=7)
    assert environment.name == "brax:ant"
    assert environment.episode_limit == 7
    assert environment.action_shape == (8,)
    assert (environment.action_low == -1).all() and (environment.action_high == 1).all()
    assert environment.number_of_actions is None


def test_making_says_nothing_and_writes_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    brax("halfcheetah")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_importing_says_nothing(tmp_path):
    # In a process of its own: the libraries speak when they are first imported.
    script = "from sparsejax.envs import make; make('brax:halfcheetah')"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("half_cheetah", {}, r"data.name = 'brax:half_cheetah'.*mean 'halfcheetah'"),
        ("ant", {"backend": "mujoco"}, r"data.backend = 'mujoco': unknown; give one"),
        ("swimmer", {"backend": "spring"}, "brax has none such for 'swimmer'"),
        ("fast", {"episode_limit": 0}, r"data.episode_limit = 0: give an integer"),
    ],
)
def test_what_there_is_not(name, options, message):
    with pytest.raises(ConfigError, match=message):
        brax(name, **options)
