"""Which inputs the neurons of a layer read; the weight that it makes of values."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray
from sparsejax_kernels import FanIn, Transposed
from sparsejax_kernels.formats.base import compressed, index_dtype
from sparsejax_kernels.formats.transposed import transpose

from sparsejax.always_sparse.drawing import redraw

__all__ = ["Topology", "connect", "weight"]


@compressed("inputs", "fan_in")
class Topology:
    """The connections of a layer; its weights are a parameter of the same shape.

    Attributes:
      indices: which input each weight reads, ``(out, fan_in + candidates)``. The first
        ``fan_in`` of a row are its weights; the others are candidates, which are zero
        and have a gradient.
      transposed: the same by input, for the backward pass.
      inputs: how many there are; static.
      fan_in: weights of each neuron; static.
    """

    indices: Integer[Array, "out k"]
    transposed: Transposed
    inputs: int
    fan_in: int

    @property
    def nbytes(self) -> int:
        """Bytes of both indices."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def connect(
    key: PRNGKeyArray,
    inputs: int,
    outputs: int,
    *,
    fan_in: int,
    candidates: int = 0,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "out k"], Topology]:
    """A layer with random connections, without an array of its dense shape.

    Args:
      key: random key.
      inputs: of the layer.
      outputs: its neurons.
      fan_in: weights of each neuron.
      candidates: connections of weight zero that each neuron tries out beside them, for
        methods that grow by the gradient. They are part of the values.
      dtype: of the values.

    Returns:
      The values, ``(outputs, fan_in + candidates)``, normal with variance
      ``2 / fan_in`` (He et al., 2015, for the inputs that a neuron really has; Evci et
      al., 2022), and the topology.

    Raises:
      ValueError: if a neuron would have no weight, or more than there are inputs.

    Example:
      >>> values, topology = connect(jax.random.key(0), 10, 3, fan_in=4, candidates=2)
      >>> values.shape, topology.indices.shape, int((values == 0).sum())
      ((3, 6), (3, 6), 6)
    """
    width = fan_in + candidates
    if fan_in < 1 or candidates < 0 or width > inputs:
        raise ValueError(
            f"fan_in={fan_in} with candidates={candidates} does not fit {inputs} "
            f"inputs; fan_in has to be at least 1, and both together at most {inputs}"
        )
    first, second = jax.random.split(key)
    blank = jnp.zeros((outputs, width), index_dtype(inputs))
    indices = redraw(first, blank, jnp.ones(blank.shape, bool), inputs)
    values = math.sqrt(2 / fan_in) * jax.random.normal(second, blank.shape, dtype)
    active = jnp.arange(width) < fan_in
    topology = Topology(indices, transpose(indices, inputs), inputs, fan_in)
    return jnp.where(active, values, 0).astype(dtype), topology


def weight(values: Float[Array, "out k"], topology: Topology) -> FanIn:
    """What `sparsejax_kernels.matmul` multiplies with.

    Args:
      values: the parameter.
      topology: its connections.
    """
    return FanIn(values, topology.indices, topology.inputs, topology.transposed)
