"""CHT: weights grow where the topology itself predicts links, without a gradient."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from sparsejax.card import Card
from sparsejax.checks import check_choice, check_fraction
from sparsejax.layers import Layer
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method_without
from sparsejax.rules import Leaf, keep_largest, leaves_of
from sparsejax.schedules import Schedule, as_schedule, periodic
from sparsejax.structures.base import active_count, from_rows, to_rows

__all__ = ["cht"]

CARD = Card(
    paper="Zhang et al., 2024",
    budget="fixed",
    choose="about 1 % of the weights are left and dense gradients are to be avoided; "
    "a move costs products of matrices as large as a layer",
    structures="unstructured",
)


@method_without("structure")
def cht(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float = 0.3,
    score: Literal["ch2", "ch3"] = "ch3",
    removal: Literal["magnitude", "sampled"] = "magnitude",
    growth: Literal["top", "sampled"] = "top",
    importance: Literal["magnitude", "relative"] = "magnitude",
    exponents: tuple[float, float] = (1.0, 3.0),
    chain: Sequence[str] = (),
    early_stop: float | None = 0.9,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Moves small weights to where the topology predicts links: CHT, and soft CHTs.

    A layer is a bipartite network with links ``M`` between neurons and inputs. Two
    neurons ``u, z`` that share ``P = (M M')_uz > 0`` inputs are similar by
    ``b = 1 / (e + 1)`` (CH3) or ``(P + 1) / (e + 1)`` (CH2), where ``z`` has
    ``e = max(deg z - P - 1, 0)`` links to other inputs; likewise two inputs. A free
    position ``u, v`` scores the sum of these over the neurons that have input ``v`` and
    over the inputs that neuron ``u`` has: paths of length 3, weighted by how few links
    leave the community. Every ``every`` steps, in each layer with ``n`` weights,
    ``floor(f n)`` are removed, and as many as are missing grow, at zero, at the highest
    scores. Positions without any path come last, in random order.

    CHT removes the smallest magnitudes and grows the highest scores. CHTs
    (``removal="sampled"``, ``growth="sampled"``) keeps weights at random, without
    replacement, with probabilities in proportion to ``|w|**tau``, and grows in
    proportion to the scores.

    A convolution's filter is a neuron whose inputs are channels at each position. A
    move multiplies matrices of ``fan_in x fan_in`` and ``fan_out x fan_out`` entries in
    float32.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next; the authors move once an epoch.
      start: first move; default ``every``.
      drop_fraction: share of active weights removed, a number or a schedule over
        ``step / stop``; CHTs anneals it by ``cosine(0.3)``.
      score: similarity that predicts links.
      removal: "magnitude" or "sampled".
      growth: "top" or "sampled".
      importance: of a weight for its removal, ``|w|``, or "relative" to those that it
        shares a neuron or an input with, ``|w| / sum_neuron + |w| / sum_input``.
      exponents: ``tau`` at step 0 and at ``stop``, linear between.
      chain: paths of layers of which each reads the one before, from input to output,
        as `sparsejax.counts` names them. Removal then takes along what has become
        useless: links into neurons that nothing reads, links from neurons that read
        nothing. Nothing else goes along by default.
      early_stop: a layer whose move would put back more than this share of what it
        removes is left as it is; None always moves.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without
        weights. At the first ``update``: a ``chain`` of layers that do not fit.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.cht(optax.sgd(0.1), sparsity=0.5, start=0, stop=10)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> updates, state = jax.jit(tx.update)(params, state, params)
      >>> int(jnp.count_nonzero(sj.masks(state)["kernel"]))
      32

    References:
      Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape
      intelligence brain-inspired theory for ultra-sparse advantage in deep learning",
      ICLR 2024; Zhang et al., "Brain network science modelling of sparse neural
      networks enables transformers and LLMs to perform as fully connected", 2025
      (CHTs). Node-based scores ("L3n"), not the path-based ones of the first
      paper. Deviations: initial masks are random, not correlated to the data; removed
      weights that grow again keep their value; early stopping is decided at each move,
      not once and for all.
    """
    check_choice("score", score, ("ch2", "ch3"))
    check_choice("removal", removal, ("magnitude", "sampled"))
    check_choice("growth", growth, ("top", "sampled"))
    check_choice("importance", importance, ("magnitude", "relative"))
    if early_stop is not None:
        check_fraction("early_stop", early_stop)
    fraction = as_schedule("drop_fraction", drop_fraction)
    rate = _absolute if importance == "magnitude" else _relative

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        progress = move.when.progress(move.step)
        leaves, structure = leaves_of(move), move.structure
        tau = exponents[0] + (exponents[1] - exponents[0]) * progress

        def worth(leaf: Leaf) -> Array:
            sizes = rate(leaf)
            return (
                _sampled(leaf, tau * _log(sizes), 0) if removal == "sampled" else sizes
            )

        kept = keep_largest(worth)(structure, leaves, fraction(progress))
        kept = without_dead_ends(move.layers, kept, chain)
        predicted = [
            _growth_order(leaf, link_scores(leaf.layer, mask, score), growth)
            for leaf, mask in zip(leaves, kept, strict=True)
        ]
        counts = structure.measure(move.layers, move.masks)
        masks = structure.select(move.layers, predicted, counts, None, kept)
        if early_stop is None:
            return masks
        rows = zip(move.layers, move.masks, kept, masks, strict=True)
        return [_settled(*row, early_stop) for row in rows]

    return masked(
        inner,
        rule=rule,
        when=periodic(every, start=start, stop=stop),
        on_move="hold",
        sparsity=sparsity,
        **options,
    )


def link_scores(
    layer: Layer, mask: Bool[Array, "..."], score: str = "ch3"
) -> Float[Array, "..."]:
    """CH2 or CH3 (L3n) of every free position of a leaf; 0 where there is a link.

    Example:
      >>> from sparsejax.layers import LeafSpec
      >>> mask = jnp.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)
      >>> layer = Layer("kernel", (3, 3), LeafSpec((0,), (1,)))
      >>> link_scores(layer, mask, "ch2").tolist()
      [[0.0, 0.0, 4.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]
    """
    links = to_rows(layer, mask).astype(jnp.float32)
    columns = jnp.swapaxes(links, -1, -2)
    through_neurons = _product(_similarity(links, score), links)
    through_inputs = _product(_similarity(columns, score), columns)
    scores = through_neurons + jnp.swapaxes(through_inputs, -1, -2)
    return from_rows(layer, jnp.where(links > 0, jnp.zeros_like(scores), scores))


def without_dead_ends(
    layers: Sequence[Layer], masks: Sequence[Bool[Array, "..."]], chain: Sequence[str]
) -> list[Bool[Array, "..."]]:
    """Removes links into neurons that nothing reads, then from those without inputs.

    Args:
      layers: the sparsified leaves.
      masks: their links.
      chain: paths of consecutive layers, from input to output.

    Returns:
      The masks; those of layers outside the chain as they were.

    Raises:
      ValueError: a path is unknown or twice there, or two layers do not fit.
    """
    by_path = {layer.path: i for i, layer in enumerate(layers)}
    unknown = [path for path in chain if path not in by_path]
    if unknown or len(set(chain)) < len(chain):
        raise ValueError(
            f"chain={tuple(chain)} must name sparsified layers, each once; they are: "
            f"{', '.join(by_path)}"
        )
    indices = [by_path[path] for path in chain]
    rows = {i: to_rows(layers[i], masks[i]) for i in indices}
    pairs = list(itertools.pairwise(indices))
    for source, reader in pairs:
        _check_consecutive(layers[source], layers[reader])
    for source, reader in reversed(pairs):
        neurons = layers[source].fan_out
        is_read = _by_neuron(rows[reader], neurons).any((0, 1))
        rows[source] &= is_read[:, None]
    for source, reader in pairs:
        neurons = layers[source].fan_out
        reads = rows[source].any(-1)
        inputs = _by_neuron(rows[reader], neurons) & reads[None, None]
        rows[reader] = inputs.reshape(rows[reader].shape)
    cleaned = list(masks)
    for i, row in rows.items():
        cleaned[i] = from_rows(layers[i], row)
    return cleaned


def _by_neuron(rows: Array, neurons: int) -> Array:
    """Inputs of a layer by the neuron that they come from, channels being innermost."""
    return rows.reshape(len(rows), -1, neurons)


def _check_consecutive(source: Layer, reader: Layer) -> None:
    if source.slices > 1 or reader.slices > 1 or reader.fan_in % source.fan_out:
        raise ValueError(
            f"chain: {reader.path} with {reader.fan_in} inputs cannot read "
            f"{source.path} with {source.fan_out} neurons; name layers of which each "
            "reads the one before, without stacked ones"
        )


def _similarity(links: Float[Array, "... n m"], score: str) -> Float[Array, "... n n"]:
    shared = _product(links, jnp.swapaxes(links, -1, -2))
    degrees = links.sum(-1)[..., None, :]
    outside = jnp.maximum(degrees - shared - 1, 0)
    inside = shared + 1 if score == "ch2" else jnp.ones_like(shared)
    return jnp.where(shared > 0, inside / (outside + 1), jnp.zeros_like(shared))


def _product(first: Array, second: Array) -> Array:
    # Accelerators would round to bfloat16, and what ties would differ between them.
    return jnp.matmul(first, second, precision=lax.Precision.HIGHEST)


def _absolute(leaf: Leaf) -> Array:
    return jnp.abs(leaf.weight).astype(jnp.float32)


def _relative(leaf: Leaf) -> Array:
    sizes = to_rows(leaf.layer, _absolute(leaf))
    in_neuron = jnp.maximum(sizes.sum(-1, keepdims=True), 1e-30)
    in_input = jnp.maximum(sizes.sum(-2, keepdims=True), 1e-30)
    return from_rows(leaf.layer, sizes / in_neuron + sizes / in_input)


def _log(values: Array) -> Array:
    return jnp.log(jnp.maximum(values, 1e-30))


def _sampled(leaf: Leaf, logits: Array, stream: int) -> Array:
    """Scores whose k largest are a sample of size k without replacement."""
    key = jax.random.fold_in(leaf.key, stream)
    return logits + jax.random.gumbel(key, logits.shape)


def _growth_order(leaf: Leaf, scores: Array, growth: str) -> Array:
    # Without any path only chance is left: far below all positions with one.
    sampled = _sampled(leaf, _log(scores), 1)
    return sampled if growth == "sampled" else jnp.where(scores > 0, scores, sampled)


def _settled(layer: Layer, before, kept, after, early_stop: float) -> Array:
    """The masks before the move where it would put back most of what it removed."""
    removed = active_count(layer, before & ~kept)
    put_back = active_count(layer, before & ~kept & after)
    limit = early_stop * removed.astype(jnp.float32)
    settled = put_back.astype(jnp.float32) > limit
    shape = (*settled.shape, *(1,) * (before.ndim - settled.ndim))
    return jnp.where(settled.reshape(shape), before, after)
