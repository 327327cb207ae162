"""Transformer classifier: an encoder that reads tokens in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sparsejax.layers import Layout
from sparsejax.models.architecture import Architecture, sized
from sparsejax.models.transformer import Transformer


class TransformerClassifier(nnx.Module):
    """``encoder``, whose features are averaged over the tokens, and ``head``.

    Args:
      shape: of the encoder.
      number_of_classes: width of the logits.
      padding: the token that fills rows, which is not averaged over and not seen.
      scanned: see `sparsejax.models.transformer.Transformer`.
      remat: see there.
      dtype: of the computation; parameters and logits stay float32.
      rngs: the initialisation's random streams.
    """

    def __init__(
        self,
        shape: Architecture,
        number_of_classes: int,
        *,
        padding: int,
        scanned: bool,
        remat: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.padding = padding
        options = {"scanned": scanned, "remat": remat, "dtype": dtype}
        self.encoder = Transformer(shape, **options, rngs=rngs)
        self.head = nnx.Linear(shape.width, number_of_classes, rngs=rngs)

    @property
    def layout(self) -> Layout:
        """Which axes of the kernels are inputs, outputs and stacked layers."""
        return self.encoder.layout

    def __call__(
        self, tokens: Int[Array, "batch length"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits.

        Args:
          tokens: numbers below the vocabulary.
          train: ignored: nothing here behaves differently in training.

        Returns:
          Logits in float32.
        """
        del train
        is_text = tokens != self.padding
        features = self.encoder.features(tokens, segments=is_text.astype(jnp.int32))
        weights = is_text[..., None].astype(jnp.float32)
        total = (features.astype(jnp.float32) * weights).sum(axis=1)
        return self.head(total / jnp.maximum(weights.sum(axis=1), 1))


def transformer_classifier(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    vocabulary: int = 257,
    padding: int = 256,
    size: str = "tiny",
    scanned: bool = True,
    remat: bool = False,
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
    **options: Any,
) -> TransformerClassifier:
    """Builds an encoder with a linear classifier on the mean of its features.

    Args:
      input_shape: ``(context,)``, tokens in a sequence.
      number_of_classes: width of the logits.
      vocabulary: number of tokens; default: the bytes and a boundary.
      padding: the token that fills rows.
      size: as for `sparsejax.models.transformer.transformer`.
      scanned: see there.
      remat: see there.
      dtype: of the computation; parameters and logits stay float32.
      rngs: the initialisation's random streams.
      **options: fields of `sparsejax.models.architecture.Architecture`.

    Returns:
      A module called as ``model(tokens, train)``.

    Raises:
      ValueError: an unknown size, or a value out of range.

    Example:
      >>> model = transformer_classifier((16,), 3, layers=1, width=32, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 16), jnp.int32)).shape
      (2, 3)
    """
    shape = sized(input_shape, vocabulary, size=size, causal=False, **options)
    return TransformerClassifier(
        shape,
        number_of_classes,
        padding=padding,
        scanned=scanned,
        remat=remat,
        dtype=dtype,
        rngs=rngs,
    )
