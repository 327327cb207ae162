"""Decoding: the same tokens however they are asked for, drawn as was asked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.decoding import chosen, generate, stream
from sparsejax.models.transformer import transformer

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def small(context=64, vocabulary=29, scanned=False, **options):
    # A random network whose head is its embedding says each token again and again.
    options = {"layers": 2, "width": 32, "heads": 4, "tied": False, **options}
    return transformer(
        (context,), vocabulary, scanned=scanned, rngs=nnx.Rngs(0), **options
    )


def greedy_by_whole_sequences(model, prompt, tokens):
    """Every token by a call with all before it, in arrays of one length."""
    call = nnx.jit(lambda model, row: model(row))
    row = np.zeros((1, len(prompt) + tokens), np.int32)
    row[0, : len(prompt)] = prompt
    for place in range(len(prompt), row.shape[1]):
        row[0, place] = call(model, row)[0, place - 1].argmax()
    return row[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    "options", [{}, {"scanned": True}, {"positions": "learned", "key_value_heads": 1}]
)
def test_greedy_tokens_are_those_of_whole_sequences(options):
    model = small(**options)
    expected = greedy_by_whole_sequences(model, PROMPT, 20)
    assert len(set(expected)) > 3
    assert generate(model, [PROMPT], tokens=20, chunk=7).tolist() == [expected]


def test_shorter_prompts_beside_longer_ones_change_nothing():
    model = small()
    prompts = [PROMPT, [7], PROMPT[:5]]
    together = generate(model, prompts, tokens=12)
    for row, prompt in zip(together, prompts, strict=True):
        np.testing.assert_array_equal(row, generate(model, [prompt], tokens=12)[0])


@pytest.mark.parametrize("window", [16, 64])
def test_chunks_are_parts_of_the_same_stream(window):
    model, key = small(), jax.random.key(5)
    options = {"tokens": 30, "temperature": 1.0, "key": key, "window": window}
    parts = list(stream(model, [PROMPT, [2]], chunk=4, **options))
    assert {part.shape[1] for part in parts} <= {1, 2, 4}
    whole = np.concatenate(parts, axis=1)
    assert whole.shape == (2, 30)
    one_by_one = list(stream(model, [PROMPT, [2]], **options))
    assert all(part.shape == (2, 1) for part in one_by_one)
    np.testing.assert_array_equal(np.concatenate(one_by_one, axis=1), whole)
    begin = generate(model, [PROMPT, [2]], **{**options, "tokens": 9})
    np.testing.assert_array_equal(begin, whole[:, :9])


def test_a_full_window_is_read_again_by_half():
    model = small(context=16)
    found = generate(model, [PROMPT], tokens=24)[0].tolist()
    rows = [*PROMPT]
    expected = greedy_by_whole_sequences(model, rows, 9)
    rows += expected
    while len(expected) < 24:
        more = greedy_by_whole_sequences(model, rows[-8:], 9)
        rows, expected = rows + more, expected + more
    assert found == expected[:24]


def test_prompts_longer_than_the_window_are_read_from_their_end():
    model = small(context=16)
    long = [*range(20), *PROMPT]
    expected = greedy_by_whole_sequences(model, long[-16:], 1)
    assert generate(model, [long], tokens=1).tolist() == [expected]


def test_a_stop_ends_its_sequence_and_all_of_them_the_stream():
    model = small()
    prompts = [PROMPT, [7, 7, 7]]
    options = {"temperature": 1.5, "key": jax.random.key(1)}
    free = generate(model, prompts, tokens=40, **options)
    stop = int(free[0, 6])
    ends = [int(np.argmax(row == stop)) if stop in row else 39 for row in free]
    found = generate(model, prompts, tokens=40, stop=stop, chunk=5, **options)
    assert found.shape == (2, max(ends) + 1)
    for row, whole, end in zip(found, free, ends, strict=True):
        np.testing.assert_array_equal(row[: end + 1], whole[: end + 1])
        assert (row[end:] == stop).all() or end == 39


def test_tokens_are_drawn_by_their_probabilities():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.3, 0.2]))

    def shares(**options):
        keys = jax.random.split(jax.random.key(0), 4000)
        drawn = chosen(jnp.tile(logits, (4000, 1)), keys, **options)
        return np.bincount(drawn, minlength=4) / 4000

    np.testing.assert_allclose(shares(), [0.1, 0.4, 0.3, 0.2], atol=0.03)
    sharp = np.array([0.01, 0.16, 0.09, 0.04])
    np.testing.assert_allclose(shares(temperature=0.5), sharp / 0.3, atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0, 4 / 7, 3 / 7, 0], atol=0.03)
    # 0.4 alone is less than 0.5, 0.4 and 0.3 are enough.
    np.testing.assert_allclose(shares(top_p=0.5), [0, 4 / 7, 3 / 7, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=1e-6), [0, 1, 0, 0])
    # Of the two likeliest, 4/7 is enough.
    np.testing.assert_allclose(shares(top_k=2, top_p=0.5), [0, 1, 0, 0])
    everything = shares(top_k=99, top_p=1.0)
    np.testing.assert_allclose(everything, [0.1, 0.4, 0.3, 0.2], atol=0.03)


def test_keys_and_places_draw_different_tokens():
    model = small()
    options = {"tokens": 24, "temperature": 2.0}
    first = generate(model, [PROMPT] * 2, key=jax.random.key(0), **options)
    again = generate(model, [PROMPT] * 2, key=jax.random.key(0), **options)
    other = generate(model, [PROMPT] * 2, key=jax.random.key(1), **options)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[0] != first[1]).any()


def test_a_stream_can_be_left():
    parts = stream(small(), [PROMPT], tokens=10**9)
    assert len(list(itertools.islice(parts, 3))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts has 0 sequences"),
        ({"prompts": [[1], []]}, "the shortest of 0 tokens"),
        ({"prompts": [[29]]}, "the token 29; the model's are 0 to 28"),
        ({"tokens": 0}, "tokens is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1.0}, "there is no key"),
        ({"top_k": 3}, "temperature is 0, which takes the likeliest"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"stop": 29}, "stop is 29"),
        ({"window": 1}, "window is 1"),
    ],
)
def test_mistakes_are_named_at_once(change, message):
    arguments = {"prompts": [PROMPT], "tokens": 4, **change}
    with pytest.raises(ValueError, match=message):
        stream(small(), **arguments)


def test_models_that_cannot_go_on_are_refused():
    with pytest.raises(ValueError, match="causal = False"):
        stream(small(causal=False), [PROMPT], tokens=4)
    with pytest.raises(ValueError, match="learned positions for 64 tokens"):
        stream(small(positions="learned"), [PROMPT], tokens=4, window=65)
