"""The study of sparse transformers: its command in small, and what it compares."""

import pathlib

import jax
import pytest

import sparsejax as sj

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.stdlib_lm import __main__, settings, tables, training

    modules = (records, settings, tables, training)
    named = {module.__name__.rpartition(".")[2]: module for module in modules}
    return type("Study", (), {**named, "main": __main__})


@pytest.mark.parametrize("sparsity", [0.8, 0.9])
def test_small_dense_networks_are_as_large_as_sparse_ones(study, sparsity):
    sizes = []
    for method in ("small dense", "static"):
        cell = study.settings.Cell(method, sparsity, "adamw")
        task = study.training.Trainer(study.settings.configure(cell, 20)).task
        state = jax.eval_shape(task.initialise, jax.random.key(0))
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        masked = jax.tree.leaves(sj.masks(state.optimizer_state))
        sizes.append(size - round(sparsity * sum(mask.size for mask in masked)))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.005)


def test_command_trains_what_is_missing(study, tmp_path, monkeypatch, capsys):
    trained = []

    class Recorded:
        def __init__(self, config):
            self.config = config

        def train(self, seed):
            method = self.config.method.name
            trained.append((method, self.config.optimizer.name, seed))
            bits = 3.0 + 0.1 * (method == "dense") + 0.01 * seed
            return study.training.Outcome(bits, 1_000, "python-x", 1.0)

    monkeypatch.setattr(study.main, "Trainer", Recorded)
    options = ["--steps", "20", "--sparsities", "0.8", "--methods", "rigl"]
    options += ["--output", str(tmp_path)]
    study.main.main([*options, "--seeds", "1"])
    assert trained == [
        ("dense", "adamw", 0),
        ("dense", "adamw", 0),
        ("rigl", "adamw", 0),
        ("rigl", "sparsejax.optim.adamw", 0),
    ]
    study.main.main([*options, "--seeds", "2"])
    assert len(trained) == 8
    assert {seed for *_, seed in trained[4:]} == {1}
    table = (tmp_path / "table.md").read_text()
    assert "| RigL | 80 % | growth-safe adamw | 1,000 | 3.005 ± 0.064 | +0.100" in table
    assert "| gzip bits per byte |" in table
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "2 seeds of 20 steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_is_trained_and_evaluated(study):
    cell = study.settings.Cell("rigl", 0.9, "safe")
    config = study.settings.configure(cell, 8)
    with config.unlocked():
        config.data.update({"context": 32, "batch_size": 4, "evaluation_rows": 16})
        config.model.update({"layers": 2, "width": 32})
    outcome = study.training.Trainer(config).train(1)
    assert 4 < outcome.bits_per_byte < 9
    assert outcome.corpus.startswith("python3.")
