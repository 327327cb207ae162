"""Where dense is faster the library says so, and leaves layers dense when asked."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import FanIn, choosing, explain, largest_density, native, tune

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
    assert "but a dense weight is faster above 41 %" in explain(weight(0.45), 256)
    assert "faster than dense up to 47 %" in explain(weight(0.45), 1)
    assert sj.explain is explain


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
    for kind in ("FanIn", "PackedNM", "Block"):
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
