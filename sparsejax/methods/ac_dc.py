"""AC/DC: phases of sparse and of dense training in turn."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method
from sparsejax.rules import check_scope, magnitude, prune
from sparsejax.runtime_checks import check_weights_remain
from sparsejax.schedules import at, constant

__all__ = ["ac_dc"]

CARD = Card(
    paper="Peste et al., 2021",
    budget="global",
    choose="you want a dense and a sparse network from one training",
    asks="dense training until `start`, and half of the time until `stop`",
    structures='with `scope="layer"` any, else unstructured',
)


@method
def ac_dc(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int | None = None,
    every: int | None = None,
    start: int | None = None,
    compress: Sequence[int] | None = None,
    decompress: Sequence[int] | None = None,
    scope: Literal["layer", "global"] = "global",
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Trains dense and sparse in turn, ending sparse.

    Training begins dense. At a compression the weights of largest ``|w|`` after the
    optimizer's step stay, and their mask is fixed until the next decompression, when
    all weights are trained again; those that were pruned restart from zero, with
    initial statistics of the optimizer. The last compression is final. The network
    before it, at the end of the last dense phase, is a dense one in its own right.

    Phases follow from ``start``, ``every`` and ``stop``: compressions at ``start``,
    ``start + 2 every``, ... as long as a sparse and a dense phase of ``every`` steps
    fit before ``stop``, where the final one is. Or give all steps by ``compress`` and
    ``decompress``.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero in a sparse phase, in [0, 1); a map
        from path patterns to fractions; or None to take the counts of
        ``initial_masks``.
      stop: step of the final compression (counted in updates made before it); the paper
        leaves 15 of 100 epochs behind it on ImageNet.
      every: steps of a phase; 5 epochs in the paper.
      start: step of the first compression, the end of the dense warm-up; default
        ``every``, 10 epochs in the paper.
      compress: steps of all compressions, in place of the three.
      decompress: steps of all decompressions, one between each two compressions.
      scope: "global" ranks all weights together, so that only the total is fixed;
        "layer" keeps each layer's budget, which networks without norms need, where
        magnitudes differ between layers.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or phases that do not alternate. At a
        compression: "global" leaves a layer without a weight.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.ac_dc(optax.sgd(0.1), sparsity=0.75, start=1, every=2, stop=6)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state, active, update = tx.init(params), [], jax.jit(tx.update)
      >>> for _ in range(7):
      ...     updates, state = update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     active.append(int(sj.masks(state)["kernel"].sum()))
      >>> active
      [16, 4, 4, 16, 16, 16, 4]

    References:
      Peste et al., "AC/DC: Alternating compressed/decompressed training of deep neural
      networks", NeurIPS 2021. Deviation: in the authors' default the momentum of pruned
      weights outlives the sparse phase.
    """
    check_scope(scope, options.get("structure"))
    if compress is None and decompress is None:
        if stop is None or every is None:
            raise ValueError(
                f"stop={stop!r}, every={every!r}: give both, or `compress` and "
                "`decompress`"
            )
        compress, decompress = phases(every if start is None else start, every, stop)
    elif not stop is every is start is None:
        raise ValueError(
            f"stop={stop!r}, every={every!r}, start={start!r} together with "
            "`compress` or `decompress`: give the one or the other"
        )
    when = at(*_alternating(compress or (), decompress or ()))
    opening = tuple(decompress or ())
    largest = prune(score=magnitude, schedule=constant(1.0), scope=scope)

    def rule(move: Move) -> list[Array]:
        opens = functools.reduce(
            operator.or_, (move.step == step for step in opening), jnp.zeros((), bool)
        )
        masks = largest(move)
        if scope == "global":
            check_weights_remain(move.layers, masks)
        return [mask | opens for mask in masks]

    return masked(
        inner,
        rule=rule,
        when=when,
        initial="dense",
        on_move="step",
        sparsity=sparsity,
        **options,
    )


def phases(
    start: int, every: int, stop: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps of compressions and decompressions, see `ac_dc`.

    Example:
      >>> phases(10, 20, 170)
      ((10, 50, 90, 130, 170), (30, 70, 110, 150))
    """
    check_step("every", every, least=1)
    check_step("start", start)
    check_step("stop", stop)
    if stop < start:
        raise ValueError(
            f"stop={stop} is before the first compression at start={start}; raise "
            "`stop` or lower `start` (default: `every`)"
        )
    compress = range(start, stop - 2 * every + 1, 2 * every)
    return (*compress, stop), tuple(step + every for step in compress)


def _alternating(compress: Sequence[int], decompress: Sequence[int]) -> list[int]:
    """All steps in order, if they alternate and begin and end compressed."""
    pairs = itertools.zip_longest(compress, decompress)
    steps = [step for pair in pairs for step in pair if step is not None]
    if len(compress) != len(decompress) + 1 or steps != sorted(set(steps)):
        raise ValueError(
            f"compress={tuple(compress)}, decompress={tuple(decompress)}: give steps "
            "in increasing order, one decompression between each two compressions, "
            "such as compress=(10, 20, 40), decompress=(15, 30)"
        )
    return steps
