"""Attention over tokens: rotary positions, grouped queries, masks, a cache to decode.

Su et al., 2021, "RoFormer"; Ainslie et al., 2023, "GQA: training generalized
multi-query transformer models from multi-head checkpoints".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from sparsejax_kernels import cached_attention

__all__ = ["Attention", "Cache", "rotary_frequencies", "rotated", "visible"]


class Cache(NamedTuple):
    """Keys and values of the tokens that were read, for all layers.

    Attributes:
      keys: an array for every layer, ``[batch, key_value_heads, capacity, head_size]``;
        of scanned blocks one array with a leading axis of layers.
      values: likewise.
      length: tokens in it so far; the same for the whole batch.
      padding: how many of the first tokens of each sequence only fill it up, so that
        prompts of several lengths end at the same place; None for none.
    """

    keys: Any
    values: Any
    length: Int[Array, ""]
    padding: Int[Array, " batch"] | None = None

    @property
    def capacity(self) -> int:
        """How many tokens fit."""
        return jax.tree.leaves(self.keys)[0].shape[-2]

    def with_tokens(
        self,
        layer: int | Int[Array, ""],
        key: Float[Array, "batch length heads size"],
        value: Float[Array, "batch length heads size"],
    ) -> Cache:
        """The cache with what a layer made of the tokens at ``length``."""
        listed = isinstance(self.keys, tuple)
        start = (0, 0, self.length, 0) if listed else (layer, 0, 0, self.length, 0)

        def put(held, new):
            new = new.swapaxes(1, 2)
            old = held[layer] if listed else held
            new = (new if listed else new[None]).astype(old.dtype)
            written = jax.lax.dynamic_update_slice(old, new, start)
            return (*held[:layer], written, *held[layer + 1 :]) if listed else written

        return self._replace(keys=put(self.keys, key), values=put(self.values, value))


def rotary_frequencies(
    head_size: int, theta: float, scaling: Mapping[str, float] | None = None
) -> Float[Array, " half"]:
    """Radians a token by which each pair of a head's numbers turns.

    ``f_i = theta**(-2 i / head_size)``. With ``scaling``, as Llama 3.1: frequencies
    whose wave is longer than the original context over ``low_freq_factor`` are divided
    by ``factor``, those shorter than it over ``high_freq_factor`` kept, and those
    between them interpolated.

    Args:
      head_size: numbers in a head, even.
      theta: base of the frequencies.
      scaling: ``factor``, ``low_freq_factor``, ``high_freq_factor`` and
        ``original_max_position_embeddings``, or None.

    Example:
      >>> rotary_frequencies(4, 100.0).tolist()
      [1.0, 0.10000000149011612]
    """
    half = jnp.arange(head_size // 2, dtype=jnp.float32)
    frequencies = theta ** (-2 * half / head_size)
    if scaling is None:
        return frequencies
    factor = scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    turns = context * frequencies / (2 * math.pi)
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / factor)


def rotated(
    heads: Float[Array, "batch length heads size"],
    positions: Int[Array, "batch length"],
    frequencies: Float[Array, " half"],
) -> Float[Array, "batch length heads size"]:
    """Turns the pairs ``(x_i, x_{i + size/2})`` of every head by their positions.

    Args:
      heads: queries or keys.
      positions: of the tokens.
      frequencies: of `rotary_frequencies`.

    Returns:
      As many, in the dtype that they came in.

    Example:
      >>> heads = jnp.array([[[[1.0, 0.0]]]])
      >>> quarter = jnp.array([jnp.pi / 2])
      >>> rotated(heads, jnp.array([[1]]), quarter).round(3).tolist()
      [[[[-0.0, 1.0]]]]
    """
    angles = positions[..., None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(heads.dtype)


def visible(
    length: int,
    *,
    causal: bool,
    segments: Int[Array, "batch length"] | None = None,
    prefix: Bool[Array, "batch length"] | None = None,
) -> Bool[Array, "#batch 1 length length"] | None:
    """Which tokens (last axis) each token (the axis before) may look at.

    Args:
      length: of the sequences.
      causal: only those before it, and itself.
      segments: tokens of different numbers, such as of packed documents, do not see
        each other.
      prefix: tokens that see each other in both directions although the rest is causal.

    Returns:
      The mask; None if all is visible.

    Example:
      >>> visible(2, causal=True)[0, 0].tolist()
      [[True, False], [True, True]]
      >>> visible(2, causal=True, prefix=jnp.array([[True, True]])).all().item()
      True
    """
    seen = None
    if causal:
        seen = jnp.tril(jnp.ones((1, length, length), bool))
        if prefix is not None:
            seen |= prefix[:, :, None] & prefix[:, None, :]
    if segments is not None:
        same = segments[:, :, None] == segments[:, None, :]
        seen = same if seen is None else seen & same
    return None if seen is None else seen[:, None]


class Attention(nnx.Module):
    """Attention with linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
      width: of the tokens.
      heads: of the queries.
      key_value_heads: each is shared by ``heads / key_value_heads`` queries.
      head_size: numbers in a head.
      linear: makes a linear layer: ``linear(inputs, outputs, use_bias=...,
        residual=...)``; ``residual`` says that its outputs are added to the tokens.
      input_bias: whether query, key and value have biases.
      output_bias: whether ``out`` has one.
      frequencies: of the rotary positions; None for none.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        key_value_heads: int,
        head_size: int,
        linear: Callable[..., nnx.Linear],
        input_bias: bool,
        output_bias: bool,
        frequencies: tuple[float, ...] | None,
    ):
        self.head_size = head_size
        self.frequencies = frequencies
        inside, narrow = heads * head_size, key_value_heads * head_size
        self.query = linear(width, inside, use_bias=input_bias)
        self.key = linear(width, narrow, use_bias=input_bias)
        self.value = linear(width, narrow, use_bias=input_bias)
        self.out = linear(inside, width, use_bias=output_bias, residual=True)

    def __call__(
        self,
        tokens: Float[Array, "batch length width"],
        positions: Int[Array, "batch length"],
        mask: Bool[Array, "..."] | None,
        cache: Cache | None = None,
        number: int | Int[Array, ""] = 0,
    ) -> tuple[Float[Array, "batch length width"], Cache | None]:
        """Mixes the tokens; with a cache, also with those that it holds.

        Args:
          tokens: normalised.
          positions: of the tokens.
          mask: which tokens see which, ``[batch, 1, length, length or capacity]``.
          cache: of all layers; its length is where these tokens belong.
          number: this layer's place in the cache.

        Returns:
          What to add to the tokens, and the cache with these in it.
        """
        query, key, value = (
            layer(tokens).reshape(*tokens.shape[:2], -1, self.head_size)
            for layer in (self.query, self.key, self.value)
        )
        if self.frequencies is not None:
            frequencies = jnp.array(self.frequencies, jnp.float32)
            query = rotated(query, positions, frequencies)
            key = rotated(key, positions, frequencies)
        if cache is not None:
            cache = cache.with_tokens(number, key, value)
            keys, values = cache.keys[number], cache.values[number]
            if query.shape[1] == 1:
                mixed = cached_attention(
                    query, keys, values, cache.length, padding=cache.padding
                )
                return self.out(mixed.reshape(*tokens.shape[:2], -1)), cache
            key, value = (x.swapaxes(1, 2).astype(query.dtype) for x in (keys, values))
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return self.out(mixed.reshape(*tokens.shape[:2], -1)), cache
