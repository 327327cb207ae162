"""Initial values for sparse layers, by the inputs that each neuron really has.

A dense initialisation draws with a variance of ``gain**2 / fan_in``. In a sparse layer
neuron ``i`` sums only ``k_i`` of its ``fan_in`` inputs, so that its output comes out
``sqrt(k_i / fan_in)`` times too small, layer after layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sparsejax.layers import Layout, by_name, path_name

__all__ = ["fan_in_corrected", "gradient_flow", "srigl_gradient_flow"]


def fan_in_corrected(
    params: PyTree[Float[Array, "..."]],
    masks: PyTree[Bool[Array, "..."] | None],
    *,
    layout: Layout | None = None,
) -> PyTree[Float[Array, "..."]]:
    """Rescales every neuron's weights to the number of inputs that it has.

    The weights of neuron ``i`` are multiplied by ``sqrt(fan_in / k_i)``, ``k_i`` being
    its active inputs: values of standard deviation ``gain / sqrt(fan_in)`` come out
    with ``gain / sqrt(k_i)``, whatever the gain. Zeros stay where they are, and a
    neuron without inputs is left as it is.

    Args:
      params: Parameters as a dense initialisation drew them, or their sparse view.
      masks: A tree like `params` with a bool array at every sparse leaf and None at the
        dense ones, as `sparsejax.masks` gives it.
      layout: Which axes of a leaf are its inputs; by default leaves named ``weight``
        are [outputs, inputs, ...], all others [..., inputs, outputs].

    Returns:
      The rescaled parameters.

    Example:
      >>> params = {"kernel": jnp.ones((4, 2))}
      >>> mask = jnp.array([[1, 1], [0, 1], [0, 1], [0, 1]], bool)
      >>> fan_in_corrected(params, {"kernel": mask})["kernel"][0]
      Array([2., 1.], dtype=float32)
    """

    def rescaled(path, weights, inputs, fan_in, mask):
        del path, mask
        scale = jnp.sqrt(fan_in / jnp.maximum(inputs, 1).astype(jnp.float32))
        scale = jnp.where(inputs > 0, scale, 1.0)
        return weights * scale.astype(weights.dtype)

    return _per_sparse_leaf(rescaled, params, masks, layout)


def gradient_flow(
    params: PyTree[Float[Array, "..."]],
    masks: PyTree[Bool[Array, "..."] | None],
    *,
    key: Key[Array, ""],
    layout: Layout | None = None,
) -> PyTree[Float[Array, "..."]]:
    """Draws every neuron's weights from a normal distribution of variance 2 / k_i.

    ``k_i`` is the number of active inputs of neuron ``i``: a standard deviation of
    0.17678 at 64 inputs. Inactive weights become 0.

    Args:
      params: Parameters; sparse leaves give shapes and dtypes only, dense ones stay.
      masks: As for `fan_in_corrected`.
      key: Where the values come from.
      layout: As for `fan_in_corrected`.

    Returns:
      The parameters with new values at the sparse leaves.

    Example:
      >>> params = {"kernel": jnp.ones((4, 2))}
      >>> mask = jnp.array([[1, 1], [0, 1], [0, 1], [0, 1]], bool)
      >>> new = gradient_flow(params, {"kernel": mask}, key=jax.random.key(0))
      >>> bool((new["kernel"][1:, 0] == 0).all())
      True

    References:
      Evci et al., "Gradient flow in sparse neural networks and how lottery tickets
      win", 2022.
    """
    return _drawn(params, masks, key, layout, lambda inputs: jnp.sqrt(2.0 / inputs))


def srigl_gradient_flow(
    params: PyTree[Float[Array, "..."]],
    masks: PyTree[Bool[Array, "..."] | None],
    *,
    key: Key[Array, ""],
    layout: Layout | None = None,
) -> PyTree[Float[Array, "..."]]:
    """Draws every neuron's weights with *standard deviation* 2 / k_i, as SRigL's code.

    The released code of SRigL hands the variance of `gradient_flow` to a function that
    expects a standard deviation: 0.03125 at 64 inputs, a 5.7th of what was meant. Its
    published results were obtained so. Use it to repeat them.

    Args:
      params: As for `gradient_flow`.
      masks: As for `fan_in_corrected`.
      key: Where the values come from.
      layout: As for `fan_in_corrected`.

    Returns:
      The parameters with new values at the sparse leaves.

    Example:
      >>> params = {"kernel": jnp.ones((4, 2))}
      >>> masks = {"kernel": jnp.ones((4, 2), bool)}
      >>> srigl_gradient_flow(params, masks, key=jax.random.key(0))["kernel"].shape
      (4, 2)

    References:
      Lasby et al., "Dynamic sparse training with structured sparsity", 2024.
    """
    return _drawn(params, masks, key, layout, lambda inputs: 2.0 / inputs)


def _drawn(
    params: PyTree,
    masks: PyTree,
    key: Key[Array, ""],
    layout: Layout | None,
    deviation: Callable[[Array], Array],
) -> PyTree:
    position = {
        path_name(path): index
        for index, (path, _) in enumerate(jax.tree.leaves_with_path(params))
    }

    def redrawn(path, weights, inputs, fan_in, mask):
        del fan_in
        leaf_key = jax.random.fold_in(key, position[path])
        noise = jax.random.normal(leaf_key, weights.shape, weights.dtype)
        scale = deviation(jnp.maximum(inputs, 1).astype(jnp.float32))
        scaled = noise * scale.astype(weights.dtype)
        return jnp.where(mask, scaled, jnp.zeros_like(weights))

    return _per_sparse_leaf(redrawn, params, masks, layout)


def _per_sparse_leaf(
    function: Callable[[str, Array, Int[Array, "..."], int, Array], Array],
    params: PyTree,
    masks: PyTree,
    layout: Layout | None,
) -> PyTree:
    """Calls `function(path, weights, active inputs, dense inputs, mask)` on them."""
    layout = by_name() if layout is None else layout

    def one(path, mask, weights):
        if mask is None:
            return weights
        name = path_name(path)
        axes = layout(name, weights.shape).fan_in
        inputs = mask.sum(axis=axes, keepdims=True, dtype=jnp.int32)
        fan_in = weights.size // inputs.size
        return function(name, weights, inputs, fan_in, mask)

    return jax.tree_util.tree_map_with_path(
        one, masks, params, is_leaf=lambda leaf: leaf is None
    )
