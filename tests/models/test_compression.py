"""Compressed transformers decode what masked ones do, token for token."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.decoding import generate
from sparsejax.models.compression import compressed
from sparsejax.models.transformer import transformer
from sparsejax.nn import FanInLinear, NMLinear

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5]]
# The likeliest tokens of a random network are soon the same; drawn ones never are.
DRAWN = {"temperature": 1.0, "key": jax.random.key(2)}


def masked(model, **options):
    """The model with exact zeros in its blocks, and the masks' state."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    options = {"sparsity": 0.8, "distribution": sj.uniform(), **options}
    tx = sj.static(
        optax.sgd(0.1), where="blocks/.*kernel", layout=model.layout, **options
    )
    state = tx.init(params)
    nnx.update(model, sj.sparsify(params, state))
    return model, state


def small(**options):
    options = {"layers": 2, "width": 40, "heads": 4, "tied": False, **options}
    return transformer((64,), 29, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, FanInLinear),
        ({"structure": sj.fan_in(), "packed": True}, FanInLinear),
        ({"structure": sj.n_m(2, 4), "sparsity": 0.5}, NMLinear),
    ],
)
@pytest.mark.parametrize("scanned", [True, False])
def test_greedy_decoding_is_that_of_the_masked_model(options, kind, scanned):
    model, state = masked(small(scanned=scanned), **options)
    fast = compressed(model, state)
    assert not fast.scanned
    assert type(fast.blocks[1].mlp.down) is kind is type(fast.blocks[0].attention.key)
    for drawn in ({}, DRAWN):
        expected = generate(model, PROMPTS, tokens=40, **drawn)
        found = generate(fast, PROMPTS, tokens=40, **drawn)
        np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 20


def test_masks_may_be_given_instead_of_a_state():
    model, state = masked(small(), packed=True)
    masks = sj.masks(state)
    assert masks["embed"]["embedding"] is None
    tokens = np.array(PROMPTS[:1])
    np.testing.assert_array_equal(
        compressed(model, masks)(tokens), compressed(model, state)(tokens)
    )


def test_it_is_stored_and_read_again(tmp_path):
    model, state = masked(small())
    fast = compressed(model, state)
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", small().unscanned())
    tokens = np.array(PROMPTS[:1])
    np.testing.assert_array_equal(again(tokens), fast(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [257, 50_257])
def test_decoding_is_the_same_at_the_size_of_gpt_2(vocabulary):
    model = transformer((1024,), vocabulary, size="small", tied=False, rngs=nnx.Rngs(0))
    model, state = masked(model, sparsity=0.9)
    prompt = jax.random.randint(jax.random.key(1), (1, 32), 0, vocabulary)
    masked_model, fast = model.unscanned(), compressed(model, state)
    for drawn in ({}, DRAWN):
        expected = generate(masked_model, prompt, tokens=128, **drawn)
        found = generate(fast, prompt, tokens=128, **drawn)
        np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 60
