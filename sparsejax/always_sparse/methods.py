"""Always-sparse methods: what `rewired` makes of a score and candidates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from sparsejax.always_sparse.rewiring import rewired
from sparsejax.always_sparse.topology import Topology
from sparsejax.schedules import Schedule, as_schedule, constant, cosine, periodic

__all__ = ["mest", "rigl", "set", "static"]


def static(
    inner: optax.GradientTransformation, *, topology: PyTree
) -> optax.GradientTransformationExtraArgs:
    """A random topology that stays as it is.

    Args:
      inner: the optimizer.
      topology: like params: a `Topology` at sparse leaves, None at others.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sparsejax.always_sparse import connect, static
      >>> values, topology = connect(jax.random.key(0), 100, 4, fan_in=3)
      >>> tx = static(optax.sgd(0.1), topology=topology)
      >>> updates, _ = tx.update(values, tx.init(values), values)
      >>> bool(jnp.allclose(updates, -0.1 * values))
      True
    """
    return rewired(
        inner,
        topology=topology,
        when=None,
        score=lambda weights, gradients: jnp.abs(weights),
        fraction=constant(0.0),
    )


def set(
    inner: optax.GradientTransformation,
    *,
    topology: PyTree,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    seed: int | PRNGKeyArray = 0,
) -> optax.GradientTransformationExtraArgs:
    """SET: the smallest weights of a layer move to random places.

    Args:
      inner: the optimizer, clipping and schedules included.
      topology: like params: a `Topology` at sparse leaves, None at others.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of a layer's weights that move, a schedule over
        ``step / stop`` or a number; default ``cosine(0.3)``.
      seed: number or key that new places are drawn from.

    Raises:
      ValueError: an argument out of range.

    Example: see `sparsejax.always_sparse`.

    References:
      Mocanu et al., "Scalable training of artificial neural networks with adaptive
      sparse connectivity inspired by network science", Nature Communications, 2018.
      Every neuron keeps its fan-in; signs are ignored.
    """
    return rewired(
        inner,
        topology=topology,
        when=periodic(every, start=start, stop=stop),
        score=lambda weights, gradients: jnp.abs(weights),
        fraction=_fraction(drop_fraction),
        seed=seed,
    )


def mest(
    inner: optax.GradientTransformation,
    *,
    topology: PyTree,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    gradient_weight: float = 0.01,
    seed: int | PRNGKeyArray = 0,
) -> optax.GradientTransformationExtraArgs:
    """MEST (EM): as `set`, but a weight with a large gradient stays, too.

    A weight is worth ``|w| + gradient_weight |dL/dw|``.

    Args:
      inner: the optimizer, clipping and schedules included.
      topology: like params: a `Topology` at sparse leaves, None at others.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of a layer's weights that move, a schedule over
        ``step / stop`` or a number; default ``cosine(0.3)``.
      gradient_weight: of the gradient beside the weight.
      seed: number or key that new places are drawn from.

    Raises:
      ValueError: an argument out of range.

    Example: as for `set`, in `sparsejax.always_sparse`.

    References:
      Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
      the Edge", NeurIPS 2021.
    """

    def worth(weights, gradients):
        return jnp.abs(weights) + gradient_weight * jnp.abs(gradients)

    return rewired(
        inner,
        topology=topology,
        when=periodic(every, start=start, stop=stop),
        score=worth,
        fraction=_fraction(drop_fraction),
        seed=seed,
    )


def rigl(
    inner: optax.GradientTransformation,
    *,
    topology: PyTree,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    seed: int | PRNGKeyArray = 0,
) -> optax.GradientTransformationExtraArgs:
    """RigL among candidates: weights move to where the gradient is steep.

    The gradient is known at the candidates of each neuron only (`connect` makes them),
    which change at every move: growth needs no dense gradient, and no more memory than
    they take. With as many candidates as there are zeros it is RigL with constant
    fan-in (SRigL without ablation).

    Args:
      inner: the optimizer, clipping and schedules included.
      topology: like params: a `Topology` with candidates at sparse leaves, None at
        others.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of a layer's weights that move, a schedule over
        ``step / stop`` or a number; default ``cosine(0.3)``. A neuron moves no more
        than it has candidates.
      seed: number or key that candidates are drawn from.

    Raises:
      ValueError: an argument out of range, or a layer without candidates.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sparsejax.always_sparse import connect, rigl, topology
      >>> values, wires = connect(jax.random.key(0), 100, 4, fan_in=3, candidates=5)
      >>> tx = rigl(optax.sgd(0.1), topology=wires, start=0, every=1, stop=10)
      >>> updates, state = tx.update(values, tx.init(values), values)
      >>> topology(state).indices.shape
      (4, 8)

    References:
      Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020; Lasby
      et al., "Dynamic Sparse Training with Structured Sparsity", ICLR 2024. The
      candidates are ours.
    """

    def is_topology(node):
        return isinstance(node, Topology)

    for one in jax.tree.leaves(topology, is_leaf=is_topology):
        if one.indices.shape[1] == one.fan_in:
            raise ValueError(
                "rigl needs candidates to choose from, and a topology has none; make "
                "it by connect(..., candidates=c), or use always_sparse.set"
            )
    return rewired(
        inner,
        topology=topology,
        when=periodic(every, start=start, stop=stop),
        score=lambda weights, gradients: jnp.abs(weights),
        fraction=_fraction(drop_fraction),
        seed=seed,
    )


def _fraction(drop_fraction: Schedule | float | None) -> Schedule:
    given = cosine(0.3) if drop_fraction is None else drop_fraction
    return as_schedule("drop_fraction", given)
