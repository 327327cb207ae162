"""SR-STE: N:M sparsity from dense weights, the masked ones drawn towards zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.options import Options, method
from sparsejax.reparametrizing import reparametrized
from sparsejax.structures import Structure, n_m
from sparsejax.views import TopK

__all__ = ["sr_ste"]

CARD = Card(
    paper="Zhou et al., 2021",
    budget="bounded",
    choose="a network is to be 2:4 sparse for the hardware that multiplies it faster",
    memory="masks, dense float32 weights",
    asks="a dense gradient at every step",
    dense_gradient="every step",
    structures="any; by default 2:4",
)


@method
def sr_ste(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None = 0.5,
    decay: float = 2e-4,
    every: int = 1,
    structure: Structure | None = None,
    **options: Unpack[Options],  # pyright: ignore[reportGeneralTypeIssues]
) -> optax.GradientTransformationExtraArgs:
    """Uses the largest of dense weights, and lets those that are masked decay.

    The parameters are ``m w``, the dense weights ``w`` where ``m`` marks the largest
    ``|w|`` of each group of four. The gradient ``g`` at the parameters becomes
    ``g + decay (1 - m) w`` at ``w``: straight through, with a pull towards zero where
    masked, which keeps the mask from flipping back and forth.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights. The decay passes through it, into Adam's moments too.
      sparsity: fraction of weights that are zero; the structure's own.
      decay: strength of the pull, 2e-4 in the paper; 0 is `straight_through`.
      every: steps from one selection of the mask to the next.
      structure: family of masks; default ``n_m(2, 4)``.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a sparsity that is not the structure's.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.sr_ste(optax.sgd(0.1))
      >>> params = {"kernel": jnp.array([[1.0], [-2.0], [0.5], [0.1]])}
      >>> sj.sparsify(params, tx.init(params))["kernel"][:, 0].tolist()
      [1.0, -2.0, 0.0, 0.0]

    References:
      Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From
      Scratch", ICLR 2021.
    """
    check_step("every", every, least=1)
    if not decay >= 0:
        raise ValueError(f"decay={decay!r} is negative; masked weights would grow")
    options["structure"] = structure or n_m(2, 4)
    return reparametrized(
        inner,
        view=_Decaying(float(decay)),
        sparsity=sparsity,
        refresh=None if every == 1 else lambda count: count % every == 0,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class _Decaying(TopK):
    decay: float

    def penalty(self, now):
        """``decay / 2`` times the sum of squares of the masked weights."""
        pairs = zip(now.masks, now.latents, strict=True)
        squares = [jnp.sum(jnp.where(m, 0, w) ** 2) for m, w in pairs]
        return self.decay / 2 * sum(squares, start=jnp.zeros(()))
