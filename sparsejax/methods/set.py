"""SET: drop the smallest weights, grow at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import optax

from sparsejax.card import Card
from sparsejax.masking import masked
from sparsejax.options import Options, method
from sparsejax.rules import (
    drop_and_grow,
    keep_largest,
    keep_largest_by_sign,
    magnitude,
    uniform_random,
)
from sparsejax.schedules import Schedule, as_schedule, cosine, periodic
from sparsejax.structures.base import thin_unstructured

__all__ = ["set"]

CARD = Card(
    paper="Mocanu et al., 2018",
    budget="fixed",
    choose="dense gradients are too expensive, or will not exist once the weights are "
    "stored compressed",
    structures="any; with `signwise` no blocks, neurons and diagonals",
)


@method
def set(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    signwise: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Replaces the smallest weights by random new ones.

    Every ``every`` steps, in each layer with ``n`` active weights and
    ``K = floor(f(t) n)``: the ``n - K`` largest ``|w|`` stay, and ``K`` of all other
    positions (those just dropped included) are grown uniformly at random, at zero. No
    dense gradient is needed. On such a step the parameters only drop.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next; at 1 every step before ``stop`` would be a
        move, and nothing would train.
      start: first move; default ``every``.
      drop_fraction: share of active weights dropped, a schedule over ``step / stop`` or
        a number; default ``cosine(0.3)``; the paper's zeta is the constant 0.3.
      signwise: drop that share of the positive and of the negative weights separately,
        as in the paper; by default signs are ignored, as in later work.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, a layer left without weights, or a structure
        of whole units (blocks, neurons, diagonals) with ``signwise``.

    Example:
      >>> import optax, sparsejax as sj
      >>> tx = sj.set(optax.adam(1e-3), sparsity=0.9, every=100, stop=7500)

    References:
      Mocanu et al., "Scalable training of artificial neural networks with adaptive
      sparse connectivity inspired by network science", Nature Communications, 2018.
      Deviations: counts instead of thresholds decide what is dropped, so the number of
      weights is exact; new weights start at zero, as in the authors' Keras code.
    """
    structure = options.get("structure")
    if signwise and structure is not None and structure.thin is not thin_unstructured:
        raise ValueError(
            f"signwise=True does not go with structure={structure.name}, whose units "
            "have weights of both signs; use signwise=False"
        )
    keep = keep_largest_by_sign if signwise else keep_largest
    fraction = cosine(0.3) if drop_fraction is None else drop_fraction
    return masked(
        inner,
        rule=drop_and_grow(
            keep=keep(magnitude),
            grow=uniform_random,
            fraction=as_schedule("drop_fraction", fraction),
        ),
        when=periodic(every, start=start, stop=stop),
        on_move="hold",
        sparsity=sparsity,
        **options,
    )
