"""What all operations share: checks, the choice of implementation, the epilogue."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from sparsejax_kernels import choosing, native

__all__ = [
    "IMPLEMENTATIONS",
    "PLATFORMS",
    "PRODUCTS",
    "check_epilogue",
    "check_inputs",
    "choose",
    "finish",
    "interpreted",
    "module_of",
    "no_gradient",
    "run_native",
]

IMPLEMENTATIONS = ("reference", "xla", "cpu")
PLATFORMS = {"pallas_gpu": "gpu", "pallas_tpu": "tpu"}
PRODUCTS = (*IMPLEMENTATIONS, *PLATFORMS)
"""Implementations of products with a weight; convolutions have no Pallas kernels."""
ACTIVATIONS = (None, "relu")


def check_inputs(x: Array, w: Any) -> None:
    """Raises unless x has as many inputs along its last axis as a weight reads."""
    if x.ndim == 0 or x.shape[-1] != w.in_features:
        raise ValueError(
            f"x has shape {x.shape}, but w reads {w.in_features} inputs; the last axis "
            "of x has to be that long"
        )


def check_epilogue(bias: Array | None, activation: str | None, outputs: int) -> None:
    """Raises unless the bias, if any, has a number for each output."""
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias has shape {bias.shape}; it has to be ({outputs},)")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; it is 'relu' or None")


def choose(
    implementation: str | None,
    offered: Sequence[str] = IMPLEMENTATIONS,
    w: Any = None,
    rows: int = 0,
) -> str:
    """The implementation to run: the one named, or the best that works here.

    Kernels in Pallas are the best where `sparsejax_kernels.tune` measured that they
    are, and nowhere else.

    Args:
      implementation: the one that was asked for, or None.
      offered: those that the operation has.
      w: the compressed weight, if it is a product with one.
      rows: of the activations.

    Raises:
      ValueError: if there is none of that name.
      RuntimeError: if the named one cannot run on this machine.
    """
    if implementation is None:
        if w is not None and rows and choosing.measured_on_gpu(w, rows):
            return "pallas_gpu"
        return "cpu" if native.available() else "xla"
    if implementation not in offered:
        raise ValueError(
            f"implementation is {implementation!r}; it is one of "
            f"{', '.join(map(repr, offered))} or None"
        )
    if implementation == "cpu" and not native.available():
        raise RuntimeError(
            f"implementation 'cpu' cannot run here: {native.why_not()}; or leave "
            "`implementation` at None for the best that can"
        )
    platform, here = PLATFORMS.get(implementation), jax.default_backend()
    if platform is not None and here != platform and not interpreted():
        raise RuntimeError(
            f"implementation {implementation!r} needs a {platform.upper()}, and this "
            f"is a {here.upper()}; leave `implementation` at None, or set "
            "SPARSEJAX_KERNELS_INTERPRET=1 to try it out, slowly"
        )
    return implementation


def interpreted() -> bool:
    """Whether Pallas kernels are interpreted, on any machine, instead of compiled."""
    return os.environ.get("SPARSEJAX_KERNELS_INTERPRET") == "1"


def module_of(operation: str, implementation: str) -> ModuleType:
    """The module of an operation's implementation; that of Pallas is large."""
    return importlib.import_module(f"sparsejax_kernels.{operation}.{implementation}")


def run_native(kernel: Callable, fallback: Callable, *arguments: Any) -> Any:
    """The native kernel, where the program turns out to run on a CPU."""
    if jax.default_backend() == "cpu":
        return kernel(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=kernel, default=fallback)


def finish(
    y: Array, bias: Array | None, activation: str | None, *, axis: int = -1
) -> Array:
    """Adds a bias along an axis and applies the activation."""
    if bias is not None:
        shape = [1] * y.ndim
        shape[axis] = -1
        y = y + bias.astype(y.dtype).reshape(shape)
    return jax.nn.relu(y) if activation == "relu" else y


def no_gradient(leaf: Array) -> np.ndarray:
    """What the cotangent of an index is."""
    return np.zeros(leaf.shape, jax.dtypes.float0)
