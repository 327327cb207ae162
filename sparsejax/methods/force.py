"""FORCE and Iterative SNIP: sensitivities of the pruned network, pruned bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method_without
from sparsejax.rules import exponential_count
from sparsejax.runtime_checks import check_signal, check_weights_remain, is_silent
from sparsejax.schedules import at
from sparsejax.selection import top_k_mask

__all__ = ["force"]

CARD = Card(
    paper="de Jorge et al., 2021",
    budget="global",
    choose="the topology has to be found before training, where SNIP collapses",
    needs=("grad_fn",),
    structures="unstructured",
)


@method_without("structure")
def force(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    iterations: int = 10,
    regrow_dropped: bool = True,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Prunes a network at initialisation by SNIP's score, iterated.

    In round ``k = 1 ... K`` the ``N (n / N)**(k / K)`` weights of largest
    ``|w g(w m)|`` stay, ``N`` being all weights, ``n`` the budget, ``m`` the mask
    of the round before and ``w`` the dense initial weights: connections are judged by
    what they do in the sparse network. All rounds are made at the first update, which
    leaves the initial weights, pruned; the topology is fixed from then on.

    Call ``tx.update(gradients, state, params, grad_fn=...)`` with the function from
    parameters to the gradients of the loss on this step's batch (averaged over devices
    as the gradients are).

    Args:
      inner: the optimizer, clipping and schedules included; its statistics and its
        schedules see the first update, too.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``. All weights are
        ranked together, so that only the total is fixed.
      iterations: rounds ``K``, each of which costs a gradient.
      regrow_dropped: whether weights of an earlier round may come back: True is FORCE,
        False is Iterative SNIP.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or ``grad_fn`` is missing.
        At the first update: the gradient of a layer is zero everywhere, or a layer is
        left without a weight.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.force(optax.sgd(0.1), sparsity=0.5, iterations=2)
      >>> grad_fn = jax.grad(lambda p: (p["kernel"].sum() - 5) ** 2)
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> updates, state = tx.update(
      ...     grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.0, 0.0, 3.0, 4.0]]

    References:
      de Jorge et al., "Progressive skeletonization: trimming more fat from a network at
      initialization", ICLR 2021. One batch serves all rounds.
    """
    check_step("iterations", iterations, least=1)

    def rule(move: Move) -> list[Array]:
        size = sum(layer.size for layer in move.layers)
        budget = sum(map(jnp.sum, move.budgets), start=jnp.zeros((), jnp.int32))

        def one_round(index, masks):
            sparse = [
                jnp.where(mask, weight, jnp.zeros_like(weight))
                for mask, weight in zip(masks, move.weights, strict=True)
            ]
            scores = _scores(move.weights, move.gradients_at(sparse))
            left = exponential_count(index + 1, iterations, size, budget)
            eligible = move.masks if regrow_dropped else masks
            return top_k_mask(scores, left, where=eligible)

        pairs = zip(move.layers, move.gradients, strict=True)
        silent = [is_silent(*pair) for pair in pairs]
        check_signal(move.layers, silent, "the gradient")
        masks = lax.fori_loop(0, iterations, one_round, move.masks)
        check_weights_remain(move.layers, masks)
        return masks

    return masked(
        inner,
        rule=rule,
        when=at(0),
        initial="dense",
        on_move="hold",
        sparsity=sparsity,
        **options,
    )


def _scores(weights: list[Array], gradients: list[Array]) -> list[Array]:
    pairs = zip(weights, gradients, strict=True)
    return [jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32)) for w, g in pairs]
