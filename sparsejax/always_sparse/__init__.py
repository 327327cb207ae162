"""Networks that are sparse at every moment: created, trained and rewired compressed.

No array of a dense layer's shape ever exists: weights, gradients, statistics and
topology take memory in proportion to the weights that are there. What a network
multiplies with is a `sparsejax_kernels.FanIn` of the parameters' values and of the
topology, which lives in the optimizer's state:

>>> import jax, jax.numpy as jnp, optax
>>> from sparsejax import always_sparse
>>> from sparsejax_kernels import matmul
>>> first, second = jax.random.split(jax.random.key(0))
>>> hidden, wires = always_sparse.connect(first, 1000, 64, fan_in=8)
>>> params = {"hidden": hidden, "head": jnp.zeros((64, 10))}
>>> tx = always_sparse.set(
...     optax.adam(1e-3), topology={"hidden": wires, "head": None}, stop=100, every=10)
>>> state = tx.init(params)
>>> def loss(params, topology, x):
...     weight = always_sparse.weight(params["hidden"], topology["hidden"])
...     return jnp.mean((jax.nn.relu(matmul(x, weight)) @ params["head"] - 1) ** 2)
>>> x = jax.random.normal(second, (4, 1000))
>>> gradients = jax.grad(loss)(params, always_sparse.topology(state), x)
>>> updates, state = tx.update(gradients, state, params)
>>> params = optax.apply_updates(params, updates)
>>> params["hidden"].shape
(64, 8)
"""

from sparsejax.always_sparse.methods import mest, rigl, set, static
from sparsejax.always_sparse.rewiring import RewiredState, rewired, topology
from sparsejax.always_sparse.topology import Topology, connect, weight

__all__ = [
    "RewiredState",
    "Topology",
    "connect",
    "mest",
    "rewired",
    "rigl",
    "set",
    "static",
    "topology",
    "weight",
]
