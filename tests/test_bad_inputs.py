"""Every mistake ends before compiling, in one line that names field, value and fix."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from sparsejax import train

RIGL = "--config=rigl_mlp"


# Each row: what is wrong, the command line, and what the line must say.
TABLE = [
    ("no config", ["--workdir=x"], ["--config is missing", "rigl_mlp"]),
    ("unknown config", ["--config=rigl_mpl"], ["rigl_mpl", "did you mean rigl_mlp"]),
    ("no such file", ["--config=no/such.py"], ["no/such.py", "no such file"]),
    (
        "unknown config argument",
        ["--config=rigl_mlp:imagnet"],
        ["imagnet", "there are: rigl_mlp:digits"],
    ),
    (
        "unknown resnet argument",
        ["--config=configs/rigl_resnet50.py:cifar"],
        ["'cifar'", "rigl_resnet50:digits, rigl_resnet50:imagenet"],
    ),
    ("unknown flag", [RIGL, "--wrkdir=x"], ["--wrkdir=x", "mean --workdir"]),
    ("stray word", [RIGL, "train"], ["train: unknown argument"]),
    (
        "unknown field",
        [RIGL, "--config.foo=1"],
        ["--config.foo=1", "no field 'foo'", "it has: ", "seed"],
    ),
    (
        "misspelt field",
        [RIGL, "--config.log_evry=1"],
        ["no field 'log_evry'", "did you mean log_every"],
    ),
    (
        "field of a number",
        [RIGL, "--config.seed.x=1"],
        ["config.seed has no field 'x'"],
    ),
    (
        "sparsity of all",
        [RIGL, "--config.method.sparsity=1.0"],
        ["config.method.sparsity=1.0", "[0, 1)"],
    ),
    (
        "negative sparsity",
        [RIGL, "--config.method.sparsity=-0.1"],
        ["config.method.sparsity=-0.1", "[0, 1)"],
    ),
    (
        "sparsity not a number",
        [RIGL, "--config.method.sparsity=0.9x"],
        ["config.method.sparsity = '0.9x'", "give a value"],
    ),
    (
        "sparsity nan",
        [RIGL, "--config.method.sparsity=nan"],
        ["config.method.sparsity=nan"],
    ),
    (
        "unknown method",
        [RIGL, "--config.method.name=rigle"],
        ["config.method.name = 'rigle'", "did you mean 'rigl'", "magnitude"],
    ),
    (
        "method that cannot be imported",
        [RIGL, "--config.method.name=nowhere.method"],
        ["config.method.name = 'nowhere.method'", "PYTHONPATH"],
    ),
    (
        "argument of another method",
        [RIGL, "--config.method.name=static"],
        ["config.method.", "'static' has no such argument", "it takes: sparsity"],
    ),
    (
        "misspelt method argument",
        [RIGL, "--config.method.evry=10"],
        ["config.method.evry = 10", "did you mean 'every'"],
    ),
    (
        "unknown model",
        [RIGL, "--config.model.name=mpl"],
        ["config.model.name = 'mpl'", "did you mean 'mlp'"],
    ),
    (
        "unknown model argument",
        [RIGL, "--config.model.depth=3"],
        ["config.model.depth = 3", "hidden"],
    ),
    (
        "unknown dataset",
        [RIGL, "--config.data.name=digit"],
        ["config.data.name = 'digit'", "did you mean 'digits'"],
    ),
    (
        "unknown optimizer",
        [RIGL, "--config.optimizer.name=adamm"],
        ["config.optimizer.name = 'adamm'", "'adam'"],
    ),
    (
        "unknown distribution",
        [RIGL, "--config.method.distribution=erkk"],
        ["config.method.distribution.name = 'erkk'", "did you mean 'erk'"],
    ),
    (
        "bad drop fraction",
        [RIGL, "--config.method.drop_fraction.initial=1.5"],
        ["config.method.drop_fraction.initial=1.5", "[0, 1]"],
    ),
    ("unknown task", [RIGL, "--config.task=clasify"], ["config.task", "'classify'"]),
    (
        "unknown initialization",
        [RIGL, "--config.initialization=he"],
        ["config.initialization = 'he'", "'fan_in_corrected'"],
    ),
    (
        "path rule that matches nothing",
        [RIGL, "--config.method.where=blocks/.*/kernel"],
        ["config.method.where='blocks/.*/kernel'", "matches no path", "hidden0/kernel"],
    ),
    (
        "less than one weight in a layer",
        [
            RIGL,
            "--config.method.sparsity=0.9999",
            "--config.method.distribution=uniform",
        ],
        ["config.method.sparsity=0.9999", "head/kernel"],
    ),
    (
        "stop before start",
        [RIGL, "--config.method.stop=20"],
        ["config.method.stop=20", "start=50"],
    ),
    (
        "stop after the end",
        [RIGL, "--config.method.stop=2001"],
        ["config.method.stop = 2001", "config.steps = 2000"],
    ),
    (
        "no interval",
        [RIGL, "--config.method.every=0"],
        ["config.method.every=0", ">= 1"],
    ),
    (
        "batch larger than the dataset",
        [RIGL, "--config.data.batch_size=1440"],
        ["config.data.batch_size = 1440", "1437"],
    ),
    (
        "empty batch",
        [RIGL, "--config.data.batch_size=0"],
        ["config.data.batch_size = 0", ">= 1"],
    ),
    ("no steps", [RIGL, "--config.steps=0"], ["config.steps = 0", ">= 1"]),
    ("fractional steps", [RIGL, "--config.steps=1.5"], ["config.steps = '1.5'"]),
    ("negative seed", [RIGL, "--config.seed=-1"], ["config.seed = -1", ">= 0"]),
    (
        "no learning rate",
        [RIGL, "--config.optimizer.learning_rate=0"],
        ["config.optimizer.learning_rate = 0", "positive"],
    ),
    (
        "too much smoothing",
        [RIGL, "--config.label_smoothing=1"],
        ["config.label_smoothing = 1", "[0, 1)"],
    ),
    (
        "workdir below a file",
        [RIGL, f"--workdir={__file__}/runs"],
        ["--workdir=", "cannot be written", "name a folder"],
    ),
    (
        "ImageNet not prepared",
        ["--config=rigl_resnet50:imagenet"],
        ["imagenet2012", "prepare"],
    ),
]


@pytest.fixture(autouse=True)
def in_a_clean_folder(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def compiled(*arguments, **options):
        raise AssertionError("compiled before the input was checked")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


@pytest.mark.parametrize(
    ("arguments", "words"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE]
)
def test_ends_in_one_line(arguments, words, capsys, tmp_path):
    assert train.main(arguments) == train.MISUSED
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error
    assert not (tmp_path / "runs").exists()


def test_a_config_file_that_fails_is_one_line(capsys, tmp_path):
    for content, word in [
        ("import nothing_like_it", "nothing_like_it"),
        ("def get_config():\n    return {}['x']", "line 2"),
        ("def get_config(arg=None):\n    return {}", "ConfigDict"),
        ("x = (", "SyntaxError"),
        ("x = 1", "get_config"),
    ]:
        (tmp_path / "mine.py").write_text(content)
        assert train.main(["--config=mine.py"]) == train.MISUSED
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "mine.py" in error
        assert word in error


@pytest.mark.parametrize(
    ("sparsity", "words"),
    [
        ({"conv/.*": 0.9}, ["conv/.*", "hidden0/kernel"]),
        ({}, ["names no layer"]),
        ({"hidden.*": 1.0}, ["hidden.*", "1.0", "[0, 1)"]),
    ],
)
def test_a_map_of_sparsities_that_is_wrong(sparsity, words, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sparsejax import recipes\n"
        "def get_config():\n"
        "    config = recipes.mlp('rigl')\n"
        "    with config.ignore_type():\n"
        f"        config.method.sparsity = recipes.by_path({sparsity!r})\n"
        "    return config\n"
    )
    assert train.main(["--config=mine.py"]) == train.MISUSED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in ["config.method.sparsity", *words]:
        assert word in error


def test_a_config_that_cannot_be_stored(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sparsejax import recipes\n"
        "def get_config():\n"
        "    config = recipes.mlp('rigl')\n"
        "    config.method.where = lambda path, leaf: path == 'head/kernel'\n"
        "    return config\n"
    )
    assert train.main(["--config=mine.py"]) == train.MISUSED
    assert "the config cannot be stored" in capsys.readouterr().err


def test_a_field_that_a_config_file_forgets(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sparsejax import recipes\n"
        "def get_config(argument=None):\n"
        "    config = recipes.mlp('rigl')\n"
        "    del config[argument]\n"
        "    return config\n"
    )
    for field in ("steps", "seed", "log_every", "method", "model", "data", "optimizer"):
        assert train.main([f"--config=mine.py:{field}"]) == train.MISUSED
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"config.{field}" in error
        assert "is missing" in error


def test_help_lists_configs_and_exit_codes(capsys):
    assert train.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--workdir", "--config.FIELD", "rigl_resnet50", "75", "SIGTERM"):
        assert word in shown
    assert train.main([]) == train.MISUSED


def test_as_a_program_it_prints_no_traceback(data_dir):
    root = pathlib.Path(train.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "sparsejax.train", RIGL, "--config.method.sparsity=2"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""},
    )
    assert done.returncode == train.MISUSED
    assert done.stderr.count("\n") == 1, done.stderr
    assert "config.method.sparsity=2" in done.stderr
