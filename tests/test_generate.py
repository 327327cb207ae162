"""The command that writes text: what it writes, and what it says of mistakes."""

import io
import json

import jax
import numpy as np
import pytest

from sparsejax import configuration, generate
from sparsejax.building import build
from sparsejax.checkpoint import Checkpoints
from sparsejax.data.tokenizers import Bytes
from sparsejax.python_lines import accepted, is_accepted
from sparsejax.restoring import restored

OPTIONS = ["--tokens=40", "--prompt=import ", "--temperature=0"]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """The folder of a run on Python's source that has only begun."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    fields = {"model.layers": 1, "model.width": 16, "method.sparsity": 0.75}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = ["--config=rigl_transformer", f"--workdir={folder}", *overrides]
    config = configuration.parse(command).config
    task = build("task", config.task, "sparsejax.tasks", config)
    state = jax.jit(task.initialise)(jax.random.key(0))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    checkpoints = Checkpoints(folder, keep=1, report=print)
    checkpoints.save(7, state, {"seconds": 0.0})
    checkpoints.close()
    return folder


def test_masked_and_compressed_write_the_same(run, capfd):
    assert generate.main([f"--workdir={run}", *OPTIONS]) == 0
    masked = capfd.readouterr()
    assert generate.main([f"--workdir={run}", *OPTIONS, "--compressed"]) == 0
    compressed = capfd.readouterr()
    assert masked.out == compressed.out and masked.out.startswith("import ")
    assert "step 7" in masked.err and "% of its matrices zero, masked" in masked.err
    assert "% of its matrices zero, compressed" in compressed.err
    assert "a second after it" in masked.err
    [line] = [line for line in masked.err.splitlines() if "tokenize" in line]
    share = float(line.split("held-out lines, ")[1].removesuffix(" %"))
    assert 90 < share <= 100


def test_seeds_and_samples_differ(run, capfd):
    def text(*options):
        command = [f"--workdir={run}", "--tokens=30", "--temperature=1", *options]
        assert generate.main(command) == 0
        return capfd.readouterr().out

    two = text("--samples=2", "--seed=3")
    first, second = two.split("==> sample 2 of 2 <==\n")
    assert first.removeprefix("==> sample 1 of 2 <==\n") == text("--seed=3")
    assert second != text("--seed=3") != text("--seed=4")
    assert text("--top-k=5", "--top-p=0.9") == text("--top-k=5", "--top-p=0.9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens=0"], "tokens is 0"),
        (["--tokens=many"], "--tokens: invalid int value: 'many'; see --help"),
        (["--samples=0"], "--samples=0: use 1 or more"),
        (["--top-p=2"], "top_p is 2.0"),
        (["--temperature=-1"], "temperature is -1.0"),
        (["--temperature=0", "--top-k=4"], "give a temperature"),
        (["--token=4"], "unrecognized arguments: --token=4"),
    ],
)
def test_mistakes_are_one_line(run, options, message, capfd):
    assert generate.main([f"--workdir={run}", *options]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("sparsejax.generate: ") and message in line


def test_what_is_no_run_is_named(run, tmp_path, capfd):
    assert generate.main([f"--workdir={tmp_path}"]) == 2
    assert "is not a run directory" in capfd.readouterr().err
    assert generate.main(["--tokens=3"]) == 2
    assert "--workdir" in capfd.readouterr().err
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert generate.main([f"--workdir={tmp_path}"]) == 2
    assert "has no checkpoints" in capfd.readouterr().err


def test_help_needs_no_run(capfd):
    assert generate.main(["--help"]) == 0
    assert "--temperature" in capfd.readouterr().out
    assert generate.main([]) == 2


def test_characters_are_written_whole(monkeypatch):
    class Pieces(io.StringIO):
        def write(self, text):
            shown.append(text)
            return super().write(text)

    shown = []
    monkeypatch.setattr("sys.stdout", Pieces())
    tokens = [*"naïve €".encode(), 0xFF, *b"x", 0xE2, 0x82]
    parts = (np.array([[token]]) for token in tokens)
    text = generate._written(parts, Bytes(), "", terminal=False)
    assert text == "naïve €\ufffdx\ufffd"
    assert all(piece in text or piece == "\n" for piece in shown)


def test_a_terminal_is_not_told_what_to_do():
    assert generate._shown("a\x1b[2J\tb\n\x07") == "a\ufffd[2J\tb\n\ufffd"


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ("    return x[0]", True),
        ("x = f(1,  # open", True),
        ('"""Begins a docstring', True),
        ("y = 1 + \\", True),
        ("", True),
        ("x = $y", False),
        ("what?", False),
    ],
)
def test_lines_that_python_accepts(line, fine):
    assert is_accepted(line) is fine


def test_only_whole_lines_count():
    assert accepted("") == accepted("x") == accepted("x\ny") == (0, 0)
    assert accepted("?\nx = 1\n   \n?\ny") == (1, 2)


def test_the_network_is_the_evaluated_one(run):
    found = restored(run)
    model = generate._model(found, False)
    tokens = np.arange(12)[None]
    expected = found.task.forward(found.state.params, found.state.model_state, tokens)
    np.testing.assert_allclose(jax.jit(model)(tokens), expected, atol=1e-5)
