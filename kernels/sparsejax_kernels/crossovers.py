"""Up to which density a compressed product beats the dense one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["crossover", "limits"]


def crossover(faster: Callable[[float], bool], densities: Sequence[float]) -> float:
    """The largest of ascending densities at which compressed is faster, by bisection.

    Args:
      faster: whether it is at a density; if it is, it is at all smaller ones.
      densities: ascending.

    Returns:
      The density, 0 if it is faster at none.

    Example:
      >>> crossover(lambda density: density < 0.3, [0.1, 0.2, 0.3, 0.4])
      0.2
    """
    low, high = 0, len(densities)
    while low < high:
        middle = (low + high) // 2
        if faster(densities[middle]):
            low = middle + 1
        else:
            high = middle
    return densities[low - 1] if low else 0.0


def limits(
    kinds: Sequence[str],
    measure: Callable[[str, int, tuple[int, int], float], float],
    batches: Sequence[int],
    shape: tuple[int, int],
    seconds: float,
) -> dict[str, list[tuple[int | None, float]]]:
    """The crossovers of formats at ascending batches, printed as they are found."""
    print("largest density (%) at which the compressed product beats the dense one")
    print(f"{'batch':<10}" + "".join(f"{batch:>7}" for batch in batches))
    every = {}
    for kind in kinds:
        print(f"{kind:<10}", end="", flush=True)
        found = []
        for batch in batches:
            density = measure(kind, batch, shape, seconds)
            print(f"{100 * density:>7.3g}", end="", flush=True)
            found.append((batch, density))
        print()
        # A batch between two is treated as the larger one, one beyond as the largest.
        every[kind] = [*found[:-1], (None, found[-1][1])]
    return every
