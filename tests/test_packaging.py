"""Wheel, source distribution and base install, each outside of the checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("configs", "docs", "examples", "kernels", "sparsejax", "tests")
CONFIGS = {file.name for file in (ROOT / "configs").glob("*.py")}

# Runs a module as if some libraries were not installed.
WITHOUT = """
import runpy, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = {argv!r}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(*command, **options):
    """Standard output of a command that has to succeed."""
    command = [str(part) for part in command]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A source distribution, and the wheel built from it, of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("distributions")
    copy = folder / "copy"
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy)
    (source,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def unpacked(distributions, tmp_path_factory):
    """A folder with nothing but the unpacked wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(distributions[1]) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_all_modules_and_configs_and_nothing_else(unpacked):
    package = {
        str(file.relative_to(root))
        for root, name in ((ROOT, "sparsejax"), (ROOT / "kernels", "sparsejax_kernels"))
        for file in (root / name).rglob("*")
        if file.suffix == ".py" or file.name == "py.typed"
    }
    configs = {f"sparsejax/configs/{name}" for name in CONFIGS}
    (information,) = unpacked.glob("*.dist-info")
    found = {
        str(file.relative_to(unpacked))
        for file in unpacked.rglob("*")
        if file.is_file() and not file.is_relative_to(information)
    }
    # Without a compiler there is none, and everything else is the same.
    native = {name for name in found if name.startswith("sparsejax_kernels/_native")}
    assert len(native) == (shutil.which("c++") is not None)
    assert found - native == package | configs
    assert "sparsejax/py.typed" in found
    assert (information / "licenses" / "LICENSE").is_file()


def test_the_source_distribution_has_what_the_tests_need(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"configs/{name}" for name in CONFIGS} <= names
    expected = {"LICENSE", "README.md", "CHANGELOG.md", "docs/methods.md", "setup.py"}
    assert expected <= names
    assert "tests/conftest.py" in names
    assert "sparsejax/py.typed" in names
    assert "kernels/sparsejax_kernels/cpu/handlers.cc" in names
    assert "kernels/sparsejax_kernels/cpu/table.h" in names


def test_the_base_install_is_four_packages(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    needed = [
        line.split(": ")[1].split(">")[0]
        for line in metadata.read_text().splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(needed) == ["jax", "jaxtyping", "numpy", "optax"]
    for extra in ("train", "rl", "all", "cuda", "tpu", "prepare", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata.read_text()


def test_a_wheel_finds_its_configs_outside_of_the_checkout(unpacked, tmp_path):
    script = (
        "import sparsejax; from sparsejax import configuration as c; "
        "print(sparsejax.__file__, *c.available()); "
        "assert c.parse(['--config=rigl_mlp']).config.method.name == 'rigl'; "
        "assert c.find('configs/rigl_mlp.py:digits').parent.parent.name == 'sparsejax'"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    printed = run(sys.executable, "-c", script, cwd=tmp_path, env=environment).split()
    assert printed[0] == str(unpacked / "sparsejax" / "__init__.py")
    assert {f"{name}.py" for name in printed[1:]} == CONFIGS


def test_the_kernels_of_a_wheel_run(unpacked, tmp_path):
    script = (
        "import sparsejax_kernels as k, jax.numpy as jnp; print(k.__file__); "
        "w = k.FanIn.fromdense(jnp.eye(3), jnp.eye(3) > 0); "
        "print(k.native.why_not(), *k.matmul(jnp.arange(3.0), w).tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    printed = run(sys.executable, "-c", script, cwd=tmp_path, env=environment)
    assert printed.startswith(str(unpacked / "sparsejax_kernels"))
    assert printed.endswith("0.0 1.0 2.0\n")
    if shutil.which("c++"):
        assert "None 0.0" in printed


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["sparsejax.train", "--config=rigl_mlp"], ["flax"]),
        (
            ["sparsejax.train", "--config=rigl_mlp"],
            ["flax", "grain", "rich", "sklearn"],
        ),
        (["sparsejax.train", "--config=rigl_mlp"], ["ml_collections"]),
        (["sparsejax.report", "run"], ["matplotlib"]),
        (["sparsejax.prune", "--method=wanda"], ["safetensors"]),
    ],
)
def test_an_entry_point_without_its_extra_says_which(
    arguments, missing, unpacked, tmp_path
):
    (tmp_path / "run").mkdir()
    row = {"step": 1, "kind": "train", "loss": 1.0}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    script = WITHOUT.format(missing=missing, argv=arguments)
    command = [sys.executable, "-W", "ignore", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert f"{missing[0]!r} is not installed" in line
    assert 'pip install "sparsejax[train]"' in line


@pytest.mark.slow
def test_a_wheel_trains_in_a_fresh_environment(distributions, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet")
    outside = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}

    run(*install, distributions[1], env=outside)
    use = "import sparsejax as sj; print(sj.METHODS, sj.__file__)"
    assert str(tmp_path) in run(python, "-c", use, cwd=tmp_path, env=outside)
    train = [python, "-m", "sparsejax.train", "--config=rigl_mlp"]
    result = subprocess.run(
        train, capture_output=True, text=True, check=False, cwd=tmp_path, env=outside
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert 'pip install "sparsejax[train]"' in line

    run(*install, f"{distributions[1]}[train]", env=outside)
    outside["TFDS_DATA_DIR"] = str(tmp_path / "data")
    short = ("--config.steps=20", "--config.method.every=5")
    run(*train, *short, cwd=tmp_path, env=outside)
    summary = json.loads((tmp_path / "runs/rigl_mlp/summary.json").read_text())
    assert summary["step"] == 20
    assert (tmp_path / "runs/rigl_mlp/report.html").stat().st_size > 10_000
