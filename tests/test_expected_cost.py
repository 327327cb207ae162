"""The cost of a config, counted before anything is trained."""

import json
import subprocess
import sys

import numpy as np
import pytest

import sparsejax as sj
from sparsejax import configuration
from sparsejax.building import ConfigError
from sparsejax.cost.__main__ import DONE, FILE_ERROR, MISUSED, main
from sparsejax.data.declared import declared
from sparsejax.expected_cost import dense_gradient_every, expected_cost
from sparsejax.schedules import cubic


def expected(*arguments):
    return expected_cost(configuration.parse(arguments).config)


def test_rigl_pays_for_its_dense_gradients():
    cost, remarks = expected("--config=rigl_mlp", "--config.method.every=50")
    dense, sparse = cost.dense_flops, cost.sparse_flops
    assert (dense, cost.active_parameters) == (2 * 25_856, 1293 + 266)
    flops = (3 * sparse * 50 + 2 * sparse + dense) / 51
    assert cost.training.flops == pytest.approx(flops)
    assert not remarks


def test_gradual_pruning_pays_the_integral_of_its_schedule():
    cost, _ = expected("--config=magnitude_mlp", "--config.steps=400")
    # Dense until 50, pruned every 50 steps until 300, each time after the step.
    steps = np.arange(400)
    moved = np.clip((steps - 1) // 50 * 50, 0, 300)
    reached = [float(cubic()(max(0, (s - 50) / 250))) if s else 0 for s in moved]
    saved = cost.dense_flops - cost.sparse_flops
    mean = 3 * (cost.dense_flops - saved * np.mean(reached))
    assert cost.training.flops == pytest.approx(mean, rel=2e-3)


def test_half_of_ac_dc_is_dense():
    cost, _ = expected("--config=ac_dc_mlp")
    # Of 2,000 steps compressed: seven phases of 100, and from 1,700 on.
    share = (7 * 100 + 300) / 2000
    saved = cost.dense_flops - cost.sparse_flops
    flops = 3 * (cost.dense_flops - saved * share)
    assert cost.training.flops == pytest.approx(flops, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "every"),
    [("dense", None), ("set", None), ("rigl", 100), ("granet", 100), ("snfs", 0)],
)
def test_dense_gradients_are_those_that_the_card_declares(name, every):
    assert dense_gradient_every(name) == every


def test_methods_without_a_sparsity_have_a_cost():
    for method in ("soft_threshold", "s_ste", "dense"):
        cost, remarks = expected(f"--config=mlp:{method}")
        assert cost.dense_flops == 2 * 25_856
        emergent = method == "soft_threshold"
        assert (cost.sparse_flops < cost.dense_flops) == (
            method not in ("dense", "soft_threshold")
        )
        assert any("follows from training" in one for one in remarks) == emergent


@pytest.mark.parametrize(
    "name",
    [
        "rigl_mlp",
        # Layers that are stacked.
        "static_transformer",
        # Layers that are left out by the config.
        pytest.param("rigl_ssd_mobilenet_v1", marks=pytest.mark.slow),
    ],
)
def test_the_budget_is_the_one_that_training_has(name, data_dir):
    import jax

    from sparsejax.building import build

    config = configuration.load(name)
    task = build("task", config.task, "sparsejax.tasks", config)
    state = jax.jit(task.initialise)(jax.random.key(0))
    counts = sj.counts(state.optimizer_state)
    found = {
        row.path: (row.active, row.weights) for row in expected_cost(config).cost.layers
    }
    assert {path: found[path] for path in counts} == counts
    dense = {path: row for path, row in found.items() if path not in counts}
    assert all(active == weights for active, weights in dense.values())


def test_a_corpus_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    config = configuration.load("rigl_transformer:c4")
    cost = expected_cost(config).cost
    assert cost.parameters == 110_119_680
    assert list(tmp_path.iterdir()) == []


def test_imagenet_is_not_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    file = tmp_path / "cost.json"
    arguments = ["--config=rigl_resnet50:imagenet", "--config.method.sparsity=0.9"]
    assert main([*arguments, "--mode=micronet", f"--json={file}"]) == DONE
    report = json.loads(file.read_text())
    assert report["cost"]["dense_flops"] == 8_202_340_776
    assert report["cost"]["sparse_flops"] == pytest.approx(1994.388e6, rel=1e-3)
    assert (
        report["cost"]["stored_bytes"]["csr"]
        > report["cost"]["stored_bytes"]["condensed"]
    )
    printed = capsys.readouterr().out
    assert "stage4/block2/conv3/kernel" in printed
    assert "8,202,340,776" in printed
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config=rigl_mpl"], MISUSED, "did you mean rigl_mlp"),
        (["--config=rigl_mlp", "--mode=fast"], MISUSED, "invalid choice: 'fast'"),
        (["--config=rigl_mlp", "--config.method.sparsity=2.0"], MISUSED, "sparsity"),
        (["--config=rigl_mlp", "--json=/nowhere/x"], FILE_ERROR, "/nowhere/x"),
    ],
)
def test_mistakes_in_the_command(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_datasets_that_nobody_knows_are_an_error():
    with pytest.raises(ConfigError, match="unknown"):
        declared("cifar_eleven")
    found = declared({"name": "imagenet2012", "image_size": 160, "data_dir": "/no"})
    assert found.input_shape == (160, 160, 3)
    with pytest.raises(LookupError, match="not opened"):
        found.train[0]


def test_the_command_starts_without_warnings():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "sparsejax.cost"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rigl_resnet50" in done.stdout
