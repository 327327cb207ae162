"""Whose weights a product reads, in networks as different libraries write them."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj

LAYERS, WIDTH, HEADS, HIDDEN, WORDS, LENGTH, BATCH = 3, 8, 2, 32, 50, 6, 4


def shape(*sizes, dtype="float32"):
    return jax.ShapeDtypeStruct(sizes, dtype)


@jax.custom_vjp
def straight(x):
    return jnp.round(x)


straight.defvjp(lambda x: (straight(x), None), lambda _, g: (g,))


def transformer(params, tokens):
    """Blocks stacked for a scan, in bfloat16, each rematerialised, heads by vmap."""

    def normalised(x, scale):
        x = x.astype(jnp.float32)
        x = (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-5)
        return (x * scale).astype(jnp.bfloat16)

    def attention(block, x):
        query, key, value = jnp.einsum(
            "lw,wnhd->nhld", x, block["qkv"].astype(jnp.bfloat16)
        )
        scores = jax.vmap(lambda q, k: jax.nn.softmax(q @ k.T))(query, key)
        mixed = jnp.einsum("hlm,hmd->lhd", scores, value).reshape(len(x), -1)
        return mixed @ block["out"].astype(jnp.bfloat16)

    @jax.checkpoint
    def layer(x, block):
        x = x + jax.vmap(partial(attention, block))(normalised(x, block["scale"]))
        hidden = normalised(x, block["scale"]) @ straight(block["up"].T).astype(x.dtype)
        return x + jax.nn.gelu(hidden) @ block["down"].astype(x.dtype), None

    x = params["embedding"][tokens].astype(jnp.bfloat16)
    x, _ = jax.lax.scan(layer, x, params["blocks"])
    return x @ params["embedding"].T.astype(jnp.bfloat16)


PARAMS = {
    "embedding": shape(WORDS, WIDTH),
    "blocks": {
        "qkv": shape(LAYERS, WIDTH, 3, HEADS, WIDTH // HEADS),
        "out": shape(LAYERS, WIDTH, WIDTH),
        "up": shape(LAYERS, HIDDEN, WIDTH),
        "down": shape(LAYERS, HIDDEN, WIDTH),
        "scale": shape(LAYERS, WIDTH),
    },
}


@pytest.mark.usefixtures("implicit_promotion")
def test_a_transformer_with_a_scan_over_layers():
    masks = {
        "blocks/up": LAYERS * HIDDEN * WIDTH // 4,
        "blocks/out": LAYERS * WIDTH * WIDTH // 2,
    }
    tokens = shape(BATCH, LENGTH, dtype="int32")
    report = sj.cost(transformer, PARAMS, masks, tokens, examples=BATCH)
    macs = {row.path: row.dense_macs for row in report.layers}
    # Each matrix meets every token once, and so does the embedding, as the output.
    assert macs == {
        "blocks/qkv": LENGTH * LAYERS * WIDTH * 3 * WIDTH,
        "blocks/out": LENGTH * LAYERS * WIDTH * WIDTH,
        "blocks/up": LENGTH * LAYERS * HIDDEN * WIDTH,
        "blocks/down": LENGTH * LAYERS * HIDDEN * WIDTH,
        "embedding": LENGTH * WORDS * WIDTH,
    }
    # Scores and mixing: the same for every sparsity.
    attention = 2 * 2 * LAYERS * LENGTH * LENGTH * WIDTH
    assert report.unattributed_flops == attention
    sparse = {**macs, "blocks/up": macs["blocks/up"] / 4}
    sparse["blocks/out"] /= 2
    assert report.sparse_flops == 2 * sum(sparse.values()) + attention


def test_weights_of_equinox_are_outputs_by_inputs():
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.MLP(4, 2, 16, 2, key=jax.random.key(0))
    params, static = eqx.partition(network, eqx.is_array)

    def forward(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    masks = jax.tree.map(lambda x: x > 0 if x.ndim == 2 else None, params)
    report = sj.cost(forward, params, masks, shape(5, 4), examples=5)
    assert [row.dense_macs for row in report.layers] == [64, 256, 32]
    kept = [np.count_nonzero(mask) for mask in jax.tree.leaves(masks)]
    assert [row.sparse_macs for row in report.layers] == kept


def test_paths_of_haiku_have_slashes_of_their_own():
    params = {"net/~/linear": {"w": shape(4, 8), "b": shape(8)}}

    def forward(params, x):
        layer = params["net/~/linear"]
        return jax.nn.relu(x @ layer["w"] + jnp.broadcast_to(layer["b"], (1, 8)))

    report = sj.cost(forward, params, {"net/~/linear/w": 8}, shape(1, 4))
    assert (report.layers[0].path, report.sparse_macs) == ("net/~/linear/w", 8)


def test_the_function_stays_where_the_package_has_its_name():
    script = """
import sparsejax.cost.counting
import sparsejax as sj
from sparsejax.cost import cost, training_cost
assert sj.cost is cost is sparsejax.cost, sj.cost
import sparsejax.cost
import importlib
importlib.import_module("sparsejax.cost.storage")
assert callable(sj.cost) and sj.cost is cost
"""
    subprocess.run([sys.executable, "-c", script], check=True)
