"""Where dense is faster the library says so, and leaves layers dense when asked."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import (
    FanIn,
    Packed,
    choosing,
    explain,
    largest_density,
    matmul,
    native,
    operations,
    rotating,
    tiles,
    tune,
    tune_gpu,
)

import sparsejax as sj


def weight(density, shape=(40, 30)):
    mask = np.random.default_rng(0).random(shape) < density
    return FanIn.fromdense(jnp.asarray(mask, jnp.float32), jnp.asarray(mask))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A machine on which nothing was measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sparsejax" / "kernels.json"


needs_kernels = pytest.mark.skipif(
    not native.available(), reason="native kernels are not built"
)


@needs_kernels
def test_explains_by_density_and_batch():
    assert "native CPU kernel; faster than dense" in explain(weight(0.1), 256)
    assert "but a dense weight is faster above 44 %" in explain(weight(0.47), 256)
    assert "faster than dense up to 63 %" in explain(weight(0.47), 8)
    assert sj.explain is explain
    w = weight(0.1)
    packed = "packed, as by sparsejax.compress(..., batch=1), it is" in explain(w, 1)
    assert packed == native.has_avx512() == choosing.pays_to_pack(1, 999)
    assert "packed, as" not in explain(w, 8)
    assert "kernel; but a dense weight" in explain(weight(0.99), 1)
    # Without a pattern, packed or not.
    assert "Packed 40x30" in explain(Packed.from_fan_in(w), 8)
    limit = f"up to {100 * largest_density(8):g} %"
    assert limit in explain(Packed.from_fan_in(w), 8)


def test_says_why_the_fallback_runs(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    assert "SPARSEJAX_KERNELS_NATIVE=0 turns" in explain(weight(0.05), 64)
    assert "a dense weight is faster" in explain(weight(0.05), 64)
    assert largest_density(64) == 0


def test_says_that_kernels_for_gpus_were_not_measured(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert "implementation='pallas_gpu' runs one" in explain(weight(0.05), 64)


def test_a_batch_is_at_least_one_row():
    with pytest.raises(ValueError, match="batch is 0"):
        largest_density(0)
    with pytest.raises(ValueError, match="kind is 'COO'; it is one of FanIn"):
        largest_density(1, "COO")


@needs_kernels
def test_what_was_measured_here_decides(cache, capsys):
    assert "tune measures it here" in explain(weight(0.1), 2)
    arguments = ["--seconds", "0.001", "--batches", "4", "--shape", "32", "32"]
    tune.main(arguments)
    assert str(cache) in capsys.readouterr().out
    stored = json.loads(cache.read_text())
    assert stored["machine"] == choosing.machine()
    for kind in ("FanIn", "Packed", "Block"):
        [(most, density)] = stored["limits"][kind]
        assert most is None
        assert largest_density(1, kind) == largest_density(999, kind) == density
    assert largest_density(1, "NM") == largest_density(1, "FanIn")
    assert "measured on this machine" in explain(weight(0.1), 2)


@needs_kernels
def test_what_was_measured_elsewhere_does_not(cache):
    cache.parent.mkdir()
    other = choosing.machine() | {"processor": "another"}
    limits = {kind: [[None, 1.0]] for kind in choosing.DEFAULTS}
    cache.write_text(json.dumps({"machine": other, "limits": limits}))
    assert largest_density(256) == choosing.DEFAULTS["FanIn"][-1][1]
    cache.write_text(json.dumps({"machine": choosing.machine(), "limits": limits}))
    assert largest_density(256) == 1.0
    cache.write_text('{"machine": ')
    with pytest.warns(UserWarning, match="cannot be read .*tune again"):
        assert largest_density(256) == choosing.DEFAULTS["FanIn"][-1][1]


def test_tune_says_what_is_wrong(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    with pytest.raises(SystemExit, match="nothing to measure"):
        tune.main([])
    monkeypatch.undo()
    if native.available():
        with pytest.raises(SystemExit, match="a multiple of 32"):
            tune.main(["--shape", "33", "8"])


def test_a_library_of_an_earlier_version_is_not_used(monkeypatch):
    monkeypatch.setattr(native, "HANDLERS", (*native.HANDLERS, "of_tomorrow"))
    native._register.cache_clear()
    try:
        reason = native.why_not()
    finally:
        monkeypatch.undo()
        native._register.cache_clear()
    assert "of_tomorrow" in reason or "not built" in reason
    assert "pip install -e ." in reason


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, as far as choices go; kernels are interpreted."""
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")


def store(cache, densities):
    """What tune would have left on this machine."""
    limits = {kind: [[None, densities.get(kind, 0)]] for kind in choosing.ON_GPU}
    cache.parent.mkdir(exist_ok=True)
    stored = {"machine": choosing.machine(), "limits": limits}
    stored["tiles"] = {"n_m_matmul bfloat16": [32, 8]}
    choosing.cache_file().write_text(json.dumps(stored))


@pytest.mark.usefixtures("gpu")
def test_kernels_of_gpus_run_where_they_were_measured_to_be_faster(cache):
    w = weight(0.1)
    assert choosing.cache_file() != cache
    assert operations.choose(None, operations.PRODUCTS, w, 4) != "pallas_gpu"
    assert "tune measures it here" in explain(w, 4)
    store(cache, {"FanIn": 0.3})
    assert operations.choose(None, operations.PRODUCTS, w, 4) == "pallas_gpu"
    assert "the kernel in Pallas; faster than dense up to 30 %" in explain(w, 4)
    # Room for as many weights as the fullest neuron has is what counts.
    assert operations.choose(None, operations.PRODUCTS, weight(0.5), 4) != "pallas_gpu"
    assert "a dense weight is faster above 30 %" in explain(weight(0.5), 4)
    x = jnp.ones((4, 40))
    expected = matmul(x, w, implementation="reference")
    np.testing.assert_allclose(matmul(x, w), expected, atol=1e-4)


@pytest.mark.usefixtures("gpu")
def test_tiles_are_those_that_were_measured(cache):
    assert tiles.tiles("n_m_matmul", "bfloat16") == (64, 4)
    store(cache, {})
    assert tiles.tiles("n_m_matmul", "bfloat16") == (32, 8)
    assert tiles.tiles("n_m_matmul", "float32") == (32, 4)
    with tiles.trying({("n_m_matmul", "bfloat16"): tiles.Tiles(16, 2)}):
        assert tiles.tiles("n_m_matmul", "bfloat16") == (16, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_tunes_a_gpu(monkeypatch, capsys):
    # Interpreted, but for that all of it as on a device.
    monkeypatch.setattr(rotating, "MOST", 2)
    some = {name: every[:2] for name, every in tiles.CANDIDATES.items()}
    monkeypatch.setattr(tune_gpu, "CANDIDATES", some)
    tune.main(["--seconds", "0.001", "--batches", "4", "--shape", "256", "128"])
    print(capsys.readouterr().out)
    stored = json.loads(choosing.cache_file().read_text())
    assert set(stored["limits"]) == set(choosing.ON_GPU)
    assert set(stored["tiles"]) == {f"{name} bfloat16" for name in tiles.CANDIDATES}
    # A kernel that is wrong is not to be used, whatever its speed.
    monkeypatch.setattr(tune_gpu, "error", lambda *args, **kwargs: float("nan"))
    tune.main(["--seconds", "0.001", "--batches", "4", "--shape", "256", "128"])
    assert "is wrong by nan" in capsys.readouterr().out
    assert largest_density(4, "FanIn") == 0
