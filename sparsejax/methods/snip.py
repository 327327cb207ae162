"""SNIP: prune before training what the loss is least sensitive to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array

from sparsejax.card import Card
from sparsejax.options import Options, method
from sparsejax.rules import Leaf
from sparsejax.single_shot import single_shot, summed_gradients

__all__ = ["snip"]

CARD = Card(
    paper="Lee et al., 2019",
    budget="global",
    choose="the topology has to be found before training, in one batch",
    memory="masks; with `batches` > 1 a float32 copy of the weights",
    structures='with `scope="layer"` any, else unstructured',
)


@method
def snip(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    batches: int = 1,
    scope: Literal["layer", "global"] = "global",
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Prunes a network at initialisation by the connection sensitivity of its weights.

    With the gradient ``g`` of the first ``batches`` updates, summed, the weights of
    largest ``|w g|`` stay: the change of the loss, to first order, if the weight were
    removed. Until then nothing moves: update number ``batches`` (the first is 1) leaves
    the initial weights, pruned. The topology is fixed from then on. Scaling the loss
    does not change it.

    Args:
      inner: the optimizer, clipping and schedules included; its statistics and its
        schedules see the first updates, too.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      batches: updates over which the gradient is summed; more than 1 need a float32
        copy of the weights.
      scope: "global" ranks all weights together, so that only the total is fixed;
        "layer" keeps each layer's budget.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range. At the update that prunes: the gradient of
        a layer is zero everywhere, or "global" leaves a layer without a weight.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.snip(optax.sgd(0.1), sparsity=1 / 3)
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0]])}
      >>> gradients = jax.grad(lambda p: (p["kernel"].sum() - 5) ** 2)(params)
      >>> updates, state = tx.update(gradients, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.0, 2.0, 3.0]]

    References:
      Lee et al., "SNIP: Single-shot network pruning based on connection sensitivity",
      ICLR 2019. Deviations: the gradient is that of training (the authors' code scores
      in inference mode), weights are not drawn anew for scoring, biases are not pruned.
    """
    return single_shot(
        inner,
        signals=lambda move: {"the gradient": summed_gradients(move)},
        score=_sensitivity,
        batches=batches,
        scope=scope,
        sparsity=sparsity,
        **options,
    )


def _sensitivity(leaf: Leaf) -> Array:
    return jnp.abs(leaf.weight.astype(jnp.float32) * leaf.gradient.astype(jnp.float32))
