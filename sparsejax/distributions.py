"""Distributions: how many weights each layer keeps, as exact integers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from sparsejax.checks import check_sparsity
from sparsejax.layers import Layer, check_pattern

__all__ = ["Budget", "Distribution", "budget_of", "er", "erk", "per_path", "uniform"]

Budget = tuple[int, ...]
"""Weights kept in each of the layers stacked in a leaf (one entry if not stacked)."""

Distribution = Callable[[Sequence[Layer], float], list[Budget]]
"""Maps layers and a total sparsity to one `Budget` per layer."""


def budget_of(size: int, sparsity: float) -> int:
    """Weights kept of ``size`` at ``sparsity``: rounded half to even, exactly.

    The sparsity is read as the decimal that was written, so that 0.9 of 10 leaves 1.

    Example:
      >>> budget_of(10, 0.9), budget_of(30, 0.8), budget_of(1000, 0.9)
      (1, 6, 100)
    """
    return round(size * (1 - Fraction(str(sparsity))))


def uniform(
    *,
    dense: Sequence[str] = (),
    preserve_total: bool = False,
    custom: Mapping[str, float] | None = None,
) -> Distribution:
    """Every layer gets the same sparsity.

    Args:
      dense: path patterns of layers that stay dense (RigL keeps the first convolution).
      preserve_total: make the other layers sparser so that the sparsity over *all*
        layers is the one asked for (as SRigL does).
      custom: path pattern -> sparsity of these layers, left out of everything else.
    """

    def distribute(layers: Sequence[Layer], sparsity: float) -> list[Budget]:
        _check_patterns("dense", dense, layers)
        kept_dense = [_matches(dense, layer) for layer in layers]
        budgets = [
            _slice_size(layer) if is_dense else budget_of(_slice_size(layer), sparsity)
            for layer, is_dense in zip(layers, kept_dense, strict=True)
        ]
        if preserve_total and any(kept_dense):
            sparse = [i for i, is_dense in enumerate(kept_dense) if not is_dense]
            total = budget_of(sum(layer.size for layer in layers), sparsity)
            left = total - sum(
                layer.size for layer, d in zip(layers, kept_dense, strict=True) if d
            )
            size = sum(layers[i].size for i in sparse)
            if left < len(sparse):
                raise ValueError(
                    f"sparsity={sparsity}: the dense layers alone exceed the total of "
                    f"{total} weights; lower the sparsity or name fewer `dense` layers"
                )
            for i in sparse:
                budgets[i] = round(Fraction(_slice_size(layers[i]) * left, size))
        return _stack(layers, budgets, sparsity)

    return _with_custom(distribute, custom)


def er(*, custom: Mapping[str, float] | None = None) -> Distribution:
    """Erdos-Renyi: density proportional to ``(n_in + n_out) / (n_in n_out)``.

    Mocanu et al. (2018). Layers whose density would exceed 1 are kept dense and the
    rest is scaled again; the total over all layers is exact.

    Args:
      custom: path pattern -> sparsity of these layers, left out of everything else.
    """

    def score(layer: Layer) -> Fraction:
        return Fraction(layer.fan_in + layer.fan_out, layer.fan_in * layer.fan_out)

    return _with_custom(_proportional(score), custom)


def erk(
    *, power: float = 1.0, custom: Mapping[str, float] | None = None
) -> Distribution:
    """Erdos-Renyi-Kernel: density as ``(sum(shape) / prod(shape))**power``.

    Evci et al. (2020): larger layers and kernels get sparser. Layers whose density
    would exceed 1 are kept dense and the rest is scaled again; the total over all
    layers is exactly ``round(N (1 - sparsity))``.

    Args:
      power: 1 in the paper; 0 is uniform.
      custom: path pattern -> sparsity of these layers, left out of everything else.

    Example:
      >>> from sparsejax.layers import flax, Layer
      >>> shapes = {"a": (10, 20), "b": (100, 50)}
      >>> layers = [Layer(p, s, flax()(p, s)) for p, s in shapes.items()]
      >>> erk()(layers, 0.9)
      [(87,), (433,)]
    """

    def score(layer: Layer) -> Fraction:
        shape = layer.slice_shape
        ratio = Fraction(sum(shape), math.prod(shape))
        return ratio if power == 1 else Fraction(float(ratio) ** power)

    return _with_custom(_proportional(score), custom)


def per_path(
    sparsities: Mapping[str, float], *, rest: Distribution | None = None
) -> Distribution:
    """Named layers get their own sparsity; the others follow ``rest``.

    Args:
      sparsities: regular expression over paths -> sparsity; the first match wins.
      rest: distribution of the method's sparsity over the other layers; default
        `erk`.

    Example:
      >>> from sparsejax.layers import flax, Layer
      >>> shapes = {"body/kernel": (10, 10), "head/kernel": (10, 10)}
      >>> layers = [Layer(p, s, flax()(p, s)) for p, s in shapes.items()]
      >>> per_path({"head": 0.5})(layers, 0.9)
      [(10,), (50,)]
    """
    check_sparsity("sparsities", dict(sparsities))
    return _with_custom(rest or erk(), sparsities)


def _proportional(score: Callable[[Layer], Fraction]) -> Distribution:
    def distribute(layers: Sequence[Layer], sparsity: float) -> list[Budget]:
        scores = [score(layer) for layer in layers]
        total = budget_of(sum(layer.size for layer in layers), sparsity)
        dense = [False] * len(layers)
        epsilon = Fraction(0)
        while not all(dense):
            free = [i for i, is_dense in enumerate(dense) if not is_dense]
            left = total - sum(
                layer.size for layer, d in zip(layers, dense, strict=True) if d
            )
            epsilon = Fraction(left) / sum(scores[i] * layers[i].size for i in free)
            largest = max(scores[i] for i in free)
            if epsilon * largest <= 1:
                break
            for i in free:
                dense[i] = scores[i] == largest
        exact = [
            Fraction(_slice_size(layer))
            if is_dense
            else epsilon * scores[i] * _slice_size(layer)
            for i, (layer, is_dense) in enumerate(zip(layers, dense, strict=True))
        ]
        return _check_counts(layers, _round_to_total(layers, exact, total), sparsity)

    return distribute


def _round_to_total(
    layers: Sequence[Layer], exact: Sequence[Fraction], total: int
) -> list[Budget]:
    """Largest-remainder rounding of every stacked layer's share to an exact total."""
    entries = [(i, j) for i, layer in enumerate(layers) for j in range(layer.slices)]
    counts = {(i, j): math.floor(exact[i]) for i, j in entries}
    missing = total - sum(counts.values())
    by_remainder = sorted(entries, key=lambda e: counts[e] - exact[e[0]])
    for entry in by_remainder[: max(missing, 0)]:
        counts[entry] += 1
    return [
        tuple(counts[i, j] for j in range(layer.slices))
        for i, layer in enumerate(layers)
    ]


def _with_custom(
    distribution: Distribution, custom: Mapping[str, float] | None
) -> Distribution:
    if not custom:
        return distribution
    check_sparsity("custom", dict(custom))

    def distribute(layers: Sequence[Layer], sparsity: float) -> list[Budget]:
        _check_patterns("custom", list(custom), layers)
        own = [_first_match(custom, layer) for layer in layers]
        others = [layer for layer, one in zip(layers, own, strict=True) if one is None]
        rest = iter(distribution(others, sparsity) if others else [])
        return [
            next(rest) if one is None else _stack_one(layer, one)
            for layer, one in zip(layers, own, strict=True)
        ]

    return distribute


def _stack_one(layer: Layer, sparsity: float) -> Budget:
    return _stack([layer], [budget_of(_slice_size(layer), sparsity)], sparsity)[0]


def _stack(layers, budgets, sparsity) -> list[Budget]:
    stacked = [
        (count,) * layer.slices for layer, count in zip(layers, budgets, strict=True)
    ]
    return _check_counts(layers, stacked, sparsity)


def _check_counts(
    layers: Sequence[Layer], budgets: list[Budget], sparsity: float
) -> list[Budget]:
    for layer, budget in zip(layers, budgets, strict=True):
        if min(budget) < 1:
            raise ValueError(
                f"sparsity={sparsity} leaves {layer.path} (shape {layer.shape}) "
                "without a single weight; lower the sparsity, leave the layer out of "
                "`where`, or give it its own sparsity with the distribution's `custom`"
            )
    return budgets


def _slice_size(layer: Layer) -> int:
    return layer.size // layer.slices


def _matches(patterns: Sequence[str], layer: Layer) -> bool:
    return any(re.search(pattern, layer.path) for pattern in patterns)


def _first_match(custom: Mapping[str, float], layer: Layer) -> float | None:
    for pattern, sparsity in custom.items():
        if re.search(pattern, layer.path):
            return sparsity
    return None


def _check_patterns(name: str, patterns: Sequence[str], layers: Sequence[Layer]):
    for pattern in patterns:
        check_pattern(name, pattern, [layer.path for layer in layers])
