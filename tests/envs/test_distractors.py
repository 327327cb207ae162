import jax
import numpy as np
import pytest

pytest.importorskip("gymnax")

from rollout import check, rollout

from sparsejax.building import ConfigError
from sparsejax.envs import make
from sparsejax.envs.distractors import with_distractors, with_observation_noise

PENDULUM = "gymnax:Pendulum-v1"


def test_features_of_noise_are_appended_and_nothing_else_changes():
    exact, noisy = make(PENDULUM), make(PENDULUM, distractors=27, distractor_scale=3.0)
    assert noisy.observation_shape == (30,)
    before, found = rollout(noisy, steps=401, copies=4)
    check(noisy, before, found)
    expected_before, expected = rollout(exact, steps=401, copies=4)
    np.testing.assert_allclose(before[..., :3], expected_before, atol=1e-3)
    np.testing.assert_allclose(found.reward, expected.reward, atol=1e-3)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    noise = before[..., 3:]
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(3.0, rel=0.02)


def test_noise_is_new_at_every_step_in_every_copy_and_in_every_feature():
    before, _ = rollout(make(PENDULUM, distractors=5), steps=401, copies=4)
    noise = before[..., 3:]
    assert len(np.unique(noise)) > 0.999 * noise.size
    correlation = np.corrcoef(noise.reshape(-1, 5).T) - np.eye(5)
    assert np.abs(correlation).max() < 0.1
    later = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert abs(later) < 0.05


def test_what_an_episode_ends_with_has_noise_of_its_own():
    _, found = rollout(make(PENDULUM, distractors=5), steps=200)
    last, new = found.next_observation, found.observation
    assert (last[found.truncated] != new[found.truncated]).all()


def test_observations_are_inexact_and_nothing_else_changes():
    exact, noisy = make(PENDULUM), make(PENDULUM, observation_noise=0.1)
    before, found = rollout(noisy, steps=401, copies=4)
    check(noisy, before, found)
    expected_before, expected = rollout(exact, steps=401, copies=4)
    np.testing.assert_allclose(found.reward, expected.reward, atol=1e-3)
    difference = before - expected_before
    assert abs(difference.mean()) < 0.01
    assert difference.std() == pytest.approx(0.1, rel=0.05)


def test_both_at_once_are_independent():
    exact = make(PENDULUM)
    noisy = make(PENDULUM, distractors=3, observation_noise=1.0)
    before, _ = rollout(noisy, steps=401, copies=4)
    noise = before[..., :3] - rollout(exact, steps=401, copies=4)[0]
    found = np.corrcoef(noise.ravel(), before[..., 3:].ravel())[0, 1]
    assert abs(found) < 0.05


def test_no_noise_is_the_environment_itself():
    environment = make("gymnax:Breakout-MinAtar")
    assert with_distractors(environment, count=0) is environment
    assert with_observation_noise(environment, scale=0.0) is environment


def test_it_can_be_vmapped_over_keys():
    environment = make("gymnax:CartPole-v1", distractors=36)
    _, observations = jax.vmap(environment.reset)(
        jax.random.split(jax.random.key(0), 8)
    )
    assert observations.shape == (8, 40)


@pytest.mark.parametrize("options", [{"distractors": 4}, {"observation_noise": 0.1}])
def test_pictures_cannot_have_it(options):
    with pytest.raises(ConfigError, match=r"Breakout-MinAtar are bool of shape \(10,"):
        make("gymnax:Breakout-MinAtar", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distractors": -1}, "data.distractors = -1: give an integer >= 0"),
        ({"distractors": 1, "distractor_scale": -1.0}, "data.distractor_scale = -1.0"),
        ({"observation_noise": -0.5}, "data.observation_noise = -0.5: give a number"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        make(PENDULUM, **options)
