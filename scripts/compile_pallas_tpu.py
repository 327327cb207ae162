"""Compiles every kernel for TPUs, on a machine that has none.

Lowering does not meet the limits of the machine: which gathers, layouts and conversions
it has, and how much fast memory. The compiler does, and it needs no TPU. With
`pip install -e ".[aot]"`, from the root of the checkout:

    python scripts/compile_pallas_tpu.py

prints a line for each generation of TPUs, kernel, type and shape, and fails if one does
not compile. ``--topologies=v6e:2x2`` chooses generations, ``--kernels=block`` kernels.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Neither a TPU nor the service that says where it is.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from sparsejax_kernels.block_matmul import pallas_tpu as block
from sparsejax_kernels.fan_in_matmul import pallas_tpu as fan_in
from sparsejax_kernels.n_m_matmul import pallas_tpu as n_m

TYPES = ("bfloat16", "float32")
Case = tuple[str, Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]


def fan_in_cases(dtype: str) -> Iterator[Case]:
    """Layers of a vision transformer and of a language model, one of odd sizes."""
    for batch, inputs, outputs, kept in (
        (1, 3072, 768, 307),
        (256, 3072, 768, 307),
        (2048, 768, 3072, 77),
        (130, 301, 37, 90),
        (256, 8192, 28672, 819),
    ):
        x, y = _array((batch, inputs), dtype), _array((batch, outputs), dtype)
        w = _array((outputs, kept), dtype)
        index = _array((outputs, kept), "uint16")
        name = f"fan-in {batch}x{inputs}x{outputs} fan-in {kept}"
        yield (
            f"{name} forward",
            _bind(fan_in.fused, bias=None, activation="relu"),
            (
                x,
                w,
                index,
            ),
        )
        backward = _bind(fan_in.input_gradient, transposed=None, inputs=inputs)
        yield f"{name} dx", backward, (y, w, index)
        yield f"{name} dvalues", fan_in.value_gradient, (y, x, index)


def block_cases(dtype: str) -> Iterator[Case]:
    """Blocks that fit the matrix unit, smaller ones and ones of odd sizes."""
    for batch, inputs, outputs, shape, count in (
        (1, 3072, 768, (128, 128), 15),
        (256, 3072, 768, (128, 128), 15),
        (2048, 8192, 28672, (128, 128), 1434),
        (256, 3072, 768, (32, 32), 230),
        (130, 301, 77, (5, 9), 60),
    ):
        x, y = _array((batch, inputs), dtype), _array((batch, outputs), dtype)
        w = _array((count, *shape), dtype)
        place = _array((count, 2), "uint16")
        name = f"block {batch}x{inputs}x{outputs} {count} of {shape[0]}x{shape[1]}"
        options = {"bias": None, "activation": "relu", "outputs": outputs}
        yield f"{name} forward", _bind(block.fused, **options), (x, w, place)
        yield f"{name} dx", _bind(block.input_gradient, inputs=inputs), (y, w, place)
        yield f"{name} dvalues", _bind(block.value_gradient, block=shape), (y, x, place)


def n_m_cases(dtype: str) -> Iterator[Case]:
    """Patterns from 2:4 to the largest group, and odd sizes."""
    for batch, inputs, outputs, n, m in (
        (1, 3072, 768, 2, 4),
        (256, 3072, 768, 2, 4),
        (2048, 8192, 28672, 2, 4),
        (256, 3072, 768, 3, 32),
        (130, 301, 37, 4, 4),
        (520, 600, 37, 25, 255),
    ):
        groups = -(-inputs // m)
        x, y = _array((batch, inputs), dtype), _array((batch, outputs), dtype)
        w = _array((outputs, groups, n), dtype)
        offsets = _array((outputs, groups, n), "uint8")
        name = f"{n}:{m} {batch}x{inputs}x{outputs}"
        options = {"bias": None, "activation": "relu", "m": m}
        yield f"{name} forward", _bind(n_m.fused, **options), (x, w, offsets)
        options = {"transposed": None, "inputs": inputs, "m": m}
        yield f"{name} dx", _bind(n_m.input_gradient, **options), (y, w, offsets)
        yield f"{name} dvalues", _bind(n_m.value_gradient, m=m), (y, x, offsets)


def _array(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _bind(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda *arrays: function(*arrays, **options)


CASES = {"fan_in": fan_in_cases, "block": block_cases, "n_m": n_m_cases}


def compiles(
    function: Callable[..., Any],
    arrays: tuple[jax.ShapeDtypeStruct, ...],
    device: jax.Device,
) -> str:
    """What came of it: the seconds it took, or the first line of the error."""
    place, start = SingleDeviceSharding(device), time.perf_counter()
    try:
        traced = jax.jit(function, in_shardings=place, out_shardings=place)
        lowered = traced.trace(*arrays).lower(lowering_platforms=("tpu",))
        if "tpu_custom_call" not in lowered.as_text():
            return "FAILED: there is no kernel in it"
        lowered.compile()
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return f"compiled in {time.perf_counter() - start:.1f} s"


def main() -> int:
    """Returns 1 if a kernel does not compile."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e:2x2", "v6e:2x2"])
    parser.add_argument("--kernels", nargs="+", default=list(CASES), choices=CASES)
    options = parser.parse_args()
    failed = 0
    for topology in options.topologies:
        description = topologies.get_topology_desc(topology, platform="tpu")
        for kernel in options.kernels:
            for dtype in TYPES:
                for name, function, arrays in CASES[kernel](dtype):
                    outcome = compiles(function, arrays, description.devices[0])
                    failed += outcome.startswith("FAILED")
                    print(f"{topology} {dtype} {name}: {outcome}", flush=True)
    print(f"{failed} failed, with jax {jax.__version__}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
