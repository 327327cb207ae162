"""GraSP: prune before training what least preserves the gradient flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from sparsejax.card import Card
from sparsejax.masking import Move
from sparsejax.options import Options, method
from sparsejax.rules import Leaf
from sparsejax.single_shot import single_shot

__all__ = ["grasp"]

CARD = Card(
    paper="Wang et al., 2020",
    budget="global",
    choose="the topology has to be found before training, at a high sparsity",
    memory="masks; with `batches` > 1 a float32 copy of the weights",
    needs=("grad_fn",),
    structures='with `scope="layer"` any, else unstructured',
)


@method
def grasp(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    batches: int = 1,
    scope: Literal["layer", "global"] = "global",
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Prunes a network at initialisation so that the most gradient flow is left.

    With the gradient ``g`` and the Hessian ``H`` of the loss, restricted to the
    sparsified leaves, removing weight ``j`` changes ``|g|^2`` by about
    ``-2 w_j (H g)_j``. The weights with the largest ``S = -w (H g)`` are removed: those
    whose removal raises the gradient's norm most. ``H g`` is a forward derivative of
    ``grad_fn``; all together cost about three gradients, once.

    Call ``tx.update(gradients, state, params, grad_fn=...)`` with the function from
    parameters to the gradients of the loss on this step's batch (averaged over devices
    as the gradients are). Divide the logits by 200 in it, as the authors do:
    without that the masks can be those of a network of huge outputs, which hardly
    trains.

    Args:
      inner: the optimizer, clipping and schedules included; its statistics and its
        schedules see the first updates, too.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      batches: with 1, ``g`` and ``H`` are those of ``grad_fn`` at the first update.
        With more, ``g`` is the sum of the gradients of so many updates, which move no
        weight, ``H`` that of ``grad_fn`` at the last of them; this needs a float32 copy
        of the weights.
      scope: "global" ranks all weights together, so that only the total is fixed;
        "layer" keeps each layer's budget.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or ``grad_fn`` is missing. At the update
        that prunes: ``g`` or ``H g`` of a layer is zero everywhere, or "global" leaves
        a layer without a weight.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.grasp(optax.sgd(0.1), sparsity=0.5)
      >>> matrix = jnp.array([[2.0, -1.0], [-1.0, 1.0]])
      >>> def loss(params):
      ...     weights = params["kernel"][0]
      ...     return weights @ matrix @ weights / 2
      >>> params, grad_fn = {"kernel": jnp.ones((1, 2))}, jax.grad(loss)
      >>> updates, state = tx.update(
      ...     grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[1.0, 0.0]]

    References:
      Wang, Zhang and Grosse, "Picking winning tickets before training by preserving
      gradient flow", ICLR 2020. Deviations: the authors' code takes ``H`` over all
      batches of ``g``, and draws the weights of linear layers anew for scoring.
    """

    def signals(move: Move) -> dict[str, list[Array]]:
        found = move.gradients_at(move.weights) if batches == 1 else move.memory
        gradients = [
            gradient.astype(weight.dtype)
            for weight, gradient in zip(move.weights, found, strict=True)
        ]
        _, products = jax.jvp(move.gradients_at, (move.weights,), (gradients,))
        return {
            "the gradient": gradients,
            "the product of Hessian and gradient": products,
        }

    return single_shot(
        inner,
        signals=signals,
        score=_preserved_flow,
        batches=batches,
        scope=scope,
        sparsity=sparsity,
        **options,
    )


def _preserved_flow(leaf: Leaf) -> Array:
    """``-S``, of the product of Hessian and gradient in the gradient's place."""
    return leaf.weight.astype(jnp.float32) * leaf.gradient.astype(jnp.float32)
