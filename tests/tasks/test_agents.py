"""Agents learn the values that can be written down, and go on where they stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax.building import ConfigError, build

pytest.importorskip("flashbax")


def config(
    task="dqn", environment="reinforcement_environments.endless:numbered", **data
):
    own = {"discount": 0.5} if task in ("dqn", "sac") else {}
    return ConfigDict(
        {
            "seed": 0,
            "seeds": 2,
            "steps": 400,
            "updates_per_call": 100,
            "log_every": 100,
            "evaluate_every": 200,
            "checkpoint_every": 200,
            "evaluation_episodes": 3,
            "task": {"name": task, **own},
            "model": {"name": "mlp", "hidden": (16, 16), "layer_norm": False},
            "data": {
                "name": environment,
                "batch_size": 16,
                "environments": 2,
                "replay_size": 256,
                "learning_starts": 16,
                "normalize": False,
                **data,
            },
            "optimizer": {"name": "adam", "learning_rate": 1e-2},
            "method": {"name": "rigl", "sparsity": 0.5, "every": 50, "stop": 300},
        }
    )


def trained(given, calls=None):
    task = build("task", given.task, "sparsejax.tasks", given)
    state = jax.jit(task.initialise)(jax.random.key(given.seed))
    step = jax.jit(task.train_step)
    for _ in range(calls or given.steps // given.updates_per_call):
        state, metrics = step(state, {})
    return task, state, metrics


@pytest.mark.parametrize(
    ("n_steps", "double", "terminates"),
    [
        (1, True, False),
        (3, False, True),
        pytest.param(1, True, True, marks=pytest.mark.slow),
        pytest.param(3, True, False, marks=pytest.mark.slow),
        pytest.param(1, False, False, marks=pytest.mark.slow),
    ],
)
def test_values_end_where_the_world_does_and_not_at_a_time_limit(
    n_steps, double, terminates
):
    given = config(length=1, terminates=terminates)
    given.method = {"name": "static", "sparsity": 0.5}
    given.task.update({"n_steps": n_steps, "double": double, "target_every": 20})
    task, state, metrics = trained(given)
    # A reward of 1 at each step, discounted by a half: 2, or 1 where it is the last.
    expected = 1.0 if terminates else 2.0
    for number in range(2):
        alone = task.one_of(state, number)
        values = task.forward(alone.params, alone.model_state, jnp.ones((1, 2)))
        np.testing.assert_allclose(values, expected, rtol=0.03)
    assert int(state.step) == 400 and metrics["loss"].shape == ()
    sj.verify(state.params, state.optimizer_state)


def test_evaluation_is_the_return_without_discount():
    given = config(length=7)
    given.method = {"name": "dense"}
    task, state, metrics = trained(given, calls=1)
    row = task.gather([task.evaluation_step(state, {})])
    assert row["episode_return"] == row["episode_length"] == 7
    assert row["episode_return_of_seed"] == {"0": 7.0, "1": 7.0}
    assert float(metrics["training_return"]) == 7
    # Random before learning: 8 steps of 2 copies; then one step of each an update.
    assert float(metrics["environment_steps"]) == 16 + 100 * 2


def test_sac_finds_the_best_action_and_its_value():
    given = config("sac", "reinforcement_environments.aim:aim")
    given.task.update({"initial_temperature": 0.02, "target_entropy": -2.0})
    given.model.update({"hidden": (32, 32), "layer_norm": True})
    given.data.update({"batch_size": 32, "replay_size": 4096, "learning_starts": 128})
    given.optimizer.learning_rate = 3e-3
    given.method = {"name": "dense"}
    given.steps = 1_500
    task, state, _ = trained(given)
    for number in range(2):
        alone = task.one_of(state, number)
        mean = task.forward(alone.params, alone.model_state, jnp.ones((1, 2)))[0, 0]
        # In [-1, 1] the best action is 0: -2 of [-3, 1] would be -0.5.
        np.testing.assert_allclose(np.tanh(mean), -0.5, atol=0.04)
    row = task.gather([task.evaluation_step(state, {})])
    assert row["episode_return"] > -0.01
    sj.verify(state.params, state.optimizer_state)


@pytest.mark.slow
def test_targets_of_sac_are_as_sparse_as_the_critics():
    given = config("sac", "reinforcement_environments.aim:aim")
    task, state, _ = trained(given, calls=2)
    masks = sj.masks(state.optimizer_state)
    for critic in ("critic1", "critic2"):
        targets = state.model_state.targets[critic]
        for layer in ("hidden0", "hidden1", "head"):
            mask, target = masks[critic][layer]["kernel"], targets[layer]["kernel"]
            assert not target[~mask].any() and target[mask].any()
    del task


def test_the_topology_moves_by_updates_and_keeps_its_counts():
    given = config()
    given.method.track = True
    task, state, _ = trained(given)
    alone = task.one_of(state)
    # Every 50 from the 50th on, before the 300th.
    assert sj.moves(alone.optimizer_state) == 5
    counts = sj.counts(alone.optimizer_state)
    size = sum(size for _, size in counts.values())
    assert sum(active for active, _ in counts.values()) == round(size / 2)


def test_a_step_of_the_environments_may_be_followed_by_several_updates():
    given = config()
    given.data.updates_per_step = 4
    given.method = {"name": "dense"}
    _, state, metrics = trained(given, calls=1)
    assert int(state.step) == 100
    assert float(metrics["environment_steps"]) == 16 + 25 * 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task.discount", 2.0, r"config\.task\.discount = 2\.0: give one in \[0, 1\]"),
        ("task.n_steps", 0, r"config\.task\.n_steps = 0"),
        ("data.environments", 0, r"config\.data\.environments = 0: give an integer"),
        ("data.replay_size", 255, r"config\.data\.replay_size = 255: give a multiple"),
        ("data.name", "gymnax", r"config\.data\.name = 'gymnax': give the library"),
        ("data.name", "gymnax:CartPole", "did you mean 'CartPole-v1'"),
        ("data.name", "gymnax:Pendulum-v1", "use config.task.name = 'sac'"),
        ("seeds", 0, r"config\.seeds = 0: give an integer >= 1"),
        ("updates_per_call", 300, r"config\.steps = 400: give a multiple of"),
        ("data.speed", 3, r"config\.data\.speed = 3"),
        ("data.observation_scale", -1.0, r"config\.data\.observation_scale = -1\.0"),
    ],
)
def test_what_cannot_be_is_refused(field, value, message):
    given = config()
    with given.unlocked():
        given.update_from_flattened_dict({field: value})
        if field == "data.speed":
            given.data.speed = value
    with pytest.raises(ConfigError, match=message):
        build("task", given.task, "sparsejax.tasks", given)
