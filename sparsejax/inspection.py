"""Numbers read from an optimizer state: counts, densities, exploration, turnover."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Integer, PyTree

from sparsejax.applying import masks_by_path
from sparsejax.layers import leaves_with_paths
from sparsejax.selection import exact_count
from sparsejax.state import Tracking, find_states, unpack_all

__all__ = ["counts", "densities", "exploration", "moves", "summary", "turnover"]


def counts(state: optax.OptState) -> dict[str, tuple[int, int]]:
    """Path -> (active weights, all weights) of every sparsified leaf, exactly.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.9)
      >>> sj.counts(tx.init({"kernel": jnp.ones((10, 30))}))
      {'kernel': (30, 300)}
    """
    return {
        path: (_count(mask), mask.size) for path, mask in masks_by_path(state).items()
    }


def densities(state: optax.OptState) -> dict[str, float]:
    """Path -> fraction of active weights of every sparsified leaf."""
    return {path: active / size for path, (active, size) in counts(state).items()}


def exploration(state: optax.OptState) -> dict[str, float]:
    """Path -> share of weights that were active at any time so far (ITOP's R_s).

    ``R_s = |union of all masks| / N`` (Liu et al., "Do We Actually Need Dense
    Over-Parameterization?", ICML 2021), the initial mask included.

    Raises:
      ValueError: the method was not built with ``track=True``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.75, track=True)
      >>> sj.exploration(tx.init({"kernel": jnp.ones((4, 4))}))
      {'kernel': 0.25}
    """
    found = {}
    for tracking in _trackings(state):
        for path, explored in leaves_with_paths(unpack_all(tracking.explored)):
            found[path] = _count(explored) / max(explored.size, 1)
    return found


def turnover(state: optax.OptState) -> dict[str, tuple[int, int]]:
    """Path -> (weights dropped, weights grown) by the last topology move.

    Raises:
      ValueError: the method was not built with ``track=True``.
    """
    found = {}
    for tracking in _trackings(state):
        grown = dict(leaves_with_paths(tracking.grown))
        for path, dropped in leaves_with_paths(tracking.dropped):
            found[path] = (_total(dropped), _total(grown[path]))
    return found


def moves(state: optax.OptState) -> int:
    """Topology moves made so far (of the busiest method, where there are several).

    Raises:
      ValueError: the method was not built with ``track=True``.
    """
    return max(int(jnp.max(tracking.moves)) for tracking in _trackings(state))


def summary(params: PyTree, state: optax.OptState) -> str:
    """A table of all parameters: shape, exact count, density, and cost per use.

    The last column counts the floating-point operations of one use of the weights, two
    per active weight (a multiplication and an addition); a convolution uses its kernel
    once per output pixel. `sparsejax.cost` counts whole networks.

    Args:
      params: the parameters.
      state: optimizer state with a sparsejax method in it.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> params = {"kernel": jnp.ones((10, 30)), "bias": jnp.ones(30)}
      >>> state = sj.static(optax.sgd(0.1), sparsity=0.9).init(params)
      >>> print(sj.summary(params, state))
      path    shape  masked  active  weights  density  FLOPs/use
      bias    30     no          30       30   1.0000          -
      kernel  10x30  yes         30      300   0.1000         60
      total                      60      330   0.1818
      masked                     30      300   0.1000
    """
    found = counts(state)
    rows = [
        ("path", "shape", "masked", "active", "weights", "density", "FLOPs/use"),
    ]
    active_total = size_total = 0
    for path, leaf in leaves_with_paths(params):
        active, size = found.get(path, (leaf.size, leaf.size))
        active_total, size_total = active_total + active, size_total + size
        shape = "x".join(str(n) for n in leaf.shape) or "scalar"
        masked = path in found
        cost = f"{2 * active:,}" if masked else "-"
        mark = "yes" if masked else "no"
        rows.append((path, shape, mark, *_figures(active, size), cost))
    masked_active = sum(active for active, _ in found.values())
    masked_size = sum(size for _, size in found.values())
    rows.append(("total", "", "", *_figures(active_total, size_total), ""))
    rows.append(("masked", "", "", *_figures(masked_active, masked_size), ""))
    return _table(rows)


def _figures(active: int, size: int) -> tuple[str, str, str]:
    return f"{active:,}", f"{size:,}", f"{active / max(size, 1):.4f}"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _trackings(state: optax.OptState) -> list[Tracking]:
    found = [one.tracking for one in find_states(state) if one.tracking is not None]
    if not found:
        raise ValueError(
            "the topology's history was not recorded; build the method with track=True"
        )
    return found


# On the device, wherever the array's parts are: a number is all that comes to the host.


def _count(marks: Bool[Array, "..."]) -> int:
    return _total(exact_count(marks, tuple(range(1, marks.ndim))))


def _total(counts: Integer[Array, "..."]) -> int:
    """Their sum, also where it has more than 32 bits."""
    counts = jnp.asarray(counts, jnp.uint32)
    # One after the other: simulated devices can deadlock in two sums at once.
    high = int(jnp.sum(counts >> 16))
    return (high << 16) + int(jnp.sum(counts & 0xFFFF))
