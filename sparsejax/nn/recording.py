"""What the layers of a network see, noted as it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import Array, PyTree

from sparsejax.nn.surgery import modules, put

__all__ = ["Recorder", "layer_inputs"]


class Recorder(nnx.Module):
    """A layer that tells what it saw.

    Args:
      layer: the layer.
      note: called with its inputs.
    """

    def __init__(self, layer: Any, note: Callable[[Array], None]):
        self.layer = layer
        self.note = nnx.static(note)

    def __call__(self, x: Array) -> Array:
        self.note(x)
        return self.layer(x)


def layer_inputs(model: nnx.Module, inputs: PyTree) -> list[tuple[str, Array]]:
    """The inputs of all linear layers and convolutions, in the order of their calls.

    Args:
      model: a network, which is changed: merge or clone one for this.
      inputs: what it is called with.

    Returns:
      Path of a layer, and what it saw.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax.models.mlp import mlp
      >>> model = mlp((4,), 2, hidden=(3,), rngs=nnx.Rngs(0))
      >>> [(path, seen.shape) for path, seen in layer_inputs(model, jnp.ones((5, 4)))]
      [('hidden0', (5, 4)), ('head', (5, 3))]
    """
    found: list[tuple[str, Array]] = []

    def noting(path: str) -> Callable[[Array], None]:
        return lambda x: found.append((path, x))

    layers = {
        path: Recorder(nnx.clone(layer), noting(path))
        for path, layer in modules(model)
        if isinstance(layer, nnx.Linear | nnx.Conv)
    }
    put(model, layers)(inputs)
    return found
