"""Tokens from a transformer, one after the other: as a stream, or all at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from sparsejax.models.attention import Cache
from sparsejax.models.transformer import Transformer

__all__ = ["chosen", "generate", "stream"]

Prompts = Sequence[Sequence[int]] | Int[np.ndarray, "batch length"]
BLOCK = 256
"""Caches have room for a multiple of so many tokens."""


def chosen(
    logits: Float[Array, "batch vocabulary"],
    keys: Key[Array, " batch"] | None = None,
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Int[Array, " batch"]:
    """The next token of every sequence: the likeliest one, or one that is drawn.

    Logits are divided by the temperature first; of what is left, ``top_k`` keeps the
    likeliest tokens, and of these ``top_p`` the fewest whose probability together is at
    least so large (Holtzman et al., 2020, "The curious case of neural text
    degeneration").

    Args:
      logits: of the network.
      keys: a random key for every sequence; None takes the likeliest token.
      temperature: above 0; 1 draws by the network's own probabilities.
      top_k: tokens to draw from; None for all.
      top_p: probability to draw from, in (0, 1]; None for all.

    Returns:
      Tokens, int32.

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.2]]))
      >>> chosen(logits).tolist()
      [0]
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> chosen(logits, keys, temperature=0.7, top_k=1).tolist()
      [0]
    """
    if keys is None:
        return logits.argmax(axis=-1).astype(jnp.int32)
    draw = jax.vmap(jax.random.categorical)
    scaled = logits.astype(jnp.float32) / temperature
    if top_k is None and top_p is None:
        return draw(keys, scaled).astype(jnp.int32)
    most = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    scaled, tokens = jax.lax.top_k(scaled, most)
    if top_p is not None:
        shares = jax.nn.softmax(scaled, axis=-1)
        before = jnp.cumsum(shares, axis=-1) - shares
        # The likeliest token stays, however small the share that is asked for.
        kept = (before < top_p) | (jnp.arange(most) == 0)
        scaled = jnp.where(kept, scaled, -jnp.inf)
    place = draw(keys, scaled)[:, None]
    return jnp.take_along_axis(tokens, place, axis=-1)[:, 0].astype(jnp.int32)


def stream(
    model: Transformer,
    prompts: Prompts,
    *,
    tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: Key[Array, ""] | None = None,
    stop: int | None = None,
    chunk: int = 1,
    window: int | None = None,
) -> Iterator[Int[np.ndarray, "batch new"]]:
    """Continues prompts, and yields the new tokens while the next are being computed.

    Reading, choosing and writing to the cache, which is donated, are one compiled
    program a chunk. What a prompt is continued with depends on its place in the batch
    and on the key, not on ``chunk`` or on how many tokens are asked for, and, until the
    longest one has grown to the window, not on the other prompts. The arguments are
    checked at once; nothing is computed before the first chunk is asked for.

    On CPU blocks in a list (``model.unscanned()``) decode about twice as fast as
    scanned ones, whose weights a step copies out of the stack; `compressed` makes them
    faster still.

    Args:
      model: any `Transformer` whose tokens see only those before them; its blocks may
        be scanned, listed or compressed.
      prompts: tokens of each sequence, at least one of each. Shorter ones are filled up
        at their beginning by tokens that are overlooked.
      tokens: how many to add to each.
      temperature: 0 takes the likeliest token each time; see `chosen`.
      top_k: see `chosen`.
      top_p: see `chosen`.
      key: random key, needed unless the temperature is 0.
      stop: a token that ends its sequence, such as the boundary between documents; the
        sequence is filled up with it until all have ended.
      chunk: tokens of each sequence in what is yielded; larger ones come faster, but
        later.
      window: the most tokens that the model looks at; default its context. Of longer
        prompts the last ones are read. When the longest sequence has grown to it, the
        model reads the last half of it, and as much of the others, and goes on.

    Yields:
      New tokens of all sequences, at most ``chunk`` each; the first one alone.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> from sparsejax.models.transformer import transformer
      >>> model = transformer((16,), 257, layers=1, width=32, rngs=nnx.Rngs(0))
      >>> parts = list(stream(model, [[1, 2, 3], [4]], tokens=5, chunk=2))
      >>> [part.shape for part in parts]
      [(2, 1), (2, 2), (2, 2)]
    """
    window = model.shape.context if window is None else window
    rows = _checked_prompts(model, prompts)
    _check(model, tokens, temperature, top_k, top_p, key, stop, chunk, window)
    settings = _Settings(temperature > 0, top_k, top_p is not None, stop)
    numbers = {"temperature": np.float32(temperature), "top_p": np.float32(top_p or 1)}
    return _streamed(model, rows, tokens, settings, numbers, key, chunk, window)


def generate(
    model: Transformer,
    prompts: Prompts,
    *,
    tokens: int,
    chunk: int = 32,
    **options: Any,
) -> Int[np.ndarray, "batch tokens"]:
    """Continues prompts; arguments as of `stream`.

    Args:
      model: see `stream`.
      prompts: see `stream`.
      tokens: how many to add to each.
      chunk: tokens in one call of the compiled program.
      **options: see `stream`.

    Returns:
      The new tokens; fewer than asked for if all sequences have ended before.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> from sparsejax.models.transformer import transformer
      >>> model = transformer((16,), 257, layers=1, width=32, rngs=nnx.Rngs(0))
      >>> generate(model, [[1, 2, 3]], tokens=20).shape
      (1, 20)
    """
    parts = stream(model, prompts, tokens=tokens, chunk=chunk, **options)
    return np.concatenate(list(parts), axis=1)


class _Settings(NamedTuple):
    """What a compiled program is made for."""

    drawn: bool
    top_k: int | None
    with_top_p: bool
    stop: int | None


class _State(NamedTuple):
    """Between two programs: what was read, and what was chosen but not read yet."""

    cache: Cache
    last: Int[Array, " batch"]
    ended: Bool[Array, " batch"]
    made: Int[Array, ""]


def _streamed(model, rows, tokens, settings, numbers, key, chunk, window):
    graph, variables = nnx.split(model)
    leaves, treedef = jax.tree.flatten(variables)
    read, advance = _programs(graph, treedef, settings)
    random = jax.random.key(0) if key is None else key
    longest, half = min(max(map(len, rows)), window), max(window // 2, 1)
    needed = _rounded(longest) + min(tokens + chunk, window - longest)
    if tokens > window - longest:
        needed = max(needed, _rounded(half) + window - half)
    capacity = -(-needed // BLOCK) * BLOCK
    ended = np.zeros(len(rows), bool)
    state, waiting, kept = None, None, window
    made = under_way = room = 0

    def take(drawn):
        """Notes what was drawn; the part of it that was asked for."""
        nonlocal rows, made, ended
        new = np.asarray(drawn)[:, : tokens - made]
        if settings.stop is not None:
            ends = np.logical_or.accumulate(new == settings.stop, axis=1)
            over = (ends | ended[:, None]).all(axis=0)
            new = new[:, : int(over.argmax()) + 1] if over.any() else new
            ended = ended | ends[:, : new.shape[1]].any(axis=1)
        made += new.shape[1]
        rows = [[*row, *more] for row, more in zip(rows, new.tolist(), strict=True)]
        return new

    while True:
        goes_on = room > 0 and under_way < tokens
        if waiting is not None and not goes_on:
            yield take(waiting)
            waiting = None
            if made >= tokens or ended.all():
                return
        if goes_on:
            count = chunk if chunk <= room else 1
            state, drawn = advance(leaves, state, random, numbers, chunk=count)
            room -= count
        else:
            rows, kept = [row[-kept:] for row in rows], half
            prompts, padding = _filled_up(rows)
            now = np.int32(made)
            state, drawn = read(
                leaves, prompts, padding, random, numbers, now, ended, capacity=capacity
            )
            count, room = 1, window - max(map(len, rows))
        under_way += count
        # The next tokens are on their way while somebody looks at these.
        if waiting is not None:
            yield take(waiting)
            if ended.all():
                return
        waiting = drawn


@functools.lru_cache(maxsize=8)
def _programs(
    graph: Any, treedef: Any, settings: _Settings
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What reads prompts into a new cache, and what adds tokens to them, compiled."""

    def choose(logits, random, numbers, made, ended):
        keys = None
        if settings.drawn:
            now = jax.random.fold_in(random, made)
            keys = jax.vmap(lambda row: jax.random.fold_in(now, row))(
                jnp.arange(len(logits))
            )
        token = chosen(
            logits,
            keys,
            temperature=numbers["temperature"],
            top_k=settings.top_k,
            top_p=numbers["top_p"] if settings.with_top_p else None,
        )
        if settings.stop is not None:
            token = jnp.where(ended, settings.stop, token)
            ended |= token == settings.stop
        return token, ended

    def model_of(leaves):
        return nnx.merge(graph, jax.tree.unflatten(treedef, leaves))

    @functools.partial(jax.jit, static_argnames="capacity")
    def read(leaves, prompts, padding, random, numbers, made, ended, *, capacity):
        model = model_of(leaves)
        cache = model.empty_cache(len(prompts), capacity, padding=padding)
        logits, cache = model.decode(prompts, cache, only_last=True)
        token, ended = choose(logits[:, -1], random, numbers, made, ended)
        return _State(cache, token, ended, made + 1), token[:, None]

    @functools.partial(jax.jit, static_argnames="chunk", donate_argnums=1)
    def advance(leaves, state, random, numbers, *, chunk):
        model = model_of(leaves)

        def one(state, _):
            logits, cache = model.decode(state.last[:, None], state.cache)
            token, ended = choose(
                logits[:, -1], random, numbers, state.made, state.ended
            )
            return _State(cache, token, ended, state.made + 1), token

        if chunk == 1:
            state, token = one(state, None)
            return state, token[:, None]
        state, drawn = jax.lax.scan(one, state, length=chunk)
        return state, drawn.T

    return read, advance


def _rounded(length: int) -> int:
    """The next power of two, so that a few programs read prompts of all lengths."""
    return max(8, 1 << (length - 1).bit_length())


def _filled_up(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[np.ndarray, "batch length"], Int[np.ndarray, " batch"]]:
    """Sequences that end at the same place, and how much of each is not its own."""
    length = _rounded(max(map(len, rows)))
    padding = np.array([length - len(row) for row in rows], np.int32)
    filled = [[0] * (length - len(row)) + list(row) for row in rows]
    return np.array(filled, np.int32), padding


def _checked_prompts(model: Transformer, prompts: Prompts) -> list[list[int]]:
    rows = [[int(token) for token in row] for row in prompts]
    if not rows or not all(rows):
        raise ValueError(
            f"prompts has {len(rows)} sequences, the shortest of "
            f"{min(map(len, rows), default=0)} tokens: give one sequence or more, each "
            "of a token or more, such as the one between documents"
        )
    for row in rows:
        for token in row:
            if not 0 <= token < model.shape.vocabulary:
                raise ValueError(
                    f"prompts has the token {token}; the model's are 0 to "
                    f"{model.shape.vocabulary - 1}"
                )
    return rows


def _check(model, tokens, temperature, top_k, top_p, key, stop, chunk, window):
    shape = model.shape
    if not shape.causal:
        raise ValueError(
            "the model's architecture has causal = False: its tokens see those behind "
            "them, so it cannot add any; use a causal one"
        )
    for name, value in (("tokens", tokens), ("chunk", chunk), ("top_k", top_k)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it is an integer >= 1")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it is 0 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it is above 0 and at most 1")
    if temperature > 0 and key is None:
        raise ValueError(
            f"temperature is {temperature} and there is no key; give one, such as "
            "jax.random.key(0), or temperature=0 for the likeliest tokens"
        )
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise ValueError(
            f"temperature is 0, which takes the likeliest token, but top_k is {top_k} "
            f"and top_p {top_p}; give a temperature, or neither of them"
        )
    if stop is not None and not 0 <= stop < shape.vocabulary:
        raise ValueError(
            f"stop is {stop}; it is a token of the model, 0 to {shape.vocabulary - 1}"
        )
    if window < 2:
        raise ValueError(f"window is {window}; it is at least 2 tokens")
    if shape.positions == "learned" and window > shape.context:
        raise ValueError(
            f"window is {window}, but the model has learned positions for "
            f"{shape.context} tokens; use at most as many"
        )
