"""Where the windows of a convolution lie, and the zeros around an image."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Padding", "border", "borders"]

Side = str | int | Sequence[int]
Padding = Side | Sequence[Side]
"""As Flax has it: a name, or zeros: on all sides, or per axis, or per axis and side."""


def border(size: int, taps: int, stride: int, padding: Side) -> tuple[int, int]:
    """Zeros before and behind one axis.

    Args:
      size: pixels along the axis.
      taps: pixels of the kernel along it.
      stride: of the convolution.
      padding: "SAME" (as many outputs as ``ceil(size / stride)``, an odd zero behind),
        "VALID" (none), or zeros on both sides, or on each.

    Raises:
      ValueError: if the padding is none of these.

    Example:
      >>> border(8, 3, 2, "SAME"), border(8, 3, 2, 1)
      ((0, 1), (1, 1))
    """
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        zeros = max((-(-size // stride) - 1) * stride + taps - size, 0)
        return zeros // 2, zeros - zeros // 2
    if isinstance(padding, str):
        raise ValueError(
            f"padding is {padding!r}; it is 'SAME', 'VALID', or numbers of zeros"
        )
    if isinstance(padding, int):
        return padding, padding
    before, behind = padding
    return before, behind


def borders(
    sizes: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int],
    padding: Padding,
) -> tuple[tuple[int, int], ...]:
    """`border` of each axis; numbers of zeros may be given for all or for each.

    Example:
      >>> borders((8, 9), (3, 3), (2, 2), ((0, 1), 1))
      ((0, 1), (1, 1))
    """
    sides = (padding,) * len(sizes) if isinstance(padding, str | int) else padding
    each = zip(sizes, taps, strides, sides, strict=True)
    found = tuple(border(*one) for one in each)
    if min(map(min, found)) < 0:
        raise ValueError(f"padding is {padding!r}; numbers of zeros are not negative")
    return found
