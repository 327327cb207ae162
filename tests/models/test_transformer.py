"""The transformer against its definition, in all of its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models.attention import rotary_frequencies, rotated, visible
from sparsejax.models.transformer import transformer

SMALL = {"layers": 2, "width": 32, "heads": 4, "key_value_heads": 2, "hidden": 48}
CONTEXT, VOCABULARY = 12, 29
VARIANTS = {
    "llama": {"tied": False},
    "gpt2": {
        "normalisation": "layer",
        "positions": "learned",
        "gated": False,
        "activation": "gelu_tanh",
        "bias": True,
        "input_bias": True,
        "key_value_heads": 4,
    },
    "encoder": {"causal": False},
}


def make(seed=0, **options):
    options = {**SMALL, **options}
    return transformer((CONTEXT,), VOCABULARY, rngs=nnx.Rngs(seed), **options)


@pytest.fixture
def tokens():
    return jax.random.randint(jax.random.key(3), (2, CONTEXT), 0, VOCABULARY)


def by_hand(model, tokens):
    """The logits of one sequence, in NumPy and float64, without heads side by side."""
    shape = model.shape
    params = jax.tree.map(
        lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(nnx.state(model))
    )
    x = params["embed"]["embedding"][tokens]
    if shape.positions == "learned":
        x = x + params["position_embed"]["embedding"][: len(tokens)]

    def norm(x, weights):
        if shape.normalisation == "rms":
            scale = np.sqrt((x**2).mean(-1, keepdims=True) + shape.epsilon)
            return x / scale * weights["scale"]
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + shape.epsilon)
        return centred / scale * weights["scale"] + weights["bias"]

    def linear(x, weights):
        return x @ weights["kernel"] + weights.get("bias", 0.0)

    def turned(head):
        half = shape.head_size // 2
        angles = np.arange(len(head))[:, None] * 10_000.0 ** (-np.arange(half) / half)
        pairs = head[:, :half] + 1j * head[:, half:]
        pairs = pairs * np.exp(1j * angles)
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    def activation(x):
        if shape.activation == "silu":
            return x / (1 + np.exp(-x))
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))

    for layer in range(shape.layers):
        block = jax.tree.map(lambda x, layer=layer: x[layer], params["blocks"])
        attention, mlp = block["attention"], block["mlp"]
        normed = norm(x, block["attention_norm"])
        query, key, value = (
            linear(normed, attention[name]).reshape(len(x), -1, shape.head_size)
            for name in ("query", "key", "value")
        )
        mixed = []
        for head in range(shape.heads):
            shared = head // (shape.heads // shape.key_value_heads)
            q, k, v = query[:, head], key[:, shared], value[:, shared]
            if shape.positions == "rotary":
                q, k = turned(q), turned(k)
            scores = q @ k.T / np.sqrt(shape.head_size)
            if shape.causal:
                scores[np.triu_indices(len(x), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
        x = x + linear(np.concatenate(mixed, axis=1), attention["out"])
        normed = norm(x, block["mlp_norm"])
        up = linear(normed, mlp["up"])
        inside = (
            activation(linear(normed, mlp["gate"])) * up
            if shape.gated
            else activation(up)
        )
        x = x + linear(inside, mlp["down"])
    x = norm(x, params["final_norm"])
    return x @ (
        params["embed"]["embedding"].T if shape.tied else params["head"]["kernel"]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_definition(variant, tokens):
    model = make(**VARIANTS[variant])
    for row, sequence in zip(model(tokens), tokens, strict=True):
        np.testing.assert_allclose(row, by_hand(model, np.asarray(sequence)), atol=2e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_listed_blocks_are_the_stacked_ones(variant, tokens):
    stacked = make(**VARIANTS[variant])
    listed = make(**VARIANTS[variant], scanned=False)
    wanted = stacked(tokens)
    for model in (listed, stacked.unscanned(), listed.rescanned()):
        np.testing.assert_allclose(model(tokens), wanted, atol=2e-6)
    shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(listed.rescanned())))
    assert shapes == jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(stacked)))


def test_recomputing_changes_no_gradient(tokens):
    def gradient(**options):
        graph, params = nnx.split(make(**options))
        loss = jax.jit(jax.grad(lambda p: nnx.merge(graph, p)(tokens).var()))
        return jax.tree.leaves(loss(params))

    for plain, again in zip(gradient(), gradient(remat=True), strict=True):
        np.testing.assert_allclose(plain, again, atol=1e-7)


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("variant", ["llama", "gpt2"])
def test_decoding_gives_the_logits_of_the_whole(variant, scanned, tokens):
    model = make(**VARIANTS[variant], scanned=scanned)
    cache = model.empty_cache(2, CONTEXT + 3)
    first, cache = model.decode(tokens[:, :5], cache)
    logits = [first]
    for position in range(5, CONTEXT):
        next_, cache = model.decode(tokens[:, position : position + 1], cache)
        logits.append(next_)
    found = jnp.concatenate(logits, axis=1)
    np.testing.assert_allclose(found, model(tokens), atol=2e-6)
    assert int(cache.length) == CONTEXT


def test_no_token_sees_the_future_or_another_document(tokens):
    model = make()
    segments = jnp.where(jnp.arange(CONTEXT) < 7, 0, 1)[None].repeat(2, 0)
    positions = jnp.where(jnp.arange(CONTEXT) < 7, 0, 7)
    positions = (jnp.arange(CONTEXT) - positions)[None].repeat(2, 0)
    packed = model(tokens, segments=segments, positions=positions)
    changed = tokens.at[:, 6].add(1) % VOCABULARY
    others = model(changed, segments=segments, positions=positions)
    np.testing.assert_array_equal(others[:, :6], packed[:, :6])
    np.testing.assert_array_equal(others[:, 7:], packed[:, 7:])
    assert abs(others[:, 6] - packed[:, 6]).max() > 1e-3
    # A document in a pack is what it is alone.
    np.testing.assert_allclose(packed[:, 7:], model(tokens[:, 7:]), atol=2e-6)
    assert abs(model(changed)[:, 7:] - model(tokens)[:, 7:]).max() > 1e-4


def test_a_prefix_is_read_in_both_directions(tokens):
    model = make()
    prefix = jnp.arange(CONTEXT)[None].repeat(2, 0) < 5
    changed = tokens.at[:, 4].add(1) % VOCABULARY
    before, after = (model(one, prefix=prefix) for one in (tokens, changed))
    assert abs(after[:, 0] - before[:, 0]).max() > 1e-4
    late = tokens.at[:, 9].add(1) % VOCABULARY
    np.testing.assert_array_equal(model(late, prefix=prefix)[:, :9], before[:, :9])
    # The same when it is read at once into a cache.
    cache = model.empty_cache(2, CONTEXT)
    first, cache = model.decode(tokens[:, :5], cache, prefix=True)
    np.testing.assert_allclose(first, before[:, :5], atol=2e-6)
    next_, _ = model.decode(tokens[:, 5:6], cache)
    np.testing.assert_allclose(next_, before[:, 5:6], atol=2e-6)


def test_rotary_positions_matter_by_their_differences():
    frequencies = rotary_frequencies(8, 100.0)
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(first, second):
        turned = [
            rotated(x, jnp.array([[at]]), frequencies)
            for x, at in ((query, first), (key, second))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(102, 100), rel=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), rel=1e-3)


def test_long_waves_are_stretched_as_in_llama_3():
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain = rotary_frequencies(128, 500_000.0)
    found = rotary_frequencies(128, 500_000.0, scaling)
    waves = 2 * np.pi / plain
    np.testing.assert_allclose(found[waves < 2048], plain[waves < 2048])
    np.testing.assert_allclose(found[waves > 8192], plain[waves > 8192] / 8)
    between = (waves > 2048) & (waves < 8192)
    assert between.sum() > 0
    assert ((found < plain) & (found > plain / 8))[between].all()


def test_named_sizes_are_the_published_ones():
    def size(name, vocabulary, context=1024, **options):
        made = nnx.eval_shape(
            lambda: transformer(
                (context,), vocabulary, size=name, rngs=nnx.Rngs(0), **options
            )
        )
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made, nnx.Param)))

    assert size("1b", 128_256) == 1_235_814_400  # Llama 3.2 1B
    gpt2 = VARIANTS["gpt2"] | {"hidden": 3072, "key_value_heads": 12}
    assert size("small", 50_257, **gpt2) == 124_439_808  # GPT-2


def test_a_mask_of_everything_is_none():
    assert visible(4, causal=False) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "size = 'huge': use one of 'tiny'"),
        ({"heads": 3}, "heads = 3 does not divide width = 32"),
        ({"key_value_heads": 3}, "key_value_heads = 3 does not divide heads = 4"),
        ({"head_size": 7}, "head_size = 7 is odd"),
        ({"activation": "swish"}, "activation = 'swish': use one of 'silu'"),
        ({"layers": 0}, "layers = 0: use an integer >= 1"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
