"""The layout of sparse tensor cores, and what multiplies by it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import NM, TwoFour, explain, matmul, pallas_versions
from sparsejax_kernels.formats.two_four import offsets_of
from sparsejax_kernels.rotating import error, random_n_m, random_two_four


def instruction(words, values, right):
    """``wgmma.mma_async.sp.m64n?k32``, thread by thread as PTX's manual describes it.

    Args:
      words: the word of each of 128 threads.
      values: ``(64, 16)``, what is kept of each row.
      right: ``(32, n)``.

    Returns:
      For both selectors the product, ``(64, n)``.
    """
    results = []
    for selector in (0, 1):
        dense = np.zeros((64, 32))
        for thread in range(128):
            warp, lane = divmod(thread, 32)
            quad, member = divmod(lane, 4)
            # The selector names the pair of threads in each four that counts.
            if member // 2 != selector:
                continue
            for half in (0, 1):
                row = 16 * warp + quad + 8 * half
                bits = int(words[thread]) >> (16 * half)
                for chunk in range(4):
                    group = 4 * (member % 2) + chunk
                    first, second = bits >> (4 * chunk) & 3, bits >> (4 * chunk + 2) & 3
                    # Anything else is undefined.
                    assert first < second
                    dense[row, 4 * group + first] = values[row, 2 * group]
                    dense[row, 4 * group + second] = values[row, 2 * group + 1]
        results.append(dense @ right)
    return results


def by_hand(w, x):
    """The product with the weight, tile by tile, as the kernel walks over it."""
    rows, steps, _, _ = w.words.shape
    words = np.asarray(w.words).view(np.uint32).reshape(rows, steps, 128, 4)
    outputs, half = w.values.shape
    values = np.zeros((128 * rows, 64 * steps))
    values[:outputs, :half] = np.asarray(w.values.astype(jnp.float32))
    right = np.zeros((128 * steps, x.shape[0]))
    right[: x.shape[1]] = np.asarray(x.astype(jnp.float32)).T
    total = np.zeros((128 * rows, x.shape[0]))
    for row in range(2 * rows):
        place = slice(64 * row, 64 * row + 64)
        for step in range(4 * steps):
            thread_words = words[row // 2, step // 4, :, 2 * (row % 2) + step % 4 // 2]
            kept = values[place, 16 * step : 16 * step + 16]
            results = instruction(thread_words, kept, right[32 * step : 32 * step + 32])
            total[place] += results[step % 2]
    return total[:outputs].T


def activations(rows, inputs):
    return jax.random.normal(jax.random.key(0), (rows, inputs), jnp.bfloat16)


@pytest.mark.parametrize("shape", [(128, 128), (260, 130)])
def test_the_instruction_reads_the_weight_from_its_words(shape):
    n_m = random_n_m(shape, 2, 4)
    w, x = n_m.for_tensor_cores(), activations(3, shape[0])
    dense = np.asarray(n_m.todense().astype(jnp.float32), np.float64)
    expected = np.asarray(x.astype(jnp.float32)) @ dense
    np.testing.assert_allclose(by_hand(w, x), expected, atol=1e-5)
    assert (w.todense() == n_m.todense()).all()
    assert (offsets_of(w.words)[: shape[1], : shape[0] // 4] == n_m.offsets).all()
    assert int(w.count) == int(n_m.count) and w.shape == n_m.shape


def test_the_transposed_words_are_those_of_the_transposed_weight():
    w = random_two_four((264, 132))
    values = w.values.reshape(-1)[w.transposed.places]
    turned = TwoFour(values, w.transposed.words, 132)
    assert (turned.todense() == w.todense().T).all()
    cotangent = activations(2, 132)
    dense = np.asarray(w.todense().astype(jnp.float32), np.float64)
    expected = np.asarray(cotangent.astype(jnp.float32)) @ dense.T
    np.testing.assert_allclose(by_hand(turned, cotangent), expected, atol=1e-5)


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("implementation", ["pallas_gpu", None])
def test_product_and_gradients(transpose, implementation):
    w = random_two_four((136, 72))
    w = w if transpose else dataclasses.replace(w, transposed=None)
    x = activations(5, 136)
    assert error(w, x, implementation=implementation, gradients=True) < 0.01


def test_a_weight_that_is_not_two_of_four_is_refused():
    weights = jnp.ones((8, 4))
    mask = jnp.tile(jnp.asarray([[1], [1], [0], [0]], bool), (2, 4))
    w = NM.fromdense(weights, mask, n=2, m=4)
    good = w.for_tensor_cores()
    with pytest.raises(ValueError, match="the mask is not transposable"):
        good.with_transpose()
    fewer = NM.fromdense(weights, mask.at[4, 2].set(False), n=2, m=4)
    with pytest.raises(ValueError, match="group 1 of output 2 keeps fewer than two"):
        fewer.for_tensor_cores()
    first = mask & (jnp.arange(8) % 4 == 0)[:, None]
    with pytest.raises(ValueError, match="n is 1 and m is 4"):
        NM.fromdense(weights, first, n=1, m=4).for_tensor_cores()
    with pytest.raises(ValueError, match="multiple of 4"):
        NM.fromdense(weights[:6], mask[:6], n=2, m=4).for_tensor_cores()
    with pytest.raises(ValueError, match="build it by"):
        TwoFour(good.values, good.words, 12)


def test_transforms_take_the_weight():
    w, x = random_two_four((128, 64)), activations(6, 128)

    def loss(values, x):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, implementation="pallas_gpu").astype(jnp.float32).sum()

    one_by_one = [jax.grad(loss)(w.values, row[None]) for row in x]
    mapped = jax.vmap(jax.grad(loss), (None, 0))(w.values, x[:, None])
    for found, expected in zip(mapped, one_by_one, strict=True):
        assert (found == expected).all()
    assert "TwoFour 128x64, 50 % dense, batch 6" in explain(w, 6)


@pytest.mark.parametrize("batch", [1, 130])
def test_lowers_for_hopper(monkeypatch, batch):
    from test_pallas_gpu import lowered

    monkeypatch.delenv("SPARSEJAX_KERNELS_INTERPRET")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(pallas_versions, "hopper", lambda: True)
    w = random_two_four((256, 128))

    def both(x, w):
        y, vjp = jax.vjp(lambda x: matmul(x, w, implementation="pallas_gpu"), x)
        return y, vjp(y)

    text = lowered(both, activations(batch, 256), w)
    # The product and the gradient, on sparse tensor cores both.
    assert text.count("custom_call @mosaic_gpu") == 2
    assert "xla.gpu.triton" not in text
