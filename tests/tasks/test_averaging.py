import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax import configuration, train
from sparsejax.building import ConfigError, build
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.tasks.averaging import average_decay, first_average, next_average


def test_an_average_of_two_steps_by_hand():
    tx = sj.dense(optax.sgd(0.1))
    params = {"kernel": jnp.array([1.0, 2.0])}
    state = tx.init(params)
    average = first_average(
        params, {"mean": jnp.array(4.0), "seen": jnp.array(1)}, state
    )
    for step, scale in ((0, 3.0), (1, 5.0)):
        average = next_average(
            average,
            {"kernel": scale * params["kernel"]},
            {"mean": jnp.array(0.0), "seen": jnp.array(7)},
            optimizer_state=state,
            step=jnp.array(step),
            decay=0.15,
        )
    # Decays of 1 / 10, then of 0.15 (2 / 11 is more).
    factor = 0.15 * (0.1 * 1 + 0.9 * 3) + 0.85 * 5
    np.testing.assert_allclose(average.params["kernel"], factor * params["kernel"])
    np.testing.assert_allclose(average.model_state["mean"], 4 * 0.1 * 0.15, rtol=1e-6)
    assert average.model_state["seen"] == 7


@pytest.mark.parametrize(
    "method", ["rigl", pytest.param("hard_concrete", marks=pytest.mark.slow)]
)
def test_the_average_is_sparse_and_is_what_is_evaluated(method, data_dir):
    config = configuration.load(f"mlp:{method}")
    config.unlock()
    config.update({"steps": 12, "average": {"decay": 0.9}})
    config.model.hidden = (32,)
    if method == "rigl":
        config.method.update({"every": 3, "stop": 9})
    task = build("task", "classify", "sparsejax.tasks", config)
    state = jax.jit(task.initialise)(jax.random.key(0))
    batches = train_iterator(task.dataset, batch_size=128, seed=0)
    step = jax.jit(task.train_step)
    seen = []
    for _ in range(12):
        state, _ = step(state, next(batches))
        seen.append(state)
    sj.verify(state.average.params, state.optimizer_state)
    kernel = np.asarray(state.average.params["hidden0"]["kernel"])
    assert np.any(kernel != np.asarray(state.params["hidden0"]["kernel"]))
    if method == "rigl":
        # Without masks it would have the weights of all topologies so far.
        union = np.any([s.params["hidden0"]["kernel"] != 0 for s in seen], axis=0)
        assert np.count_nonzero(kernel) < np.count_nonzero(union)
    (batch,) = evaluation_batches(task.dataset, batch_size=360)
    found = task.evaluation_step(state, batch)
    logits = task.forward(*state.average, batch["image"])
    correct = (logits.argmax(axis=1) == batch["label"]).sum()
    assert float(found["correct"]) == float(correct)


@pytest.mark.parametrize("average", [None, {"decay": 0.0}])
def test_no_average(average):
    assert average_decay({"average": average}) is None
    assert average_decay({}) is None


@pytest.mark.slow
def test_a_run_with_an_average_is_resumed(tmp_path, data_dir):
    arguments = [
        "--config=rigl_mlp",
        "--config.average.decay=0.9",
        f"--workdir={tmp_path / 'run'}",
    ]
    arguments += [
        "--config.steps=40",
        "--config.checkpoint_every=20",
        "--config.method.every=5",
    ]
    assert train.main(arguments) == train.FINISHED
    evaluated = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    # As if it had been stopped after step 20.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "40")
    (tmp_path / "run" / "summary.json").unlink()
    assert train.main(arguments) == train.FINISHED
    again = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    wanted, found = json.loads(evaluated), json.loads(again)
    assert {k: v for k, v in wanted.items() if k != "seconds"} == {
        k: v for k, v in found.items() if k != "seconds"
    }


@pytest.mark.parametrize(
    ("average", "message"),
    [
        ({"decay": 1.0}, r"average.decay = 1.0 is not in \[0, 1\)"),
        ({"rate": 0.1}, "give {'decay': 0.999}"),
        (0.999, "give {'decay': 0.999}"),
    ],
)
def test_bad_settings(average, message):
    with pytest.raises(ConfigError, match=message):
        average_decay({"average": average})
