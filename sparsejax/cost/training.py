"""FLOPs of training, from those of the forward pass."""

from __future__ import annotations

from sparsejax.cost.records import Number, TrainingCost

__all__ = ["training_cost"]


def training_cost(
    dense_flops: Number,
    sparse_flops: Number,
    *,
    dense_gradient_every: int | None = None,
    mean_progress: float = 1.0,
) -> TrainingCost:
    """Counts the FLOPs of a training step: the backward pass costs two forward passes.

    With `f_D` and `f_S` the dense and sparse forward pass, a step of a network that is
    sparse throughout costs `3 f_S`. A method that needs the dense gradient once for
    every `T` steps (RigL) costs `(3 f_S T + 2 f_S + f_D) / (T + 1)` on average, and one
    that needs it at every step (a straight-through estimator, `T = 0`) `2 f_S + f_D`.
    While a network is being pruned, `f` falls from `f_D` to `f_S` in proportion to the
    sparsity reached.

    Args:
      dense_flops: FLOPs of the dense network's forward pass per example.
      sparse_flops: those of the final sparse network's.
      dense_gradient_every: steps from one dense gradient to the next; 0: at every step;
        None: never.
      mean_progress: the mean over all steps of `s(t) / s(end)`: 1 where the sparsity
        does not change, less for gradual pruning. Exact where the sparsities of all
        layers rise in proportion, an estimate elsewhere.

    Returns:
      A `TrainingCost`, per example and step.

    Raises:
      ValueError: `dense_gradient_every` below 0, or `mean_progress` outside [0, 1].

    Example:
      >>> round(training_cost(1.0, 0.2, dense_gradient_every=100).ratio, 4)
      0.2026

    References:
      Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020,
      appendix H.
    """
    if dense_gradient_every is not None and dense_gradient_every < 0:
        raise ValueError(
            f"dense_gradient_every={dense_gradient_every!r}: give a number of steps, "
            "0 for every step, or None for a method that needs no dense gradient"
        )
    if not 0 <= mean_progress <= 1:
        raise ValueError(
            f"mean_progress={mean_progress!r}: the mean of s(t) / s(end) lies in [0, 1]"
        )
    dense = dense_flops
    sparse = dense - (dense - sparse_flops) * mean_progress
    flops = 3 * sparse
    if dense_gradient_every is not None:
        steps = dense_gradient_every
        flops = (3 * sparse * steps + 2 * sparse + dense) / (steps + 1)
    ratio = flops / (3 * dense) if dense else 1.0
    return TrainingCost(float(flops), 3 * dense, float(ratio))
