"""Compiles the kernels for GPUs down to machine code, on a machine without a GPU.

Prints registers, spilled bytes and tensor core instructions of every kernel, for an
H100 or H200. In an environment of its own, as CUDA's plugin looks for a GPU whenever
jax is imported:

    pip install -e ".[aot]"
    python scripts/compile_pallas_gpu.py                         # all, a few minutes
    python scripts/compile_pallas_gpu.py bfloat16 "batch 256"    # some

The exit status is 1 if a kernel spills, or if one that should does not use the (sparse)
tensor cores of Hopper.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

DUMPS = tempfile.mkdtemp()
TRITON = importlib.util.find_spec("triton")
if TRITON is None or TRITON.origin is None:
    sys.exit("ptxas and nvdisasm are missing: pip install triton")
TOOLS = pathlib.Path(TRITON.origin).parent / "backends" / "nvidia" / "bin"
# Before jax is imported.
os.environ["PATH"] = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["MOSAIC_GPU_DUMP_TO"] = DUMPS
os.environ["XLA_FLAGS"] = f"--xla_dump_to={DUMPS}"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from sparsejax_kernels import pallas_versions
from sparsejax_kernels.block_matmul import pallas_gpu as blocks
from sparsejax_kernels.block_matmul import wgmma
from sparsejax_kernels.fan_in_matmul import pallas_gpu as fan_in
from sparsejax_kernels.formats.two_four import TwoFourTransposed
from sparsejax_kernels.n_m_matmul import pallas_gpu as n_m
from sparsejax_kernels.n_m_matmul import sparse_tensor_cores

# Sizes of an H200; an H100 differs in memory alone, which no kernel asks for.
HOPPER = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 150000000000
  shared_memory_per_block_optin: 232448 registers_per_core_limit: 65536
  registers_per_block_limit: 65536 cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H200"
"""
INPUTS, OUTPUTS, FAN_IN = 3072, 768, 320
KEPT = 60


def cases(dtype, batch):
    """Name, function and shapes of every product and gradient."""
    shape = jax.ShapeDtypeStruct
    x, g = shape((batch, INPUTS), dtype), shape((batch, OUTPUTS), dtype)
    values = shape((OUTPUTS, FAN_IN), dtype)
    index = shape((OUTPUTS, FAN_IN), jnp.uint16)
    yield (
        "fan-in forward",
        lambda *a: fan_in.fused(*a, None, "relu"),
        (x, values, index),
    )
    yield (
        "fan-in input gradient",
        lambda *a: fan_in.input_gradient(*a, None, INPUTS),
        (g, values, index),
    )
    yield "fan-in value gradient", fan_in.value_gradient, (g, x, index)
    for side in (32, 64, 128):
        values = shape((KEPT, side, side), dtype)
        place = shape((KEPT, 2), jnp.int32)
        name = f"blocks of {side}"
        yield (
            f"{name} forward",
            lambda *a: blocks.fused(*a, None, "relu", OUTPUTS),
            (x, values, place),
        )
        yield (
            f"{name} input gradient",
            lambda *a: blocks.input_gradient(*a, INPUTS),
            (g, values, place),
        )
        yield (
            f"{name} value gradient",
            lambda *a, side=side: blocks.value_gradient(*a, (side, side)),
            (g, x, place),
        )
    for n, m in ((2, 4), (3, 32)):
        values = shape((OUTPUTS, INPUTS // m, n), dtype)
        offsets = shape(values.shape, jnp.uint8)
        yield (
            f"{n}:{m} forward",
            lambda *a, m=m: n_m.fused(*a, None, "relu", m),
            (x, values, offsets),
        )
        yield (
            f"{n}:{m} input gradient",
            lambda *a, m=m: n_m.input_gradient(*a, None, INPUTS, m),
            (g, values, offsets),
        )
        yield (
            f"{n}:{m} value gradient",
            lambda *a, m=m: n_m.value_gradient(*a, m),
            (g, x, offsets),
        )
    if dtype == jnp.bfloat16:
        values = shape((OUTPUTS, INPUTS // 2), dtype)
        words = shape((OUTPUTS // 128, INPUTS // 128, 2, 256), jnp.int32)
        turned = TwoFourTransposed(
            shape((INPUTS, OUTPUTS // 2), jnp.int32),
            shape((INPUTS // 128, OUTPUTS // 128, 2, 256), jnp.int32),
        )
        yield (
            "2:4 on sparse tensor cores forward",
            lambda *a: sparse_tensor_cores.fused(*a, None, "relu"),
            (x, values, words),
        )
        yield (
            "2:4 on sparse tensor cores input gradient",
            lambda *a: sparse_tensor_cores.input_gradient(*a, INPUTS),
            (g, values, words, turned),
        )


def statistics(program):
    """Registers, spilled bytes and instructions of the kernels in a PTX file."""
    binary = program.with_suffix(".cubin")
    # Mosaic GPU asks for instructions that only the architecture itself has.
    command = ["ptxas", "-v", "-arch=sm_90a", str(program), "-o", str(binary)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    command = ["nvdisasm", "-c", str(binary)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {
        "registers": max(
            map(int, re.findall(r"Used (\d+) registers", text)), default=0
        ),
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill stores", text))),
    }
    for instruction in ("HGMMA", "HGMMA.SP", "HMMA", "FFMA"):
        exactly = rf"\b{re.escape(instruction)}\.(?!SP)|\b{re.escape(instruction)}\s"
        found[instruction] = len(re.findall(exactly, code))
    return found


def promised(name, dtype):
    """The instruction that a kernel is there for, if any."""
    if "sparse tensor cores" in name:
        return "HGMMA.SP"
    large = any(f"blocks of {side}" in name for side in wgmma.SIDES)
    return "HGMMA" if large and dtype == jnp.bfloat16 else None


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="that the name of a case contains")
    words = parser.parse_args().words
    topology = topologies.get_topology_desc(
        topology_name="one", platform="cuda", target_config=HOPPER, topology="1x1x1"
    )
    place = SingleDeviceSharding(topology.devices[0])
    # The device of the process is a CPU, so what runs on Hopper has to be said.
    pallas_versions.hopper = lambda: True
    failures, seen = [], set()
    for dtype in (jnp.float32, jnp.bfloat16):
        for batch in (1, 256):
            for name, function, shapes in cases(dtype, batch):
                shardings = jax.tree.map(lambda _: place, shapes)
                title = f"{jnp.dtype(dtype).name} batch {batch} {name}"
                if not all(word in title for word in words):
                    continue
                jitted = jax.jit(function, in_shardings=shardings, out_shardings=place)
                jitted.trace(*shapes).lower(lowering_platforms=("cuda",)).compile()
                programs = set(pathlib.Path(DUMPS).rglob("*.ptx")) - seen
                seen |= programs
                programs = {one for one in programs if ".entry" in one.read_text()}
                print(title, flush=True)
                every = [statistics(program) for program in sorted(programs)]
                for found in every:
                    print("   ", *(f"{key} {value}" for key, value in found.items()))
                if any(found["spilled"] for found in every):
                    failures.append(f"{title}: spills registers")
                wanted = promised(name, dtype)
                if wanted and not any(found[wanted] for found in every):
                    failures.append(f"{title}: no {wanted}")
    print("\n".join(failures) or "nothing spills, and all is where it was promised")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
