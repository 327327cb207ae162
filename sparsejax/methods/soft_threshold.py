"""STR, soft threshold reparametrisation: thresholds that are learned and decayed."""

from __future__ import annotations

from typing import Unpack

import optax

from sparsejax.card import Card
from sparsejax.checks import check_choice
from sparsejax.options import Options, method_without
from sparsejax.reparametrizing import reparametrized
from sparsejax.views import Granularity, SoftThreshold

__all__ = ["soft_threshold"]

CARD = Card(
    paper="Kusupati et al., 2020",
    budget="emergent",
    choose="layers shall find their own sparsities, and a sweep over the weight decay "
    "is no problem",
    memory="masks, dense float32 weights, thresholds",
    asks="weight decay, without which thresholds stay where they are",
    structures="none",
)


@method_without("distribution", "structure")
def soft_threshold(
    inner: optax.GradientTransformation,
    *,
    initial_threshold: float = -3200.0,
    granularity: Granularity = "layer",
    extra_optimizer: optax.GradientTransformation | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Soft-thresholds dense weights by thresholds that are trained with them.

    The parameters are ``sign(w) relu(|w| - sigmoid(s))`` with one ``s`` for each layer;
    gradients are the true ones, zero where the parameters are. There is no target: the
    sparsity follows from the first ``s`` and from the weight decay on it. At -3200
    ``sigmoid`` is flat, and ``s`` moves by decay alone: with learning rate ``lr`` and
    decay ``wd`` it is ``s (1 - lr wd)**n`` after ``n`` steps, and weights are pruned
    once it comes near -10.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      initial_threshold: the first ``s``; -3200 in the paper for 90 % on ResNet-50.
      granularity: what shares a threshold: a "layer", a "channel" (neuron) or nothing
        ("weight").
      extra_optimizer: trains the thresholds; default ``inner``. Its weight decay must
        reach them: with ``optax.sgd`` alone, or with a decay mask that leaves out what
        is not a matrix, the network stays dense.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an unknown granularity.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.soft_threshold(optax.sgd(0.1), initial_threshold=0.0)
      >>> params = {"kernel": jnp.array([[0.75, -0.25]])}
      >>> sj.sparsify(params, tx.init(params))["kernel"].tolist()
      [[0.25, 0.0]]

    References:
      Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable
      Sparsity", ICML 2020. The published ResNet-50 was trained by SGD of learning rate
      0.256, momentum 0.875 and weight decay 2.2518e-5 on weights and thresholds alike:
      ``optax.chain(optax.add_decayed_weights(2.2518e-5), optax.sgd(...))``.
    """
    check_choice("granularity", granularity, ("layer", "channel", "weight"))
    return reparametrized(
        inner,
        view=SoftThreshold(granularity, float(initial_threshold)),
        sparsity=None,
        extra_optimizer=extra_optimizer,
        **options,
    )
