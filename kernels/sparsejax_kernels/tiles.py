"""Sizes of tiles in kernels for GPUs: defaults, and what was measured on a device."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

from sparsejax_kernels import choosing

__all__ = ["CANDIDATES", "DEFAULTS", "TUNED", "Tiles", "tiles", "trying"]


class Tiles(NamedTuple):
    """How a kernel in Triton form cuts its work.

    Attributes:
      side: longest side of a tile that tensor cores multiply; of fan-in kernels, which
        gather, the numbers that a program gathers at once.
      warps: of 32 threads, in a program.
    """

    side: int
    warps: int


Key = tuple[str, str]
"""Operation and type of the numbers."""

DEFAULTS: dict[Key, Tiles] = {
    ("fan_in_matmul", "bfloat16"): Tiles(4096, 4),
    ("fan_in_matmul", "float32"): Tiles(4096, 4),
    ("n_m_matmul", "bfloat16"): Tiles(64, 4),
    ("n_m_matmul", "float32"): Tiles(32, 4),
    ("block_matmul", "bfloat16"): Tiles(64, 4),
    ("block_matmul", "float32"): Tiles(32, 4),
}
"""The largest that compile for Hopper without spilling registers; never timed."""

CANDIDATES: dict[str, tuple[Tiles, ...]] = {
    "fan_in_matmul": tuple(
        Tiles(side, warps) for side in (1024, 2048, 4096, 8192) for warps in (2, 4, 8)
    ),
    "n_m_matmul": tuple(Tiles(side, warps) for side in (32, 64) for warps in (4, 8)),
    "block_matmul": tuple(Tiles(side, warps) for side in (32, 64) for warps in (4, 8)),
}
"""What `sparsejax_kernels.tune` tries."""

TUNED: dict[str, dict[Key, Tiles]] = {}
"""Device kind -> what was the fastest there; no device was measured yet."""

_tried: contextvars.ContextVar[Mapping[Key, Tiles] | None] = contextvars.ContextVar(
    "tried", default=None
)


def tiles(operation: str, dtype: str) -> Tiles:
    """The tiles of an operation here, for float32 or bfloat16.

    Example:
      >>> tiles("n_m_matmul", "float32")
      Tiles(side=32, warps=4)
    """
    key = (operation, dtype)
    tried = _tried.get()
    if tried is not None and key in tried:
        return tried[key]
    measured = choosing.measured_tiles().get(f"{operation} {dtype}")
    if measured is not None:
        return Tiles(*measured)
    return TUNED.get(jax.devices()[0].device_kind, {}).get(key, DEFAULTS[key])


@contextlib.contextmanager
def trying(candidates: Mapping[Key, Tiles]) -> Iterator[None]:
    """Within it, operations that are traced anew have these tiles."""
    token = _tried.set(candidates)
    try:
        yield
    finally:
        _tried.reset(token)
