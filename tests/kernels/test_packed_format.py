"""Packed weights and their product: round trips, validation, the dense product."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import NM, FanIn, Packed, matmul, native
from test_n_m_format import PATTERNS, n_m_layer
from weights import check_product_and_gradients, layer

NATIVE = native.available()
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")
LEVELS = ["portable", "avx2", "avx512"]
PALLAS = ["pallas_gpu", "pallas_tpu"]
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else []), *PALLAS]


def n_m_packed(inputs, outputs, n, m):
    return NM.fromdense(*n_m_layer(inputs, outputs, n, m), n=n, m=m).packed()


def unstructured(inputs, outputs, *, density=0.3, slots=None, dtype=jnp.float32):
    w = FanIn.fromdense(*layer(inputs, outputs, density, dtype=dtype))
    return Packed.from_fan_in(w, slots=slots)


KINDS = {
    "2:4": lambda inputs, outputs: n_m_packed(inputs, outputs, 2, 4),
    "3:32": lambda inputs, outputs: n_m_packed(inputs, outputs, 3, 32),
    "any": unstructured,
    "2 slots": lambda *shape: unstructured(*shape, slots=2),
    "only a rest": lambda *shape: unstructured(*shape, density=0.1, slots=0),
    "all": lambda *shape: unstructured(*shape, density=1.0),
}


def normal(*shape):
    generator = np.random.default_rng(1)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_round_trip_of_groups(pattern):
    n, m = pattern
    weights, mask = n_m_layer(61, 17, n, m, jnp.bfloat16)
    w = NM.fromdense(weights, mask, n=n, m=m)
    packed = jax.jit(NM.packed)(w)
    assert packed.values.shape == (2, 2 * 32 * n // m, 16) and packed.depth == 0
    assert np.array_equal(packed.todense(), w.todense())
    assert int(packed.count) == int(w.count) and packed.shape == w.shape
    assert packed.nbytes == packed.values.size * (2 + 1)
    assert packed.dtype == jnp.bfloat16 and packed.density == w.density


@settings(max_examples=10, deadline=None)
@given(
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 40),
    density=st.floats(0, 1),
    slots=st.none() | st.integers(0, 32),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_round_trip_of_any_weight(inputs, outputs, density, slots, dtype):
    weights, mask = layer(inputs, outputs, density, dtype=dtype)
    w = FanIn.fromdense(weights, mask)
    packed = Packed.from_fan_in(w, slots=slots)
    assert slots is None or packed.slots == slots
    assert packed.dtype == dtype and packed.shape == w.shape
    # A kept weight that is zero is counted, and stays kept.
    assert int(packed.count) == int(mask.sum())
    assert np.array_equal(packed.todense(), jnp.where(mask, weights, 0))
    ones = dataclasses.replace(packed, values=jnp.ones_like(packed.values))
    assert np.array_equal(ones.todense() > 0, mask)


def test_indices_in_any_order_are_packed_in_theirs():
    values = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
    indices = jnp.asarray([[40, 5, 41, 3]], jnp.uint8)
    packed = Packed.from_fan_in(FanIn(values, indices, 64), slots=1)
    assert packed.offsets[0, :, 0, 0].tolist() == [3, 8]
    assert packed.rest[0, :, 0].tolist() == [5, 41]
    assert packed.values[0, :, 0].tolist() == [4.0, 1.0, 2.0, 3.0]


def test_the_number_of_slots_follows_the_weights():
    def packed(mask):
        return Packed.from_fan_in(FanIn.fromdense(jnp.ones(mask.shape), mask))

    mask = jnp.zeros((256, 16), bool).at[::8].set(True)
    # Four in each block of every output: a place for each, and no rest.
    assert (packed(mask).slots, packed(mask).depth) == (4, 0)
    # One output that keeps more of a block does not cost all others as many places.
    uneven = packed(mask.at[:32, 0].set(True))
    assert (uneven.slots, uneven.depth) == (4, 28)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["3:32", "2 slots"])
@pytest.mark.parametrize("batch", [1, 40])
def test_product_and_gradients(implementation, kind, batch):
    check_product_and_gradients(KINDS[kind](61, 9), normal(batch, 61), implementation)


@needs_native
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 7, 70, 130])
@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(kind, batch, level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = KINDS[kind](157, 37)
    x, bias = normal(batch, 157), normal(37)
    y = matmul(x, w, bias=bias, activation="relu", implementation="cpu")
    expected = np.maximum(np.asarray(x) @ np.asarray(w.todense()) + np.asarray(bias), 0)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.slow  # scripts/sanitize_kernels.sh fuzzes the same shapes.
@needs_native
@settings(max_examples=5, deadline=None)
@given(
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 70),
    kind=st.sampled_from([*KINDS]),
    batch=st.integers(1, 80),
    level=st.sampled_from(LEVELS),
)
def test_the_kernel_at_odd_shapes(inputs, outputs, kind, batch, level):
    w = KINDS[kind](inputs, outputs)
    x, bias = normal(batch, inputs), normal(outputs)

    def run(x, values, bias):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, bias=bias, activation="relu", implementation="cpu")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        y, vjp = jax.vjp(run, x, w.values, bias)
        dx, dvalues, dbias = vjp(normal(batch, outputs))
    dense = np.asarray(w.todense())
    expected = np.maximum(np.asarray(x) @ dense + np.asarray(bias), 0)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    cotangent = np.where(expected > 0, normal(batch, outputs), 0)
    np.testing.assert_allclose(dx, cotangent @ dense.T, atol=1e-4)
    np.testing.assert_allclose(dbias, cotangent.sum(0), atol=1e-4)
    sampled = dataclasses.replace(w, values=dvalues).todense()
    kept = dataclasses.replace(w, values=jnp.ones_like(dvalues)).todense() > 0
    wanted = np.where(kept, x.T @ cotangent, 0)
    np.testing.assert_allclose(sampled, wanted, atol=1e-4)


@needs_native
@pytest.mark.parametrize("kind", ["3:32", "2 slots", "only a rest"])
@pytest.mark.parametrize("batch", [2, 20])
def test_padding_reads_no_input(kind, batch):
    w = KINDS[kind](40, 20)
    x = jnp.full((batch, 40), jnp.inf).at[:, 1:].set(normal(batch, 39))
    kept = dataclasses.replace(w, values=jnp.ones_like(w.values)).todense()
    reads = np.asarray(kept[0] > 0)
    # What is kept of the first input is zero, and no number where it is infinite.
    assert (w.todense()[0] == 0).all() and reads.any() and not reads.all()
    y = np.asarray(matmul(x, w, implementation="cpu"))
    assert np.isfinite(y[:, ~reads]).all() and np.isnan(y[:, reads]).all()


@needs_native
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("field", "bad"), [("offsets", 33), ("offsets", 255), ("rest", 51)]
)
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_corrupt_places_only_ever_raise(level, field, bad, batch, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = unstructured(50, 20, slots=3) if field == "rest" else n_m_packed(50, 20, 3, 32)
    place = (1, 1, 2, 3) if field == "offsets" else (0, 1, 3)
    places = {"offsets": w.offsets, "rest": w.rest}
    places[field] = places[field].at[place].set(bad)
    leaves = [w.values, *places.values()]
    corrupt = jax.tree.unflatten(jax.tree.structure(w), leaves)
    x = normal(batch, 50)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        matmul(x, corrupt, implementation="cpu").block_until_ready()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["2:4", "2 slots"])
def test_vmap_and_scan(implementation, kind):
    w = KINDS[kind](50, 12)
    x = normal(11, 2, 50)
    expected = x @ w.todense()

    def run(x, w):
        return matmul(x, w, implementation=implementation)

    def close(found, expected):
        np.testing.assert_allclose(found, expected, atol=1e-4)

    # More rows than the kernel takes at once.
    close(jax.vmap(run, (0, None))(x, w), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 11), w)
    close(jax.vmap(run)(x, many), expected)
    close(jax.lax.scan(lambda carry, x: (carry, run(x, w)), 0, x)[1], expected)
    close(run(x[:0, 0], w), expected[:0, 0])
    close(run(x[0, 0], w), expected[0, 0])
    half = run(x.astype(jnp.bfloat16), w)
    assert half.dtype == jnp.bfloat16 and half.shape == expected.shape


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    packed = n_m_packed(64, 9, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 2 \* slots \+ depth, 16\), \(2, 2, sl"):
        dataclasses.replace(packed, out_features=17)
    offsets = packed.offsets.at[0, 1, 0, 0].set(33)
    with pytest.raises(
        ValueError, match=r"offsets\[0, 1, 0, 0\] is 33.* 0 to 32.*from_fan_in"
    ):
        dataclasses.replace(packed, offsets=offsets)
    with pytest.raises(ValueError, match="integer"):
        dataclasses.replace(packed, offsets=packed.offsets.astype(jnp.float32))
    with pytest.raises(ValueError, match="w reads 64 inputs"):
        matmul(jnp.ones((1, 63)), packed)
    with pytest.raises(ValueError, match=r"bias has shape \(16,\)"):
        matmul(jnp.ones((1, 64)), packed, bias=jnp.ones(16))
    w = unstructured(64, 9, slots=1)
    with pytest.raises(ValueError, match=r"rest\[0, 0, 1\] is 65.* 0 to 64"):
        dataclasses.replace(w, rest=w.rest.at[0, 0, 1].set(65))
    fan_in = w.to_fan_in()
    with pytest.raises(ValueError, match="slots is 33; it is from 0 to 32"):
        Packed.from_fan_in(fan_in, slots=33)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(Packed.from_fan_in)(fan_in)
