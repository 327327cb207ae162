"""Which leaves are chosen, and how they are oriented."""

import jax
import jax.numpy as jnp
import pytest

import sparsejax as sj
from sparsejax.layers import choose_layers, path_name


def paths(params, where=sj.matmul_weights, layout=None):
    layers = choose_layers(params, where=where, layout=layout or sj.by_name())
    return [layer.path for layer in layers]


def shapes(tree):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        tree,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def test_default_choice_is_every_matmul_and_convolution():
    params = shapes(
        {
            "stem": {"kernel": (3, 3, 3, 8)},
            "depthwise": {"kernel": (3, 3, 1, 8)},
            "norm1": {"scale": (4, 8), "bias": (4, 8)},
            "blocks": {"ln": {"scale": (12, 8)}},
            "attention": {
                "query": {"kernel": (8, 2, 4), "bias": (2, 4)},
                "out": {"kernel": (2, 4, 8), "bias": (8,)},
            },
            "token_embedding": {"embedding": (100, 8)},
            "head": {"kernel": (8, 10), "bias": (10,)},
        }
    )
    assert paths(params) == [
        "attention/out/kernel",
        "attention/query/kernel",
        "head/kernel",
        "stem/kernel",
    ]


def test_integer_leaves_are_never_chosen():
    params = {"table": jnp.ones((4, 4), jnp.int32), "w": jnp.ones((4, 4))}
    assert paths(params) == ["w"]


def test_patterns_choose_and_must_match():
    params = shapes({"a": {"kernel": (4, 4)}, "b": {"kernel": (4, 4)}})
    assert paths(params, where="^a/") == ["a/kernel"]
    assert paths(params, where=["^a/", "^b/"]) == ["a/kernel", "b/kernel"]
    with pytest.raises(
        ValueError, match="where='c/' matches no path; the paths are: a"
    ):
        paths(params, where="c/")
    with pytest.raises(ValueError, match="not a regular expression"):
        paths(params, where="a(")


def test_nothing_to_sparsify_is_an_error():
    with pytest.raises(ValueError, match="chooses no leaf"):
        paths(shapes({"bias": (4,)}))


@pytest.mark.parametrize(
    ("layout", "path", "shape", "want"),
    [
        (sj.flax(), "dense/kernel", (4, 6), ((0,), (1,), ())),
        (sj.flax(), "conv/kernel", (3, 3, 4, 6), ((0, 1, 2), (3,), ())),
        (sj.flax(), "attention/query/kernel", (8, 2, 4), ((0,), (1, 2), ())),
        (sj.flax(), "attention/out/kernel", (2, 4, 8), ((0, 1), (2,), ())),
        (sj.equinox(), "layers/0/weight", (6, 4), ((1,), (0,), ())),
        (sj.by_name(), "layers/0/weight", (6, 4, 3, 3), ((2, 3, 1), (0,), ())),
        (sj.flax(stacked={"blocks/": 1}), "blocks/w", (5, 4, 6), ((1,), (2,), (0,))),
    ],
)
def test_orientation(layout, path, shape, want):
    assert tuple(layout(path, shape)) == want


def test_stacking_must_leave_a_matrix():
    with pytest.raises(ValueError, match="leaves fewer than two axes"):
        sj.flax(stacked={"w": 1})("w", (4, 4))


def test_a_boxed_value_is_not_part_of_the_name():
    path = tuple(
        jax.tree_util.GetAttrKey(name) for name in ("attention", "value", "bias")
    )
    assert path_name(path) == "attention/value/bias"
    assert path_name((*path, jax.tree_util.GetAttrKey("value"))) == (
        "attention/value/bias"
    )


def test_attention_of_flax_keeps_its_biases_dense():
    nnx = pytest.importorskip("flax.nnx")
    module = nnx.MultiHeadAttention(2, 8, rngs=nnx.Rngs(0), decode=False)
    for params in (
        nnx.state(module, nnx.Param),
        nnx.to_pure_dict(nnx.state(module, nnx.Param)),
    ):
        layers = choose_layers(params, where=sj.matmul_weights, layout=sj.by_name())
        found = {layer.path: tuple(layer.spec) for layer in layers}
        inputs_first = ((0,), (1, 2), ())
        assert found == {
            "key/kernel": inputs_first,
            "out/kernel": ((0, 1), (2,), ()),
            "query/kernel": inputs_first,
            "value/kernel": inputs_first,
        }
