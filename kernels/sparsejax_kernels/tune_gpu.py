"""What `sparsejax_kernels.tune` measures on a GPU: tiles, then limits of density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax_kernels import matmul
from sparsejax_kernels.crossovers import crossover, limits
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
from sparsejax_kernels.tiles import CANDIDATES, Tiles, trying
from sparsejax_kernels.timing import interleaved

__all__ = ["measured"]

IMPLEMENTATION = "pallas_gpu"
HALF = "bfloat16"
TOLERANCE = 0.02
"""Of bfloat16, whose numbers have 8 bits, relative to the largest result."""
DENSITIES = {
    "FanIn": (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3),
    "NM": (1 / 16, 1 / 8, 1 / 4, 1 / 2),
    "TwoFour": (1 / 2,),
    "Block": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
}
KINDS = {"fan_in_matmul": "FanIn", "n_m_matmul": "NM", "block_matmul": "Block"}


def measured(
    batches: Sequence[int], shape: tuple[int, int], seconds: float
) -> dict[str, Any]:
    """Tiles of each operation and limits of each format, all in bfloat16.

    A kernel that is wrong on this device never gets a limit above zero.
    """
    best = {}
    print("fastest tiles (longest side, warps)")
    for operation in CANDIDATES:
        one = best[operation, HALF] = _fastest(operation, shape, seconds)
        print(f"{operation:<16} {one.side:>5} {one.warps:>3}", flush=True)
    with trying(best):
        every = limits(tuple(DENSITIES), _measure, batches, shape, seconds)
    return {
        "tiles": {" ".join(key): each for key, each in best.items()},
        "limits": every,
    }


def _weight(kind: str, shape: tuple[int, int], density: float) -> Any:
    if kind == "FanIn":
        return random_fan_in(shape, density)
    if kind == "NM":
        m = round(1 / density)
        return random_n_m(shape, *((2, 4) if m == 2 else (1, m)))
    if kind == "TwoFour":
        return random_two_four(shape)
    return random_blocks(shape, density)


def _activations(batch: int, inputs: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (batch, inputs), jnp.bfloat16)


def _product(x, w):
    return matmul(x, w, implementation=IMPLEMENTATION)


def _fastest(operation: str, shape: tuple[int, int], seconds: float) -> Tiles:
    """Of the candidates that compile, the one with the least time at batch 16."""
    kind = KINDS[operation]
    w = _weight(kind, shape, 0.5 if kind == "NM" else 0.1)
    x = _activations(16, shape[0])
    runs, count = {}, 1
    for candidate in CANDIDATES[operation]:
        run, count = rotating(w, x, _product)
        try:
            with trying({(operation, HALF): candidate}):
                run()
        except Exception as reason:  # Which one it is depends on the compiler.
            print(f"{operation}: {candidate} does not run: {str(reason)[:80]}")
            continue
        runs[candidate] = run
    if not runs:
        raise SystemExit(f"no kernel of {operation} runs on this device")
    times = interleaved({str(each): run for each, run in runs.items()}, seconds=seconds)
    return min(runs, key=lambda each: per_product(times[str(each)].p10, count))


def _measure(kind: str, batch: int, shape: tuple[int, int], seconds: float) -> float:
    x = _activations(batch, shape[0])
    wrong = error(
        _weight(kind, shape, DENSITIES[kind][-1]),
        x,
        implementation=IMPLEMENTATION,
        gradients=True,
    )
    if not wrong <= TOLERANCE:
        print(f"\n{kind} at batch {batch} is wrong by {wrong:.3g}: not to be used")
        return 0.0
    dense, dense_count = rotating(dense_weight(shape), x, jnp.dot)

    def faster(density: float) -> bool:
        ours, count = rotating(_weight(kind, shape, density), x, _product)
        times = interleaved({"ours": ours, "dense": dense}, seconds=seconds)
        mine = per_product(times["ours"].p10, count)
        return mine < per_product(times["dense"].p10, dense_count)

    return crossover(faster, DENSITIES[kind])
