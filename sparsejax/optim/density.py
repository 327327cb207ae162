"""A learning rate for each layer by the share of its weights that is there."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax
from jaxtyping import PyTree

from sparsejax.layers import leaves_with_paths, path_name

__all__ = ["scale_by_density"]


def scale_by_density(
    densities: Mapping[str, float], *, power: float = 1.0
) -> optax.GradientTransformation:
    """Divides the updates of each layer by its density to a power.

    The output of a neuron with ``d n`` of ``n`` inputs changes by a sum of ``d n``
    updates: under an optimizer whose updates have one size, such as Adam, dividing them
    by ``d`` gives a sparse layer the change per step that the dense one has. Put it
    behind the optimizer, where it scales the layer's learning rate (its decoupled
    weight decay included).

    Args:
      densities: leaf path -> share of weights that are active, in (0, 1], such as
        `sparsejax.densities` reads from a state; other leaves stay as they are.
      power: 1 keeps the change of a layer's outputs, 0 the optimizer's own updates.

    Raises:
      ValueError: a density is not in (0, 1]; at ``init`` if a path names no leaf.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
      >>> densities = sj.densities(sj.rigl(
      ...     optax.sgd(1.0), sparsity=0.75, stop=1_000).init(params))
      >>> inner = optax.chain(
      ...     sj.optim.adam(1e-3), sj.optim.scale_by_density(densities))
      >>> tx = sj.rigl(inner, sparsity=0.75, stop=1_000)
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> round(float(updates["bias"][0]), 6)
      -0.001

    References:
      Dey et al., "Sparse maximal update parameterization", NeurIPS 2024, for the rule;
      its other parts (initialisation by density, and by width) are not here.
    """
    factors = {}
    for path, density in densities.items():
        if not 0 < density <= 1:
            raise ValueError(
                f"densities[{path!r}]={density!r} is not in (0, 1]; it is the share of "
                "the leaf's weights that is active"
            )
        factors[path] = float(density) ** -power

    def init_fn(params):
        paths = [path for path, _ in leaves_with_paths(params)]
        for path in factors:
            if path not in paths:
                raise ValueError(
                    f"densities names {path!r}, which is no leaf; the leaves are: "
                    f"{', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}"
                )
        return optax.EmptyState()

    def update_fn(updates: PyTree, state, params=None):
        del params

        def one(path, update):
            factor = factors.get(path_name(path))
            return update if factor is None else update * factor

        return jax.tree_util.tree_map_with_path(one, updates), state

    return optax.GradientTransformation(init_fn, update_fn)
