"""The compiled kernels: found, checked against the runtime, registered on first use."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import warnings

import jax
import jaxlib.version

__all__ = ["available", "has_avx512", "level", "why_not"]

HANDLERS = (
    "fan_in_forward",
    "fan_in_gradients",
    "fan_in_input_gradient",
    "fan_in_value_gradient",
    "fan_in_transpose",
    "block_forward",
    "block_value_gradient",
    "pointwise_forward",
    "convolution_forward",
    "depthwise_forward",
    "packed_forward",
    "cached_attention",
)
PREFIX = "sparsejax_kernels."
LEVELS = {"": 0, "portable": 2, "avx2": 3, "avx512": 4}


def available() -> bool:
    """Whether the native kernels run here; says once why they do not.

    Setting ``SPARSEJAX_KERNELS_NATIVE=0`` in the environment turns them off.
    """
    if os.environ.get("SPARSEJAX_KERNELS_NATIVE") == "0":
        return False
    reason = _register()
    if reason is not None:
        _warn(reason)
    return reason is None


def why_not() -> str | None:
    """Why the native kernels do not run here, and what to do; None if they do."""
    if os.environ.get("SPARSEJAX_KERNELS_NATIVE") == "0":
        return "SPARSEJAX_KERNELS_NATIVE=0 turns the native kernels off; unset it"
    return _register()


def level() -> int:
    """The instruction set to use at most: 0 for the best one that this machine has.

    ``SPARSEJAX_KERNELS_INSTRUCTIONS`` in the environment names one: "portable", "avx2"
    or "avx512". It is read when a function is traced.

    Raises:
      ValueError: if it names another one.
    """
    name = os.environ.get("SPARSEJAX_KERNELS_INSTRUCTIONS", "")
    if name not in LEVELS:
        raise ValueError(
            f"SPARSEJAX_KERNELS_INSTRUCTIONS is {name!r}; it is one of "
            f"{', '.join(filter(None, LEVELS))}, or unset for the best that runs here"
        )
    return LEVELS[name]


def has_avx512() -> bool:
    """Whether the native kernels run with AVX-512, which `level` may forbid."""
    return available() and _level_here(level()) >= LEVELS["avx512"]


@functools.cache
def _level_here(level: int) -> int:
    """The instruction set that a level means on this processor."""
    file = sorted(pathlib.Path(__file__).parent.glob("_native*.so"))[0]
    call = ctypes.CDLL(str(file)).sparsejax_kernels_level_here
    call.argtypes, call.restype = [ctypes.c_int64], ctypes.c_int64
    return call(level)


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"compressed weights run on XLA's own operations, which are slower: {reason}",
        stacklevel=4,
    )


def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


@functools.cache
def _register() -> str | None:
    """Registers the handlers; returns why it could not."""
    found = sorted(pathlib.Path(__file__).parent.glob("_native*.so"))
    if not found:
        return (
            "the native kernels were not built; install a C++17 compiler, then "
            "`pip install -e .` in a checkout or `pip install --force-reinstall "
            "--no-binary sparsejax sparsejax`"
        )
    try:
        library = ctypes.CDLL(str(found[0]))
        library.sparsejax_kernels_built_with.restype = ctypes.c_char_p
        built_with = library.sparsejax_kernels_built_with().decode()
        # All of them: a file of an earlier version lacks some.
        handlers = {name: getattr(library, name) for name in HANDLERS}
    except (OSError, AttributeError) as error:
        return (
            f"{found[0].name} cannot be used ({error}); build it again: "
            "`pip install -e .` in a checkout"
        )
    # Registering with an older runtime would take JAX's whole CPU backend down.
    if _release(jaxlib.version.__version__) < _release(built_with):
        return (
            f"they were built with jaxlib {built_with} and jaxlib is "
            f"{jaxlib.version.__version__}; upgrade jaxlib or build them again"
        )
    for name, handler in handlers.items():
        capsule = jax.ffi.pycapsule(handler)
        jax.ffi.register_ffi_target(PREFIX + name, capsule, platform="cpu")
    return None
