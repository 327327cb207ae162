"""PPO learns what can be written down, from what it does and then forgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax.building import ConfigError, build


def config(environment="endless:numbered", task=(), **data):
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
            "task": {
                "name": "ppo",
                "discount": 0.5,
                "epochs": 5,
                "minibatches": 2,
                **dict(task),
            },
            "model": {"name": "mlp", "hidden": (16,), "layer_norm": False},
            "data": {
                "name": f"reinforcement_environments.{environment}",
                "batch_size": 16,
                "environments": 4,
                "normalize": False,
                **data,
            },
            "optimizer": {"name": "adam", "learning_rate": 1e-2},
            "method": {"name": "static", "sparsity": 0.5},
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
    ("terminates", "clip_values"),
    [(False, None), pytest.param(True, 0.5, marks=pytest.mark.slow)],
)
def test_values_end_where_the_world_does_and_not_at_a_time_limit(
    terminates, clip_values
):
    given = config(length=1, terminates=terminates)
    given.task.update({"clip_values": clip_values})
    _, state, metrics = trained(given)
    # A reward of 1 at each step, discounted by a half: 2, or 1 where it is the last.
    expected = 1.0 if terminates else 2.0
    np.testing.assert_allclose(metrics["value"], expected, rtol=0.03)
    # A cycle is 8 steps of 4 copies, and 10 updates.
    assert int(state.step) == 400
    assert float(metrics["environment_steps"]) == 400 / 10 * 8 * 4
    assert state.model_state.replay is None
    sj.verify(state.params, state.optimizer_state)


@pytest.mark.slow
def test_a_gaussian_finds_the_best_action_and_narrows():
    given = config("aim:aim", batch_size=64)
    given.task.update({"initial_deviation": 0.5})
    given.optimizer.learning_rate = 3e-3
    task, state, metrics = trained(given)
    for number in range(2):
        alone = task.one_of(state, number)
        mean = task.forward(alone.params, alone.model_state, jnp.ones((1, 2)))[0, 0]
        # In [-1, 1] the best action is -0.5: -2 of [-3, 1].
        np.testing.assert_allclose(mean, -0.5, atol=0.08)
        assert float(jnp.exp(alone.params["log_deviation"][0])) < 0.3
    row = task.gather([task.evaluation_step(state, {})])
    assert row["episode_return"] > -0.1
    assert 0 < float(metrics["clipped"]) < 1 and float(metrics["divergence"]) > 0
    sj.verify(state.params, state.optimizer_state)


def test_actor_and_critic_move_by_updates_and_keep_their_own_counts():
    given = config(normalize=True)
    given.method = {
        "name": "rigl",
        "sparsity": 0.5,
        "every": 50,
        "stop": 150,
        "track": True,
    }
    with given.unlocked():
        given.critic = {"method": {"sparsity": 0.25}}
    task, state, _ = trained(given, calls=2)
    alone = task.one_of(state)
    # Every 50 from the 50th on, before the 150th: of each part.
    assert sj.moves(alone.optimizer_state) == 2
    counts = sj.counts(alone.optimizer_state)
    for part, density in (("actor", 0.5), ("critic", 0.75)):
        own = [count for path, count in counts.items() if path.startswith(part)]
        size = sum(size for _, size in own)
        assert sum(active for active, _ in own) == round(density * size)
    # Every step of every copy, once.
    statistics = alone.model_state.statistics
    assert int(statistics.count) == int(alone.model_state.frames) == 20 * 32
    np.testing.assert_allclose(statistics.mean, 1.0, rtol=1e-6)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_it_would_have():
    given = config("aim:aim", normalize=True)
    task, whole, _ = trained(given)
    _, half, _ = trained(given, calls=2)
    half = jax.tree.map(jnp.array, half)
    for _ in range(2):
        half, _ = jax.jit(task.train_step)(half, {})
    jax.tree.map(np.testing.assert_array_equal, *map(_plain, (whole, half)))


def _plain(state):
    def data(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(data, state)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task.discount", 2.0, r"config\.task\.discount = 2\.0: give one in \[0, 1\]"),
        ("task.advantage_decay", -0.1, r"config\.task\.advantage_decay = -0\.1"),
        ("task.clip", 0.0, r"config\.task\.clip = 0\.0: give a number above 0"),
        ("task.clip_values", -1.0, r"config\.task\.clip_values = -1\.0"),
        ("task.entropy_weight", -1.0, r"config\.task\.entropy_weight = -1\.0"),
        ("task.epochs", 0, r"config\.task\.epochs = 0: give an integer >= 1"),
        ("task.epochs", 3, r"config\.updates_per_call = 100: give a multiple of 6"),
        ("data.environments", 3, r"config\.data\.batch_size = 16, times .* multiple"),
        ("data.replay_size", 256, r"config\.data\.replay_size = 256.*no replay"),
    ],
)
def test_what_cannot_be_is_refused(field, value, message):
    given = config()
    place, name = field.split(".")
    with given.unlocked():
        given[place][name] = value
    with pytest.raises(ConfigError, match=message):
        build("task", given.task, "sparsejax.tasks", given)
