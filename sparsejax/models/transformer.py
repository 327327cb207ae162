"""Transformer: a decoder of tokens as Llama's, or with its options as GPT-2's.

Vaswani et al., 2017, "Attention is all you need"; Touvron et al., 2023, "LLaMA: open
and efficient foundation language models".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sparsejax.layers import Layout, flax
from sparsejax.models.architecture import ACTIVATIONS, Architecture, sized
from sparsejax.models.attention import (
    Attention,
    Cache,
    rotary_frequencies,
    visible,
)
from sparsejax.models.stacking import stacked, unstacked

__all__ = ["Transformer", "transformer"]


class MLP(nnx.Module):
    """``down(act(gate(x)) * up(x))``, or without a gate ``down(act(up(x)))``."""

    def __init__(self, shape: Architecture, linear: Callable[..., nnx.Linear]):
        self.activation = shape.activation
        if shape.gated:
            self.gate = linear(shape.width, shape.hidden, use_bias=shape.bias)
        else:
            self.gate = None
        self.up = linear(shape.width, shape.hidden, use_bias=shape.bias)
        self.down = linear(
            shape.hidden, shape.width, use_bias=shape.bias, residual=True
        )

    def __call__(
        self, tokens: Float[Array, "*batch width"]
    ) -> Float[Array, "*batch width"]:
        """Computes what to add to the tokens."""
        activation = ACTIVATIONS[self.activation]
        if self.gate is None:
            return self.down(activation(self.up(tokens)))
        return self.down(activation(self.gate(tokens)) * self.up(tokens))


class Block(nnx.Module):
    """Attention and an MLP, each behind a normalisation and beside a residual path."""

    def __init__(self, shape: Architecture, *, dtype: DTypeLike, rngs: nnx.Rngs):
        def linear(inputs, outputs, *, use_bias, residual=False):
            # What all layers add to the residual path has the variance of one of them.
            scale = 1 / (2 * shape.layers) if residual else 1.0
            return nnx.Linear(
                inputs,
                outputs,
                use_bias=use_bias,
                kernel_init=nnx.initializers.variance_scaling(
                    scale, "fan_in", "normal"
                ),
                dtype=dtype,
                rngs=rngs,
            )

        frequencies = None
        if shape.positions == "rotary":
            scaling = shape.rotary_scaling
            with jax.ensure_compile_time_eval():
                found = rotary_frequencies(
                    shape.head_size,
                    shape.rotary_theta,
                    None if scaling is None else dict(scaling),
                )
                frequencies = tuple(found.tolist())
        self.attention_norm = normalisation(shape, rngs)
        self.attention = Attention(
            shape.width,
            heads=shape.heads,
            key_value_heads=shape.key_value_heads,
            head_size=shape.head_size,
            linear=linear,
            input_bias=shape.input_bias,
            output_bias=shape.bias,
            frequencies=frequencies,
        )
        self.mlp_norm = normalisation(shape, rngs)
        self.mlp = MLP(shape, linear)

    def __call__(
        self,
        tokens: Float[Array, "batch length width"],
        positions: Int[Array, "batch length"],
        mask: Bool[Array, "..."] | None,
        cache: Cache | None,
        layer: int | Int[Array, ""],
    ) -> tuple[Float[Array, "batch length width"], Cache | None]:
        """Applies the block; arguments as of `sparsejax.models.attention.Attention`."""
        dtype = tokens.dtype
        normed = self.attention_norm(tokens).astype(dtype)
        mixed, cache = self.attention(normed, positions, mask, cache, layer)
        tokens += mixed
        tokens += self.mlp(self.mlp_norm(tokens).astype(dtype))
        return tokens, cache


def normalisation(shape: Architecture, rngs: nnx.Rngs) -> nnx.RMSNorm | nnx.LayerNorm:
    """A normalisation of tokens, computed in float32."""
    kind = nnx.RMSNorm if shape.normalisation == "rms" else nnx.LayerNorm
    return kind(shape.width, epsilon=shape.epsilon, dtype=jnp.float32, rngs=rngs)


class Transformer(nnx.Module):
    """``embed``, ``blocks``, ``final_norm`` and ``head``, over sequences of tokens.

    Scanned blocks are one `Block` whose arrays have a leading axis of layers,
    ``blocks/mlp/up/kernel``; others are a list, ``blocks/3/mlp/up/kernel``. Both
    compute the same of the same numbers, and begin with the same.

    Args:
      shape: what it consists of.
      scanned: whether the blocks are stacked, and compiled once for all of them.
      remat: whether the backward pass computes each block again, to save memory.
      dtype: of the computation; parameters and logits stay float32.
      rngs: the initialisation's random streams.
    """

    def __init__(
        self,
        shape: Architecture,
        *,
        scanned: bool = True,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.shape, self.scanned, self.remat = shape, scanned, remat
        self.dtype = jnp.dtype(dtype)
        small = nnx.initializers.normal(0.02)
        sizes = (shape.vocabulary, shape.width)
        self.embed = nnx.Embed(*sizes, embedding_init=small, rngs=rngs)
        if shape.positions == "learned":
            sizes = (shape.context, shape.width)
            self.position_embed = nnx.Embed(*sizes, embedding_init=small, rngs=rngs)

        def make_block(key: Key[Array, ""]) -> Block:
            return Block(shape, dtype=self.dtype, rngs=nnx.Rngs(key))

        keys = jax.random.split(rngs.params(), shape.layers)
        if scanned:
            self.blocks = nnx.vmap(make_block)(keys)
        else:
            self.blocks = nnx.List([make_block(key) for key in keys])
        self.final_norm = normalisation(shape, rngs)
        if not shape.tied:
            self.head = nnx.Linear(
                shape.width,
                shape.vocabulary,
                use_bias=False,
                kernel_init=nnx.initializers.normal(0.02),
                dtype=self.dtype,
                rngs=rngs,
            )

    @property
    def layout(self) -> Layout:
        """Which axes of the kernels are inputs, outputs and stacked layers."""
        return flax(stacked={r"(^|/)blocks/(?!\d)": 1})

    def __call__(
        self,
        tokens: Int[Array, "batch length"],
        train: bool = False,
        *,
        segments: Int[Array, "batch length"] | None = None,
        positions: Int[Array, "batch length"] | None = None,
        prefix: Bool[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length vocabulary"]:
        """Computes the logits of the token that follows each token.

        Args:
          tokens: numbers below the vocabulary.
          train: ignored: nothing here behaves differently in training.
          segments: documents that the tokens are of; they do not see each other.
          positions: of the tokens in their documents; default: in the sequence.
          prefix: tokens that see each other in both directions.

        Returns:
          Logits in float32.
        """
        del train
        features = self.features(
            tokens, segments=segments, positions=positions, prefix=prefix
        )
        return self.logits(features)

    def features(
        self,
        tokens: Int[Array, "batch length"],
        *,
        segments: Int[Array, "batch length"] | None = None,
        positions: Int[Array, "batch length"] | None = None,
        prefix: Bool[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length width"]:
        """What the blocks make of the tokens, normalised; arguments as of a call."""
        length = tokens.shape[1]
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        mask = visible(
            length, causal=self.shape.causal, segments=segments, prefix=prefix
        )
        hidden = self._embedded(tokens, positions)
        return self._blocks(hidden, positions, mask, None)[0]

    def logits(
        self, features: Float[Array, "*batch width"]
    ) -> Float[Array, "*batch vocabulary"]:
        """The head: logits in float32 of normalised features."""
        if self.shape.tied:
            embedding = self.embed.embedding.get_value().astype(self.dtype)
            found = features @ embedding.T
        else:
            found = self.head(features)
        return found.astype(jnp.float32)

    def empty_cache(
        self,
        batch: int,
        capacity: int,
        dtype: DTypeLike | None = None,
        *,
        padding: Int[Array, " batch"] | None = None,
    ) -> Cache:
        """A cache for decoding.

        Args:
          batch: sequences that are decoded side by side.
          capacity: the most tokens of a sequence, the prompt's and padding among them;
            multiples of 256 are read fastest.
          dtype: of keys and values; default that of the computation.
          padding: how many of each sequence's first tokens are to be overlooked, so
            that prompts of several lengths can end at the same place; default none.
        """
        shape = self.shape
        sizes = (batch, shape.key_value_heads, capacity, shape.head_size)

        def empty():
            if self.scanned:
                return jnp.zeros((shape.layers, *sizes), dtype or self.dtype)
            one = jnp.zeros(sizes, dtype or self.dtype)
            return tuple(one.copy() for _ in range(shape.layers))

        return Cache(empty(), empty(), jnp.zeros((), jnp.int32), padding)

    def decode(
        self,
        tokens: Int[Array, "batch length"],
        cache: Cache,
        *,
        prefix: bool = False,
        only_last: bool = False,
    ) -> tuple[Float[Array, "batch predicted vocabulary"], Cache]:
        """Reads more tokens: a prompt at once, or the one that was chosen last.

        Args:
          tokens: those that follow the tokens in the cache.
          cache: of `empty_cache`, or of the last call; nothing checks that the tokens
            still fit.
          prefix: whether these tokens see each other in both directions.
          only_last: whether only the logits behind the last token are asked for.

        Returns:
          The logits of the token that follows each token, and the next cache.
        """
        length = tokens.shape[1]
        places = cache.length + jnp.arange(length)
        positions = jnp.broadcast_to(places, tokens.shape)
        last = jnp.broadcast_to(places[-1:] if prefix else places, (length,))
        held = jnp.arange(cache.capacity)
        mask = (held <= last[:, None])[None, None]
        if cache.padding is not None:
            positions = jnp.maximum(positions - cache.padding[:, None], 0)
            mask &= (held >= cache.padding[:, None])[:, None, None]
        hidden = self._embedded(tokens, positions)
        features, cache = self._blocks(hidden, positions, mask, cache)
        features = features[:, -1:] if only_last else features
        return self.logits(features), cache._replace(length=cache.length + length)

    def unscanned(self) -> Transformer:
        """The same network with its blocks in a list, such as to compress them."""
        return self._rebuilt(scanned=False)

    def rescanned(self) -> Transformer:
        """The same network with its blocks stacked."""
        return self._rebuilt(scanned=True)

    def _rebuilt(self, scanned: bool) -> Transformer:
        if scanned == self.scanned:
            return nnx.clone(self)
        made = nnx.eval_shape(
            lambda: Transformer(
                self.shape,
                scanned=scanned,
                remat=self.remat,
                dtype=self.dtype,
                rngs=nnx.Rngs(0),
            )
        )
        convert = stacked if scanned else unstacked
        state = convert(nnx.to_pure_dict(nnx.state(self)))
        return nnx.merge(nnx.graphdef(made), state)

    def _embedded(self, tokens: Array, positions: Array) -> Array:
        hidden = self.embed(tokens)
        if self.shape.positions == "learned":
            hidden += self.position_embed(positions)
        return hidden.astype(self.dtype)

    def _blocks(
        self, hidden: Array, positions: Array, mask: Array | None, cache: Cache | None
    ) -> tuple[Array, Any]:
        def run(block, hidden, cache, layer):
            return block(hidden, positions, mask, cache, layer)

        if not self.scanned:
            apply = nnx.remat(run) if self.remat else run
            blocks: Any = self.blocks
            for layer, block in enumerate(blocks):
                hidden, cache = apply(block, hidden, cache, layer)
        else:
            graph, arrays = nnx.split(self.blocks)

            def one(carry: PyTree, slices: PyTree) -> tuple[PyTree, None]:
                block, layer = slices
                hidden, cache = carry
                return run(nnx.merge(graph, block), hidden, cache, layer), None

            body = jax.checkpoint(one, prevent_cse=False) if self.remat else one
            layers = jnp.arange(self.shape.layers)
            (hidden, cache), _ = jax.lax.scan(body, (hidden, cache), (arrays, layers))
        return self.final_norm(hidden).astype(self.dtype), cache


def transformer(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    size: str = "tiny",
    scanned: bool = True,
    remat: bool = False,
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
    **options: Any,
) -> Transformer:
    """Builds a decoder: pre-norm, rotary positions, grouped queries, gated MLPs.

    Matrices of attention and MLPs are what is sparsified by default; embeddings and
    norms are named so that they stay dense. A head of its own (``tied=False``) is
    ``head/kernel``.

    Args:
      input_shape: ``(context,)``, tokens in a sequence.
      number_of_classes: tokens in the vocabulary.
      size: ``"tiny"`` (4 layers of 128), ``"small"`` (12 of 768) or ``"1b"`` (16 of
        2048).
      scanned: see `Transformer`.
      remat: see `Transformer`.
      dtype: of the computation; parameters and logits stay float32.
      rngs: the initialisation's random streams.
      **options: numbers to replace and other fields of
        `sparsejax.models.architecture.Architecture`: ``layers=2, tied=False``.

    Returns:
      A module called as ``model(tokens, train)``.

    Raises:
      ValueError: an unknown size, or a value out of range.

    Example:
      >>> model = transformer((16,), 257, layers=2, width=32, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((1, 16), jnp.int32)).shape
      (1, 16, 257)
    """
    shape = sized(input_shape, number_of_classes, size=size, **options)
    return Transformer(shape, scanned=scanned, remat=remat, dtype=dtype, rngs=rngs)
