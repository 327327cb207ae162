"""Finds where compressed beats dense on this machine: ``-m sparsejax_kernels.tune``.

For each format and batch the largest density is searched at which the compressed
product is the faster one; on a GPU in bfloat16, and after the fastest tiles of each
kernel, which runs by itself only where this has shown that it is right and faster.
`sparsejax_kernels.explain`, `largest_density`, products whose implementation is left
open, and ``sparsejax.compress(..., batch=...)`` go by what it stores.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

import jax

from sparsejax_kernels import native, tune_gpu
from sparsejax_kernels.bench import (
    BLOCK,
    DENSE,
    FORWARD,
    N_M,
    OURS,
    contenders,
    random_blocks,
    random_fan_in,
    random_n_m,
)
from sparsejax_kernels.choosing import cache_file, machine
from sparsejax_kernels.crossovers import crossover, limits
from sparsejax_kernels.timing import interleaved

__all__ = ["main"]

KINDS = ("FanIn", "Packed", "Block")
BATCHES = (1, 8, 64, 256)
THIRTY_SECONDS = tuple(n / 32 for n in range(1, 32))
"""Densities to look at: those that N:32 can have."""


def measure(kind: str, batch: int, shape: tuple[int, int], seconds: float) -> float:
    """The crossover of a format at a batch, by dense and compressed taking turns."""
    inputs, outputs = shape

    def faster(density: float) -> bool:
        if kind == "FanIn":
            w, op = random_fan_in(inputs, outputs, 1 - density), FORWARD
        elif kind == "Block":
            w, op = random_blocks(inputs, outputs, 1 - density), BLOCK
        else:
            w, op = random_n_m(inputs, outputs, round(32 * density), 32), N_M
        runs = contenders(w, batch, op, packs=False)
        times = interleaved(
            {name: runs[name] for name in (DENSE, OURS)}, seconds=seconds
        )
        return times[OURS].p10 < times[DENSE].p10

    return crossover(faster, THIRTY_SECONDS)


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a table and stores it."""
    parser = argparse.ArgumentParser(
        prog="python -m sparsejax_kernels.tune", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="per contender")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--shape", type=int, nargs=2, default=(3072, 768))
    parser.add_argument(
        "--file", type=pathlib.Path, default=cache_file(), help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    backend = jax.default_backend()
    if backend == "cpu" and (reason := native.why_not()) is not None:
        raise SystemExit(f"there is nothing to measure: {reason}")
    if backend not in ("cpu", "gpu"):
        raise SystemExit(f"nothing can be measured yet on a {backend.upper()}")
    if min(options.batches) < 1 or options.shape[0] % 32:
        raise SystemExit(
            f"--batches {options.batches} --shape {options.shape}: batches are 1 or "
            "more, and the inputs a multiple of 32"
        )
    batches = sorted({*options.batches})
    inputs, outputs = options.shape
    # A file that cannot be written is to be known of before the work, not after it.
    options.file.parent.mkdir(parents=True, exist_ok=True)
    shape = (inputs, outputs)
    if backend == "gpu":
        found = tune_gpu.measured(batches, shape, options.seconds)
    else:
        found = {"limits": limits(KINDS, measure, batches, shape, options.seconds)}
    partial = options.file.with_name(f"{options.file.name}.partial")
    partial.write_text(json.dumps({"machine": machine(), **found}, indent=1))
    os.replace(partial, options.file)
    print(f"stored in {options.file}")


if __name__ == "__main__":
    main()
