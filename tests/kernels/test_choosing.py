"""Where dense is faster the library says so, and leaves layers dense when asked."""

import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import FanIn, explain, largest_density, native

import sparsejax as sj


def weight(density, shape=(40, 30)):
    mask = np.random.default_rng(0).random(shape) < density
    return FanIn.fromdense(jnp.asarray(mask, jnp.float32), jnp.asarray(mask))


@pytest.mark.skipif(not native.available(), reason="native kernels are not built")
def test_explains_by_density_and_batch():
    assert "native CPU kernel; faster than dense" in explain(weight(0.1), 256)
    assert "but a dense weight is faster above 40 %" in explain(weight(0.45), 256)
    assert "faster than dense up to 50 %" in explain(weight(0.45), 1)
    assert sj.explain is explain


def test_says_why_the_fallback_runs(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    assert "SPARSEJAX_KERNELS_NATIVE=0 turns" in explain(weight(0.05), 64)
    assert "a dense weight is faster" in explain(weight(0.05), 64)
    assert largest_density(64) == 0


def test_a_batch_is_at_least_one_row():
    with pytest.raises(ValueError, match="batch is 0"):
        largest_density(0)


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
