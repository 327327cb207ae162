"""Where releases of Pallas and kinds of devices differ."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["hopper", "mosaic_gpu_interpreter"]


def hopper() -> bool:
    """Whether the GPU here has Hopper's tensor cores, which no other one has."""
    return getattr(jax.devices()[0], "compute_capability", None) == "9.0"


def mosaic_gpu_interpreter() -> Any:
    """What makes `jax.experimental.pallas.mosaic_gpu.kernel` interpret a kernel."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()
