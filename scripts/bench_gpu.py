"""The kernels for GPUs: right, and how fast beside dense products.

On a machine with an NVIDIA GPU, from the root of the checkout, with
`pip install -e ".[cuda]"`:

    python -m sparsejax_kernels.tune        # the fastest tiles of this device
    python scripts/bench_gpu.py --markdown docs/gpu.md --json gpu.json

Every kernel is first compared with float64, forward and both gradients. Then each
product takes turns with ``jnp.dot`` in bfloat16 (float32 where it says so); a program
holds so many products, each with a weight of its own, that no cache holds them all.
Without a GPU nothing is timed, and the table says "not measured"; ``--check`` compares
with float64 all the same, on small weights and interpreted.
"""

import argparse
import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from sparsejax_kernels import matmul
from sparsejax_kernels.rotating import (
    dense_weight,
    error,
    per_product,
    random_blocks,
    random_fan_in,
    random_n_m,
    random_two_four,
    rotating,
)
from sparsejax_kernels.timing import interleaved

IMPLEMENTATION = "pallas_gpu"
TOLERANCE = 0.02
SQUARE, WIDE = (4096, 4096), (8192, 28672)
SMALL = (256, 128)
PUBLISHED = (3072, 768)
NOT_MEASURED = "not measured"

FORMATS = {
    "fan-in 90 %": lambda shape: random_fan_in(shape, 0.1),
    "fan-in 95 %": lambda shape: random_fan_in(shape, 0.05),
    "fan-in 99 %": lambda shape: random_fan_in(shape, 0.01),
    "2:4, decompressed in registers": lambda shape: random_n_m(shape, 2, 4),
    "2:4, sparse tensor cores": random_two_four,
    "blocks of 128x64, 90 %": lambda shape: random_blocks(shape, 0.1),
}
BATCHES = {"fan-in": (1, 16, 256), "2:4": (1, 16, 256), "blocks": (256, 1024)}


def cases():
    """Format, shape and batch of every line of the table."""
    for name in FORMATS:
        family = name.split(" ")[0].rstrip(",")
        for shape in (SQUARE, WIDE):
            for batch in BATCHES[family]:
                yield name, shape, batch


def activations(batch, inputs, dtype=jnp.bfloat16):
    return jax.random.normal(jax.random.key(0), (batch, inputs), dtype)


def check(shape):
    """Prints how far every kernel is from float64; returns what is too far."""
    wrong = []
    for name, build in FORMATS.items():
        for batch in (1, 17, 256):
            x = activations(batch, shape[0])
            deviation = error(
                build(shape), x, implementation=IMPLEMENTATION, gradients=True
            )
            print(f"{name:<32} batch {batch:>4}: {deviation:.2e} from float64")
            if not deviation <= TOLERANCE:
                wrong.append(f"{name} at batch {batch}: {deviation:.2e}")
    return wrong


def compare(weights, x, seconds):
    """Median and p10 in microseconds of each contender: name -> (weight, product)."""
    runs, counts = {}, {}
    for name, (w, product) in weights.items():
        runs[name], counts[name] = rotating(w, x, product)
    times = interleaved(runs, seconds=seconds)
    return {
        name: (
            per_product(one.median, counts[name]),
            per_product(one.p10, counts[name]),
        )
        for name, one in times.items()
    }


def ours(x, w):
    return matmul(x, w, implementation=IMPLEMENTATION)


def measure(seconds):
    """A row for each case, and those of the comparison that SRigL published."""
    for name, shape, batch in cases():
        contenders = {
            "ours": (FORMATS[name](shape), ours),
            "dense": (dense_weight(shape), jnp.dot),
        }
        times = compare(contenders, activations(batch, shape[0]), seconds)
        yield row(name, shape, batch, "dense bfloat16", times["ours"], times["dense"])
    w = random_fan_in(PUBLISHED, 0.1)
    w = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, w
    )
    dense = w.todense()
    csr = BCSR.fromdense(np.asarray(dense).T)
    contenders = {
        "ours": (w, ours),
        "dense float32": (dense, jnp.dot),
        "CSR": (csr, lambda x, w: (w @ x.T).T),
    }
    times = compare(contenders, activations(256, PUBLISHED[0], jnp.float32), seconds)
    for other in ("dense float32", "CSR"):
        yield row(
            "fan-in 90 %, float32", PUBLISHED, 256, other, times["ours"], times[other]
        )


def row(name, shape, batch, other, mine, theirs):
    return {
        "kernel": name,
        "shape": f"{shape[0]}x{shape[1]}",
        "batch": batch,
        "against": other,
        "median_us": mine[0],
        "p10_us": mine[1],
        "against_median_us": theirs[0],
        "against_p10_us": theirs[1],
        "speed_up": theirs[1] / mine[1],
    }


def unmeasured():
    """The same rows without a number."""
    for name, shape, batch in cases():
        yield name, f"{shape[0]}x{shape[1]}", batch, "dense bfloat16"
    for other in ("dense float32", "CSR"):
        yield "fan-in 90 %, float32", "x".join(map(str, PUBLISHED)), 256, other


def markdown(rows, device):
    """The table of a measurement, or one that says that there was none."""
    lines = [
        "# Speed on GPUs",
        "",
        f"Device: {device}; jax {jax.__version__}. By `python scripts/bench_gpu.py`:",
        "each product takes turns with its contender in one run, weights together are",
        "larger than the second-level cache, times are the 10th percentile.",
        "",
        "| kernel | shape | batch | us | against | us | speed-up |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    if rows is None:
        for name, shape, batch, other in unmeasured():
            cells = (NOT_MEASURED, other, NOT_MEASURED, NOT_MEASURED)
            lines.append(f"| {name} | {shape} | {batch} | {' | '.join(cells)} |")
    else:
        for one in rows:
            lines.append(
                f"| {one['kernel']} | {one['shape']} | {one['batch']} "
                f"| {one['p10_us']:.1f} | {one['against']} "
                f"| {one['against_p10_us']:.1f} | {one['speed_up']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, time nothing")
    parser.add_argument("--seconds", type=float, default=0.5, help="per contender")
    parser.add_argument("--markdown", type=pathlib.Path, help="file for the table")
    parser.add_argument("--json", type=pathlib.Path, help="file for all numbers")
    options = parser.parse_args()
    gpu = jax.default_backend() == "gpu"
    if not gpu:
        os.environ["SPARSEJAX_KERNELS_INTERPRET"] = "1"
    device = jax.devices()[0].device_kind if gpu else "none was at hand"
    wrong = check(PUBLISHED if gpu else SMALL) if gpu or options.check else []
    if wrong:
        sys.exit("wrong: " + "; ".join(wrong))
    rows = None
    if gpu and not options.check:
        rows = []
        for one in measure(options.seconds):
            rows.append(one)
            print(
                f"{one['kernel']:<32} {one['shape']:>10} batch {one['batch']:>4}: "
                f"{one['p10_us']:>8.1f} us, {one['speed_up']:.2f}x {one['against']}",
                flush=True,
            )
    if options.json is not None:
        measured = {"device": device, "jax": jax.__version__, "rows": rows}
        options.json.write_text(json.dumps(measured, indent=1))
    if options.markdown is not None:
        options.markdown.write_text(markdown(rows, device))
    if not gpu:
        print("no GPU is here, so no speed was measured")


if __name__ == "__main__":
    main()
