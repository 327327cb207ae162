"""Training over devices: how arrays are split, and that it changes no result."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax import metrics, sharding, train, validation
from sparsejax.building import ConfigError
from sparsejax.restoring import restored


def test_large_arrays_are_split_alike():
    mesh = sharding.mesh({"mesh": {"data": 2, "fsdp": -1}})
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
    shapes = {
        "kernel": (3, 64, 128),
        "square": (64, 64),
        "odd": (63, 65),
        "bias": (128,),
        "count": (),
    }
    made = {k: jax.ShapeDtypeStruct(v, "float32") for k, v in shapes.items()}
    found = {k: tuple(v.spec) for k, v in sharding.of_state(made, mesh).items()}
    assert found == {
        "kernel": (None, None, "fsdp"),
        "square": (None, "fsdp"),
        "odd": (),
        "bias": (),
        "count": (),
    }


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ({"fsdp": 3}, r"config.mesh = {'data': -1, 'fsdp': 3} does not fit the 8"),
        ({"data": -1, "fsdp": -1}, "does not fit the 8 devices"),
        ({"data": 2, "fsdp": 2}, "their product has to be 8"),
        ({"fsdp": 0}, "config.mesh.fsdp = 0: give a number of devices"),
        ({"model": 2}, r"config.mesh = {'model': 2}: give the numbers"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(mesh, message):
    config = {"mesh": mesh, "data": {"batch_size": 8}}
    with pytest.raises(ConfigError, match=message):
        validation.check_devices(config, 8)


def command(workdir, data_dir, *more):
    fields = {
        "steps": 10,
        "data.context": 32,
        "data.batch_size": 8,
        "data.evaluation_rows": 8,
        "data.data_dir": data_dir,
        "model.layers": 2,
        "model.width": 64,
        "learning_rate_schedule.warmup_steps": 1,
        "method.every": 2,
        "log_every": 1,
        "evaluate_every": 10,
        "checkpoint_every": 5,
    }
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=rigl_transformer", f"--workdir={workdir}", *options, *more]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 1, "fsdp": 8}, {"data": 4, "fsdp": 2}])
def test_split_states_train_the_same_network(mesh, tmp_path, data_dir, capsys):
    memory, losses, masks = [], [], []
    layouts = [{"data": 8, "fsdp": 1}, mesh]
    for number, layout in enumerate(layouts):
        options = [f"--config.mesh.{axis}={size}" for axis, size in layout.items()]
        folder = tmp_path / str(number)
        assert train.main(command(folder, data_dir, *options)) == train.FINISHED
        said = capsys.readouterr().out
        memory.append(float(re.search(r"([\d.]+) MiB of state", said)[1]))
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses.append([row["loss"] for row in rows if row["kind"] == "train"])
        state = restored(folder).state
        sj.verify(state.params, state.optimizer_state)
        masks.append(jax.tree.leaves(sj.masks(state.optimizer_state)))
    np.testing.assert_allclose(*losses, rtol=1e-4)
    same = [np.asarray(a == b).ravel() for a, b in zip(*masks, strict=True)]
    assert np.concatenate(same).mean() > 0.999
    # All but a few small arrays are split.
    assert memory[1] < 1.3 * memory[0] / mesh["fsdp"]


@pytest.mark.slow
def test_a_run_goes_on_over_other_devices(tmp_path, data_dir, monkeypatch, capsys):
    def stop(self, step, kind, values):
        write(self, step, kind, values)
        if step == 7:
            raise KeyboardInterrupt

    write = metrics.MetricsWriter.write
    monkeypatch.setattr(metrics.MetricsWriter, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(command(tmp_path, data_dir))
    monkeypatch.undo()
    before = restored(tmp_path)
    assert before.step == 5
    split = command(tmp_path, data_dir, "--config.mesh.fsdp=8")
    assert train.main([*split, "--config.mesh.data=1"]) == train.FINISHED
    assert "going on from the checkpoint of step 5" in capsys.readouterr().out
    mesh = json.loads((tmp_path / "config.json").read_text())["mesh"]
    assert mesh == {"data": 1, "fsdp": 8}
    # What is in the checkpoint is what it was, and training goes on from it.
    whole = tmp_path / "whole"
    assert train.main(command(whole, data_dir)) == train.FINISHED
    rows = [
        [row for row in metrics.read(folder / "metrics.jsonl") if "loss" in row]
        for folder in (tmp_path, whole)
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    losses = [[row["loss"] for row in each] for each in rows]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    states = [restored(folder).state for folder in (tmp_path, whole)]
    masks = [jax.tree.leaves(sj.masks(state.optimizer_state)) for state in states]
    same = [np.asarray(a == b).ravel() for a, b in zip(*masks, strict=True)]
    assert np.concatenate(same).mean() > 0.999


@pytest.mark.slow
def test_a_move_exchanges_counts_and_sorting_all_weights():
    script = train.__file__.replace("sparsejax/train.py", "scripts/bench_sharding.py")
    methods = ("sorting", "rigl", "set", "sr_ste")
    ended = subprocess.run(
        [sys.executable, script, "--weights=1e7", "--methods", *methods],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    units = {"B": 1, "kB": 1e3, "MB": 1e6}
    found = {}
    for row in re.findall(r"^\| (\w+) \| ([\d.,]+) (\w+) \|", ended.stdout, re.M):
        found[row[0]] = float(row[1].replace(",", "")) * units[row[2]]
    assert list(found) == list(methods)
    # Every weight at least once, against at most 96 counts a search and array.
    assert found["sorting"] > 4e6
    assert found["rigl"] == found["set"] < 1e5
    assert found["sr_ste"] == 0
