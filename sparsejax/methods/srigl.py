"""SRigL: RigL with one fan-in for all neurons of a layer, and neuron ablation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from sparsejax.card import Card
from sparsejax.layers import Layer, check_pattern
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method_without
from sparsejax.schedules import Schedule, as_schedule, cosine, periodic
from sparsejax.selection import top_k_masks
from sparsejax.structures import Structure, fan_in
from sparsejax.structures.base import active_count, from_rows, to_rows

__all__ = ["srigl"]

CARD = Card(
    paper="Lasby et al., 2024",
    budget="bounded",
    choose="the sparse network has to be fast: its weights are stored as values and "
    "indices of one width, and dead neurons are removed",
    dense_gradient=True,
    structures="constant fan-in",
)

HEADS = r"(^|/)((\w+_)?heads?|classifier|logits|output|fc)(/|$)"


@method_without("structure")
def srigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    ablation: bool = True,
    minimum_salient: float = 0.3,
    never_ablate: str | Sequence[str] = HEADS,
    revive: bool = True,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Moves weights as RigL does, while all active neurons of a layer share a fan-in.

    Every ``every`` steps, after the optimizer's step, in a layer of ``R`` neurons with
    a budget of ``B`` weights, ``n`` of them active, and ``K = floor(f(t) n)``: an entry
    is salient if it is among the ``n - K`` largest ``|w|`` or the ``K`` largest
    ``|dL/dw|`` of the whole layer. Neurons with fewer than ``max(1, floor(gamma B /
    R))`` salient entries are ablated; the others share the budget, with the fan-in ``k
    = floor(B / (R - ablated))``. The ``n - K`` largest ``|w|`` of the layer stay, up to
    ``k`` in a neuron, and each neuron grows to ``k`` where its gradient is largest.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``. A layer keeps at
        most its share: what does not divide by the number of neurons is not used.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of active weights dropped, a schedule over ``step / stop`` or
        a number; default ``cosine(0.3)``.
      ablation: whether neurons may be ablated.
      minimum_salient: gamma, as a share of the fan-in without ablation, or from 1 on a
        number of entries; the paper has 0.3 for convolutional networks and 0.95 for
        transformers.
      never_ablate: regular expressions over paths of layers that keep all neurons; by
        default those that are named like the last layer of a classifier (head,
        lm_head, classifier, logits, output, fc): name yours if it has another name,
        since a neuron there is a class.
      revive: whether an ablated neuron may return when its gradients are large, as in
        the authors' code; else it is gone for good.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer with fewer weights than neurons.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.srigl(optax.sgd(0.1), sparsity=0.5, every=2, stop=10)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (6, 4))}
      >>> state = tx.init(params)
      >>> sj.masks(state)["kernel"].sum(axis=0).tolist()
      [3, 3, 3, 3]

    References:
      Lasby et al., "Dynamic Sparse Training with Structured Sparsity", ICLR 2024.
      Deviations from the authors' code: budgets are exact integers, a neuron that has
      to lose weights keeps its largest, and heads are never ablated.
    """
    if not minimum_salient > 0:
        raise ValueError(
            f"minimum_salient={minimum_salient!r} is not positive; give a share of the "
            "fan-in such as 0.3, or ablation=False"
        )
    fraction = as_schedule(
        "drop_fraction", cosine(0.3) if drop_fraction is None else drop_fraction
    )
    layout = fan_in()
    protected = [never_ablate] if isinstance(never_ablate, str) else [*never_ablate]

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        layers, masks = move.layers, move.masks
        share = fraction(move.when.progress(move.step))
        magnitudes = [jnp.abs(weight) for weight in move.weights]
        gradients = [jnp.abs(gradient) for gradient in move.gradients]
        stay, replaced = _numbers(layers, magnitudes, masks, share)
        alive = [
            jnp.ones((*layer.stacked_shape, layer.fan_out), bool) for layer in layers
        ]
        if ablation:
            salient = _salient(layers, magnitudes, gradients, masks, stay, replaced)
            rows = zip(layers, salient, masks, move.budgets, strict=True)
            decided = [_alive(*row, minimum_salient, revive) for row in rows]
            alive = [
                whole if _is_protected(layer, protected) else some
                for layer, whole, some in zip(layers, alive, decided, strict=True)
            ]
        living = [
            from_rows(
                layer, jnp.broadcast_to(one[..., None], (*one.shape, layer.fan_in))
            )
            for layer, one in zip(layers, alive, strict=True)
        ]
        here = [mask & one for mask, one in zip(masks, living, strict=True)]
        kept = top_k_masks(magnitudes, stay, where=here)
        # The budget is given in weights of a layer whose neurons are all alive.
        wanted = [
            budget // one.sum(-1, dtype=jnp.int32) * layer.fan_out
            for layer, budget, one in zip(layers, move.budgets, alive, strict=True)
        ]
        kept = layout.select(layers, magnitudes, wanted, kept)
        return layout.select(layers, gradients, wanted, living, kept)

    return masked(
        inner,
        rule=rule,
        when=periodic(every, start=start, stop=stop),
        on_move="step",
        sparsity=sparsity,
        structure=layout._replace(fit=_unrounded(layout, protected), strict=False),
        **options,  # pyright: ignore[reportCallIssue]
    )


def _is_protected(layer: Layer, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, layer.path) for pattern in patterns)


def _unrounded(structure: Structure, protected: Sequence[str]):
    """Budgets as they are: ablated neurons leave what the division left over."""

    def fit(layers, budgets):
        structure.fit(layers, budgets)
        if [*protected] != [HEADS]:
            for pattern in protected:
                paths = [layer.path for layer in layers]
                check_pattern("never_ablate", pattern, paths)
        return list(budgets)

    return fit


def _numbers(layers, magnitudes, masks, share):
    """How many weights of each layer stay, and how many are replaced."""
    stay, replaced = [], []
    for layer, magnitude, mask in zip(layers, magnitudes, masks, strict=True):
        active = active_count(layer, mask)
        dropped = jnp.floor(share * active.astype(jnp.float32)).astype(jnp.int32)
        # Weights that are zero have grown to nothing yet: all of them may go.
        nonzero = active_count(layer, mask & (magnitude > 0))
        stay.append(jnp.minimum(active - dropped, nonzero))
        replaced.append(active - stay[-1])
    return stay, replaced


def _salient(layers, magnitudes, gradients, masks, stay, replaced):
    """Salient entries of every neuron."""
    large = top_k_masks(magnitudes, stay, where=masks)
    pulled = top_k_masks(gradients, replaced)
    return [
        to_rows(layer, one | other).sum(-1, dtype=jnp.int32)
        for layer, one, other in zip(layers, large, pulled, strict=True)
    ]


def _alive(
    layer: Layer,
    salient: Int[Array, "... neurons"],
    mask: Bool[Array, "..."],
    budget: Int[Array, "..."],
    minimum_salient: float,
    revive: bool,
) -> Bool[Array, "... neurons"]:
    """Which neurons are not ablated."""
    if minimum_salient >= 1:
        needed = jnp.full(budget.shape, int(minimum_salient), jnp.int32)
    else:
        # In integers: 0.3 of 10 is 3.
        share = Fraction(str(minimum_salient)).limit_denominator(1000)
        part = budget // layer.fan_out * share.numerator // share.denominator
        needed = jnp.maximum(part, 1)
    if not revive:
        salient = jnp.where(to_rows(layer, mask).any(-1), salient, -1)
    # Enough neurons live on to hold the budget with the inputs that there are.
    place = jnp.minimum(budget // layer.fan_in, layer.fan_out - 1)[..., None]
    ranked = -jnp.sort(-salient, axis=-1)
    least = jnp.take_along_axis(ranked, place, axis=-1)
    return salient >= jnp.minimum(needed[..., None], least)
