"""Where releases of Pallas and kinds of devices differ."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["hopper", "load", "mosaic_gpu_interpreter"]


def hopper() -> bool:
    """Whether the GPU here has Hopper's tensor cores, which no other one has."""
    return getattr(jax.devices()[0], "compute_capability", None) == "9.0"


def load(memory: Any, layout: Any) -> Any:
    """An array in a layout; until 0.10 indices stood apart from what they index."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    apart = jax.__version_info__ < (0, 11)
    indices = ((),) if apart else ()
    return plgpu.load(memory, *indices, layout=layout)


def mosaic_gpu_interpreter() -> Any:
    """What makes `jax.experimental.pallas.mosaic_gpu.kernel` interpret a kernel."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()
