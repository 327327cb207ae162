"""sparsejax: sparse training for JAX, as optax gradient transformations.

A method wraps an optimizer; nothing else in the training loop changes:

>>> import jax, jax.numpy as jnp, optax, sparsejax as sj
>>> tx = sj.rigl(optax.adam(1e-3), sparsity=0.9, every=100, stop=7_500)
>>> params = {"kernel": jax.random.normal(jax.random.key(0), (20, 50))}
>>> state = tx.init(params)
>>> params = sj.sparsify(params, state)
>>> gradients = jax.grad(lambda p: jnp.sum(p["kernel"] ** 2))(params)
>>> updates, state = tx.update(gradients, state, params)
>>> params = optax.apply_updates(params, updates)
>>> int(jnp.count_nonzero(params["kernel"]))
100

Methods are found by file name: ``sj.rigl`` is the function ``rigl`` of
``sparsejax/methods/rigl.py``.
"""

import importlib
import pkgutil

from sparsejax import methods as _methods
from sparsejax import optim, pruning
from sparsejax.applying import apply_masks, evaluation_params, sparsify, verify
from sparsejax.cost import cost
from sparsejax.distributions import er, erk, per_path, uniform
from sparsejax.initialization import (
    fan_in_corrected,
    gradient_flow,
    srigl_gradient_flow,
)
from sparsejax.inspection import (
    counts,
    densities,
    exploration,
    moves,
    summary,
    turnover,
)
from sparsejax.layers import LeafSpec, by_name, equinox, flax, matmul_weights
from sparsejax.masking import Memory, Move, masked
from sparsejax.reparametrizing import reparametrized
from sparsejax.rewinding import densify, rewind
from sparsejax.schedules import at, constant, cosine, cubic, periodic, polynomial
from sparsejax.selection import top_k_mask, top_k_masks
from sparsejax.state import masks, replica_axes
from sparsejax.structures import (
    block,
    diagonal,
    fan_in,
    n_m,
    neuron,
    transposable,
    unstructured,
)
from sparsejax.version import __version__
from sparsejax.views import Snapshot, View

METHODS: tuple[str, ...] = tuple(
    sorted(module.name for module in pkgutil.iter_modules(_methods.__path__))
)
"""Names of all methods that ship with sparsejax."""

__all__ = [
    "METHODS",
    "LeafSpec",
    "Memory",
    "Move",
    "Snapshot",
    "View",
    "__version__",
    "apply_masks",
    "at",
    "block",
    "by_name",
    "constant",
    "cosine",
    "cost",
    "counts",
    "cubic",
    "densify",
    "densities",
    "diagonal",
    "equinox",
    "er",
    "erk",
    "evaluation_params",
    "exploration",
    "fan_in",
    "fan_in_corrected",
    "flax",
    "gradient_flow",
    "masked",
    "masks",
    "matmul_weights",
    "moves",
    "n_m",
    "neuron",
    "optim",
    "per_path",
    "periodic",
    "polynomial",
    "pruning",
    "reparametrized",
    "replica_axes",
    "rewind",
    "sparsify",
    "srigl_gradient_flow",
    "summary",
    "top_k_mask",
    "top_k_masks",
    "transposable",
    "turnover",
    "uniform",
    "unstructured",
    "verify",
]


# What needs flax is loaded when it is asked for.
_OF_NN = ("compress", "load", "save")
_OF_KERNELS = ("explain",)


def __getattr__(name: str):
    if name == "nn" or name in _OF_NN:
        try:
            nn = importlib.import_module("sparsejax.nn")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"sparsejax.{name} needs {error.name}; pip install 'sparsejax[train]'"
            ) from error
        return nn if name == "nn" else getattr(nn, name)
    if name in _OF_KERNELS:
        return getattr(importlib.import_module("sparsejax_kernels"), name)
    if name in METHODS:
        return getattr(importlib.import_module(f"sparsejax.methods.{name}"), name)
    raise AttributeError(f"module 'sparsejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *METHODS, "nn", *_OF_NN, *_OF_KERNELS])
