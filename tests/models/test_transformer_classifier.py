"""The encoder's classifier: padding counts for nothing, and all text for something."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax.data.pipeline import train_iterator
from sparsejax.data.python_packages import python_packages
from sparsejax.models.transformer_classifier import transformer_classifier


def make(context=10):
    sizes = {"layers": 1, "width": 16, "heads": 2, "hidden": 24}
    return transformer_classifier((context,), 3, **sizes, rngs=nnx.Rngs(0))


def test_padding_changes_nothing():
    model, tokens = make(), jnp.arange(60, 66)[None]
    padded = jnp.pad(tokens, ((0, 0), (0, 4)), constant_values=256)
    np.testing.assert_allclose(model(padded), model(tokens), atol=1e-6)
    assert np.isfinite(model(jnp.full((1, 10), 256))).all()


def test_every_token_counts_wherever_it_is():
    model, tokens = make(), jnp.arange(60, 70)[None]
    before = model(tokens)
    for place in (0, 5, 9):
        assert abs(model(tokens.at[0, place].set(3)) - before).max() > 1e-4


def test_packages_are_told_by_their_files(data_dir):
    dataset = python_packages(data_dir=data_dir, context=64)
    batch = next(train_iterator(dataset, batch_size=8, seed=0))
    assert batch["tokens"].shape == (8, 64)
    assert batch["label"].max() < dataset.number_of_classes == len(dataset.class_names)
    pieces = [dataset.evaluation[index] for index in range(len(dataset.evaluation))]
    shown = [dataset.evaluation_transform(piece)["tokens"] for piece in pieces]
    size = sum((tokens < 256).sum() for tokens in shown)
    files = {piece["text"]: None for piece in pieces}
    assert size == sum(map(len, files))
    assert jax.tree.leaves(shown)[0].dtype == np.int32
