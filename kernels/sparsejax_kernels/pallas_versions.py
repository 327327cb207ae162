"""Where releases of Pallas differ, one section for each kind of device."""

from __future__ import annotations

from typing import Any

__all__ = ["mosaic_gpu_interpreter"]

# --- GPUs ---


def mosaic_gpu_interpreter() -> Any:
    """What makes `jax.experimental.pallas.mosaic_gpu.kernel` interpret a kernel."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()
