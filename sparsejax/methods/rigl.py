"""RigL: drop the smallest weights, grow where the gradient is largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import optax

from sparsejax.card import Card
from sparsejax.masking import masked
from sparsejax.options import Options, method
from sparsejax.rules import drop_and_grow, gradient_magnitude, keep_largest, magnitude
from sparsejax.schedules import Schedule, as_schedule, cosine, periodic

__all__ = ["rigl"]

CARD = Card(
    paper="Evci et al., 2020",
    budget="fixed",
    choose="you want the best accuracy of a network that is sparse all along",
    dense_gradient=True,
)


@method
def rigl(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    regrow_dropped: bool = True,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Moves weights from where they are small to where the dense gradient is large.

    Every ``every`` steps, in each layer with ``n`` active weights and
    ``K = floor(f(t) n)``: the ``n - K`` largest ``|w|`` stay, and of all other
    positions (those just dropped included) the ``K`` with the largest ``|dL/dw|`` are
    grown, at zero. On such a step the parameters only drop; otherwise they hold.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: no move at or after this step (counted in updates made before it); the paper
        stops after 78 % of training on ImageNet.
      every: steps from one move to the next; at 1 every step before ``stop`` would be a
        move, and nothing would train.
      start: first move; default ``every``, because at step 0 zero-initialised norm
        scales make most gradients zero.
      drop_fraction: share of active weights dropped, a schedule over ``step / stop`` or
        a number; default ``cosine(0.3)``.
      regrow_dropped: whether just-dropped weights may be grown again, keeping value and
        statistics, as in the authors' code; else only where nothing else is left.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.rigl(optax.sgd(0.1), sparsity=0.5, every=2, stop=10)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> for _ in range(5):
      ...     gradients = jax.grad(lambda p: jnp.sum((p["kernel"] - 1) ** 2))(params)
      ...     updates, state = tx.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> int(jnp.count_nonzero(sj.masks(state)["kernel"]))
      8

    References:
      Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
      Deviation: ties are broken by position instead of by added noise.
    """
    fraction = cosine(0.3) if drop_fraction is None else drop_fraction
    return masked(
        inner,
        rule=drop_and_grow(
            keep=keep_largest(magnitude),
            grow=gradient_magnitude,
            fraction=as_schedule("drop_fraction", fraction),
            regrow_dropped=regrow_dropped,
        ),
        when=periodic(every, start=start, stop=stop),
        on_move="hold",
        sparsity=sparsity,
        **options,
    )
