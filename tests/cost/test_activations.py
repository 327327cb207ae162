"""Bytes of activations against hand counts."""

import jax
import jax.numpy as jnp
import pytest

from sparsejax.cost.activations import activation_bytes

BATCH, WIDTH = 3, 5
MATRIX = jax.ShapeDtypeStruct((WIDTH, WIDTH), "float32")
DATA = jax.ShapeDtypeStruct((BATCH, WIDTH), "float32")
ROW = WIDTH * 4


def counted(function, *shapes, parameters=1, examples=BATCH):
    program = jax.make_jaxpr(function)(*shapes)
    return tuple(activation_bytes(program, parameters, examples))


def test_one_product_writes_its_result():
    assert counted(lambda w, x: x @ w, MATRIX, DATA) == (ROW, ROW)


def test_what_is_elementwise_is_fused():
    def forward(w, x):
        return jnp.tanh(2 * jax.nn.relu(x @ w) + 1).reshape(-1)

    # The product, and in its place what was made of it.
    assert counted(forward, MATRIX, DATA) == (ROW, 2 * ROW)


def test_the_same_function_called_twice_counts_twice():
    layer = jax.jit(lambda w, x: jax.nn.relu(x @ w))

    def forward(w, x):
        return layer(w, layer(w, x))

    assert counted(forward, MATRIX, DATA) == (2 * ROW, 4 * ROW)


def test_a_residual_stays_until_it_is_added():
    def block(w, x):
        return x + jax.nn.relu(x @ w) @ w

    def forward(w, x):
        return block(w, block(w, x))

    # In the second block: what it adds to, the hidden layer and its product. Kept: two
    # products, the hidden layer and the sum, of each block.
    assert counted(forward, MATRIX, DATA) == (3 * ROW, 8 * ROW)


def test_lower_precision_halves_the_bytes():
    def forward(w, x):
        w, x = w.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
        return jax.nn.relu(x @ w) @ w

    full = counted(lambda w, x: jax.nn.relu(x @ w) @ w, MATRIX, DATA)
    half = counted(forward, MATRIX, DATA)
    # The images in bfloat16 are a copy, too.
    assert half == (full[0] / 2, full[1] / 2 + ROW / 2)


def test_weights_and_their_masks_are_no_activations():
    mask = jax.ShapeDtypeStruct(MATRIX.shape, "bool")

    def forward(w, mask, x):
        return x @ jnp.where(mask, w / jnp.linalg.norm(w), 0)

    assert counted(forward, MATRIX, mask, DATA) == (ROW, ROW)


@pytest.mark.parametrize("length", [1, 7])
def test_a_scan_keeps_every_iteration_but_holds_one(length):
    def forward(w, x):
        def layer(hidden, _):
            return jax.nn.relu(hidden @ w), None

        return jax.lax.scan(layer, x, length=length)[0]

    # The carried value and its product.
    assert counted(forward, MATRIX, DATA) == (2 * ROW, length * 2 * ROW)


def test_of_a_cond_the_costliest_branch_counts():
    flag = jax.ShapeDtypeStruct((), "bool")

    def forward(w, flag, x):
        return jax.lax.cond(flag, lambda x: x @ w @ w @ w, lambda x: x @ w, x)

    assert counted(forward, MATRIX, flag, DATA) == (2 * ROW, 3 * ROW)


def test_attention_holds_its_scores():
    def attend(w, x):
        q, k, v = x @ w, x @ w, x @ w
        return jax.nn.softmax(q @ k.T) @ v

    long = 40
    x = jax.ShapeDtypeStruct((long, WIDTH), "float32")
    peak, kept = counted(attend, MATRIX, x, examples=1)
    scores, row = long * long * 4, long * WIDTH * 4
    # While scores are computed: they, queries, keys and values.
    assert peak == scores + 3 * row
    # Scores and probabilities, two statistics of each row, q, k, v and the result.
    assert kept == 2 * scores + 2 * long * 4 + 4 * row
