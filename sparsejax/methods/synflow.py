"""SynFlow: prune before training, without data, never a whole layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.layers import Layer
from sparsejax.leaves import wider
from sparsejax.masking import masked
from sparsejax.options import Options, method_without
from sparsejax.planning import budget_arrays
from sparsejax.rules import exponential_count
from sparsejax.runtime_checks import check_signal, check_weights_remain, is_silent
from sparsejax.selection import top_k_mask

__all__ = ["synflow"]

CARD = Card(
    paper="Tanaka et al., 2020",
    budget="global",
    choose="the topology has to be found before training, at an extreme sparsity or "
    "without data",
    asks="`network`, the outputs for an input of ones",
    structures="unstructured",
)

# Scores are kept inside this range by scaling the weights.
_SMALLEST, _LARGEST, _TRIES = 2.0**-40, 2.0**40, 100


@method_without("structure")
def synflow(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    network: Callable[[PyTree], PyTree],
    iterations: int = 100,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Prunes a network at initialisation by the synaptic flow through its weights.

    With all parameters replaced by their magnitudes and an input of ones, ``R`` is the
    sum of the outputs and ``|w dR/dw|`` the flow through a weight. In a network of
    matrices and ReLUs it sums to the same in every layer, so that a layer never
    empties before the others. In round ``k = 1 ... K`` the ``N (n / N)**(k / K)``
    weights of largest flow through the pruned network stay, ``N`` being all weights and
    ``n`` the budget. ``init`` does all of it; the topology is fixed from then on.

    Flows are computed in float32 at least. Where they would leave its range, or become
    as small as rounding, all sparsified weights are multiplied by a common factor,
    chosen anew in each round. Without skip connections and biases that multiplies all
    flows by one constant, so that the masks are those of exact arithmetic; with them
    the flows are those of the rescaled network.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``. All weights are
        ranked together, so that only the total is fixed.
      network: from the parameters to the outputs for one input of ones, in evaluation
        mode (a batch norm that normalised would keep nothing of the flow). The
        parameters are those that this transformation sees: `optax.masked` hides some.
      iterations: rounds ``K``, each of which costs a gradient of ``network``.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range. At ``init``: the
        outputs do not depend on a layer, or a layer is left without a weight.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> params = {"a": jnp.array([[1.0, 3.0], [2.0, -4.0]]), "b": -jnp.ones((2, 1))}
      >>> tx = sj.synflow(
      ...     optax.sgd(0.1),
      ...     sparsity=0.5,
      ...     network=lambda params: jnp.ones(2) @ params["a"] @ params["b"],
      ... )
      >>> sj.masks(tx.init(params))["a"].tolist()
      [[False, True], [False, True]]

    References:
      Tanaka et al., "Pruning neural networks without any data by iteratively conserving
      synaptic flow", NeurIPS 2020. Deviation: the rescaling.
    """
    check_step("iterations", iterations, least=1)
    return masked(
        inner,
        rule=None,
        when=None,
        initial=functools.partial(_first_masks, network, iterations),
        sparsity=sparsity,
        **options,
    )


def _first_masks(
    network, iterations, layers, budgets, structure, key, weights, params_with
) -> list[Bool[Array, "..."]]:
    del structure, key
    size = sum(layer.size for layer in layers)
    counts = map(jnp.sum, budget_arrays(layers, budgets))
    budget = sum(counts, start=jnp.zeros((), jnp.int32))
    weights = [_positive(weight) for weight in weights]

    def total(weights):
        outputs = network(jax.tree.map(_positive, params_with(weights)))
        return jnp.asarray(optax.tree.sum(outputs))

    def one_round(index, carry):
        masks, factor, silent = carry
        sparse = [
            jnp.where(mask, weight, jnp.zeros_like(weight))
            for mask, weight in zip(masks, weights, strict=True)
        ]
        scores, factor = flows(total, layers, sparse, factor)
        now = jnp.stack([is_silent(*pair) for pair in zip(layers, scores, strict=True)])
        silent = jnp.where(index == 0, now, silent)
        left = exponential_count(index + 1, iterations, size, budget)
        return top_k_mask(scores, left, where=masks), factor, silent

    all_weights = [jnp.ones(layer.shape, bool) for layer in layers]
    start = (all_weights, jnp.ones(()), jnp.zeros(len(layers), bool))
    masks, _, silent = lax.fori_loop(0, iterations, one_round, start)
    check_signal(layers, list(silent), "the synaptic flow")
    check_weights_remain(layers, masks)
    return masks


def flows(
    total: Callable[[list[Array]], Array],
    layers: Sequence[Layer],
    weights: list[Float[Array, "..."]],
    factor: Float[Array, ""],
) -> tuple[list[Float[Array, "..."]], Float[Array, ""]]:
    """``|w dR/dw|``, up to a common multiple that keeps it in the range of float32.

    Args:
      total: weights of the sparsified leaves -> ``R``.
      layers: these leaves.
      weights: not negative.
      factor: multiplies the weights, unless that leaves the range.

    Returns:
      The flows, and the factor that was used.
    """
    depth = sum(layer.slices for layer in layers)
    # One step, of 2 or less, changes R by no more than 2**64, or it could be too large
    # before and too small behind.
    step = 2.0 ** min(1.0, 64 / depth)

    def is_unusable(carry):
        tries, _, peak, _ = carry
        usable = (peak >= _SMALLEST) & (peak <= _LARGEST)
        return (tries == 0) | (~usable & (tries < _TRIES))

    def attempt(carry):
        tries, factor, peak, _ = carry
        change = jnp.where(peak > 0, peak ** (-1 / depth), step)
        factor = factor * jnp.where(jnp.isfinite(peak), change, 1 / step)
        scaled = [weight * factor.astype(weight.dtype) for weight in weights]
        found = [
            jnp.abs(weight * gradient)
            for weight, gradient in zip(scaled, jax.grad(total)(scaled), strict=True)
        ]
        peaks = [jnp.max(one).astype(jnp.float32) for one in found]
        return tries + 1, factor, jnp.max(jnp.stack(peaks)), found

    tries: Int[Array, ""] = jnp.zeros((), jnp.int32)
    begin = (tries, factor, jnp.ones(()), [jnp.zeros_like(one) for one in weights])
    _, factor, _, found = lax.while_loop(is_unusable, attempt, begin)
    return found, factor


def _positive(leaf: Any) -> Any:
    """The magnitude, in float32 at least; what is no float stays."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jnp.abs(leaf).astype(wider(leaf.dtype, jnp.float32))
