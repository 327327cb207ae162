import json
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

pytest.importorskip("pycocotools")

import sparsejax as sj
from sparsejax import metrics, recipes, train
from sparsejax.building import ConfigError
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.detection.anchors import anchor_boxes
from sparsejax.detection.boxes import encode
from sparsejax.detection.matching import match
from sparsejax.detection.suppression import Detections
from sparsejax.tasks.averaging import average_decay
from sparsejax.tasks.detect import detect

RIGL = {"name": "rigl", "sparsity": 0.5, "every": 5, "stop": 15, "where": "kernel"}


class Tiny(nnx.Module):
    """A detector of two layers, which is not part of the library."""

    def __init__(self, classes, rngs):
        self.patches = nnx.Conv(1, 24, (16, 16), strides=8, padding="SAME", rngs=rngs)
        self.head = nnx.Linear(24, 4 * (classes + 5), rngs=rngs)

    def __call__(self, inputs, train=False):
        hidden = jax.nn.relu(self.patches(inputs))
        return self.head(hidden).reshape(len(inputs), 8 * 8 * 4, -1)

    def anchors(self):
        return anchor_boxes([(8, 8)], ratios=[(2,)], scales=(0.3, 0.3))


def tiny(input_shape, number_of_classes, *, rngs):
    return Tiny(number_of_classes, rngs)


@pytest.fixture(scope="module")
def make(data_dir):
    def make(**changes):
        fields = {
            "seed": 0,
            "task": "detect",
            "steps": 20,
            "model": {"name": f"{__name__}.tiny"},
            "data": {"name": "digit_scenes", "batch_size": 32, "augment": False},
            "optimizer": {"name": "adam", "learning_rate": 3e-3},
            "learning_rate_schedule": {"name": "constant"},
            "method": RIGL,
            "detection": {"maximum": 20},
        }
        config = ConfigDict({**fields, **changes})
        config.data.data_dir = str(data_dir)
        return config

    return make


@pytest.fixture(scope="module")
def task(make):
    return detect(make())


@pytest.fixture(scope="module")
def trained(task):
    """The initial and the final state of a short run, and its metrics."""
    iterator = train_iterator(task.dataset, batch_size=32, seed=0)
    state = initial = jax.jit(task.initialise)(jax.random.key(0))
    step = jax.jit(task.train_step)
    rows = []
    for _ in range(20):
        state, scalars = step(state, next(iterator))
        rows.append({name: float(value) for name, value in scalars.items()})
    assert step._cache_size() == 1
    return initial, state, rows


def test_sparse_training_lowers_the_loss_at_its_exact_budget(trained):
    _, state, rows = trained
    sj.verify(state.params, state.optimizer_state)
    counts = sj.counts(state.optimizer_state)
    assert {path for path, _ in counts.items()} == {"patches/kernel", "head/kernel"}
    size = 16 * 16 * 24 + 24 * 60
    assert sum(active for active, _ in counts.values()) == size // 2
    assert np.mean([r["loss"] for r in rows[-3:]]) < 0.8 * rows[0]["loss"]


def test_metrics_of_the_first_step(task, trained):
    initial, _, rows = trained
    names = {"loss", "classification", "localisation", "gradient_norm"}
    assert set(rows[0]) == {*names, "learning_rate"}
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["classification"] + rows[0]["localisation"], rel=1e-5
    )
    batch = next(train_iterator(task.dataset, batch_size=32, seed=0))
    outputs = task.forward(initial.params, initial.model_state, batch["image"])
    anchors = jnp.asarray(Tiny.anchors(None))
    distance, objects = 0.0, 0
    matching, encoding = jax.jit(match), jax.jit(encode)
    for image in range(32):
        boxes, valid = batch["boxes"][image], batch["valid"][image]
        matched = np.asarray(matching(boxes, valid, anchors))
        which = np.flatnonzero(matched >= 0)
        true = np.asarray(encoding(boxes[matched], anchors))[which]
        error = np.abs(np.asarray(outputs)[image, which, -4:] - true)
        distance += np.where(error < 1, error**2 / 2, error - 0.5).sum()
        objects += len(which)
    assert rows[0]["localisation"] == pytest.approx(distance / objects, rel=1e-4)


def test_evaluation_ignores_padding(task, trained):
    _, state, _ = trained
    step = jax.jit(task.evaluation_step)
    few = task.dataset._replace(evaluation=task.dataset.evaluation[:12])
    whole = [step(state, b) for b in evaluation_batches(few, batch_size=6)]
    padded = [step(state, b) for b in evaluation_batches(few, batch_size=8)]
    assert len(whole) == len(padded) == 2
    first, second = task.gather(whole), task.gather(padded)
    assert set(first) == {"loss", "mean_average_precision", "average_precision_50"}
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-4)


def perfect(batch, *, skip=0):
    """What an evaluation step returns if the network finds each box but the first."""
    valid = batch["valid"] & (np.arange(batch["valid"].shape[1]) >= skip)
    truth = {k: batch[k] for k in ("boxes", "labels", "valid", "ignored", "weight")}
    found = Detections(batch["boxes"], batch["labels"], valid.astype(np.float32))
    return {"loss": 0.0, "objects": 1.0, "found": found, **truth}


def test_perfect_predictions_have_a_precision_of_1(task):
    batches = list(evaluation_batches(task.dataset, batch_size=300))
    found = task.gather(perfect(batch) for batch in batches)
    assert found["mean_average_precision"] == pytest.approx(1)
    assert found["average_precision_50"] == pytest.approx(1)
    missing = task.gather(perfect(batch, skip=1) for batch in batches)
    assert 0.5 < missing["average_precision_50"] < 0.75


def test_samples_are_the_first_evaluation_images(task, trained):
    samples = task.samples(trained[1])
    batch = next(evaluation_batches(task.dataset, batch_size=6))
    assert str(samples["kind"]) == "detections"
    for name in ("image", "boxes", "labels", "valid"):
        np.testing.assert_array_equal(samples[name], batch[name])
    assert samples["found_boxes"].shape == (6, 20, 4)
    assert (np.diff(samples["scores"], axis=1) <= 0).all()


def test_an_average_is_what_is_evaluated_and_shown(make):
    task = detect(make(average={"decay": 0.5}))
    iterator = train_iterator(task.dataset, batch_size=32, seed=0)
    state = jax.jit(task.initialise)(jax.random.key(0))
    step = jax.jit(task.train_step)
    for _ in range(7):  # with a move of the topology
        state, _ = step(state, next(iterator))
    sj.verify(state.average.params, state.optimizer_state)
    kernel = state.average.params["head"]["kernel"]
    assert np.any(kernel != state.params["head"]["kernel"])
    shown = state._replace(
        params=state.average.params, model_state=state.average.model_state, average=None
    )
    batch = next(evaluation_batches(task.dataset, batch_size=6))
    evaluate = jax.jit(task.evaluation_step)
    averaged, alone = evaluate(state, batch), evaluate(shown, batch)
    assert float(averaged["loss"]) == pytest.approx(float(alone["loss"]), rel=1e-6)
    last = evaluate(state._replace(average=None), batch)
    assert abs(float(averaged["loss"] - last["loss"])) > 1e-3 * float(last["loss"])
    scores = task.samples(state)["scores"]
    np.testing.assert_array_equal(scores, averaged["found"].scores)


@pytest.mark.parametrize("argument", ["scenes", "voc", "coco"])
def test_recipes_average_only_if_asked(argument):
    config = recipes.ssd_mobilenet_v1("rigl", argument)
    assert average_decay(config) is None
    config.average.decay = 0.999
    assert average_decay(config) == 0.999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"detection": {"overlap": 0.5}},
            r"config.detection.overlap = 0.5: there is no such field; there are: match",
        ),
        (
            {"detection": {"matching_overlap": 0.0}},
            r"config.detection.matching_overlap = 0.0 is not in \(0, 1\]; SSD's is 0.5",
        ),
        ({"detection": {"maximum": 0}}, r"config.detection.maximum = 0 is not in"),
        (
            {"data": {"name": "digits", "batch_size": 8}},
            r"config.data.name = 'digits': its images have no boxes",
        ),
        (
            {"model": {"name": "mlp"}},
            r"config.model.name = 'mlp': its networks have no anchors",
        ),
    ],
)
def test_bad_configs(make, changes, message):
    with pytest.raises(ConfigError, match=message):
        detect(make(**changes))


def test_without_the_evaluator(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ConfigError, match=r"config.task = 'detect': .*sparsejax.train"):
        detect(make())


CONFIG = f"""
from sparsejax import recipes
def get_config():
    config = recipes.ssd_mobilenet_v1("rigl")
    config.model = {{"name": "{__name__}.tiny"}}
    config.method.where = "kernel"
    config.steps = 40
    config.method.every = 5
    config.learning_rate_schedule.warmup_steps = 4
    config.log_every = 5
    config.evaluate_every = 20
    config.checkpoint_every = 20
    return config
"""


def rows(folder):
    return [
        {k: v for k, v in row.items() if k not in metrics.WALL_CLOCK_FIELDS}
        for row in metrics.read(folder / "metrics.jsonl")
    ]


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, data_dir):
    config = tmp_path / "rigl_tiny.py"
    config.write_text(CONFIG)

    def run(folder):
        return train.main([f"--config={config}", f"--workdir={folder}"])

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole) == train.FINISHED
    write = metrics.MetricsWriter.write

    def write_and_signal(self, step, kind, values):
        write(self, step, kind, values)
        if step == 25 and kind == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(metrics.MetricsWriter, "write", write_and_signal)
    assert run(stopped) == train.INTERRUPTED
    monkeypatch.undo()
    assert run(stopped) == train.FINISHED
    assert rows(stopped) == rows(whole)
    with np.load(whole / "samples.npz") as a, np.load(stopped / "samples.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    report = (whole / "report.html").read_text()
    assert 'alt="detections"' in report
    assert "average precision at 50 % overlap" in report
    assert (whole / "plots" / "detections.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl", "dense"])
def test_the_config_trains(tmp_path, data_dir, method):
    settings = {
        "steps": 20,
        "method.every": 5,
        "learning_rate_schedule.warmup_steps": 2,
        "log_every": 1,
    }
    if method == "dense":
        del settings["method.every"]
    overrides = [f"--config.{field}={value}" for field, value in settings.items()]
    command = [f"--config={method}_ssd_mobilenet_v1", f"--workdir={tmp_path}/run"]
    assert train.main([*command, *overrides]) == train.FINISHED
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["sparsity"] == pytest.approx(0.9 * (method == "rigl"), abs=1e-4)
    assert 0 <= summary["final"]["average_precision_50"] <= 1
    found = [row["loss"] for row in rows(tmp_path / "run") if row["kind"] == "train"]
    assert np.mean(found[-3:]) < 0.9 * np.mean(found[:3])
