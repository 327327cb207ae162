"""Dataclasses that are pytrees: arrays are children, the rest is static."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

__all__ = ["CompressedWeight", "check_range", "compressed", "concrete", "index_dtype"]

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True)
def compressed(*static: str) -> Callable[[Class], Class]:
    """Makes a class a frozen dataclass and a pytree; ``static`` fields are no children.

    Rebuilding a pytree does not validate: transformations put tracers, shapes and
    arbitrary objects into the fields.

    Args:
      *static: names of the fields that are part of the tree's structure.

    Example:
      >>> import jax
      >>> @compressed("size")
      ... class Pair:
      ...     values: jax.Array
      ...     size: int
      >>> jax.tree.map(lambda x: x + 1, Pair(1, 2))
      Pair(values=2, size=2)
    """

    def register(cls: Class) -> Class:
        cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        children = [name for name in names if name not in static]

        keys = tuple(map(jax.tree_util.GetAttrKey, children))

        # At every call of a jitted function: in time that small layers notice.
        def flatten(self):
            fields = self.__dict__
            return [fields[name] for name in children], tuple(
                [fields[name] for name in static]
            )

        def flatten_with_keys(self):
            leaves, values = flatten(self)
            return tuple(zip(keys, leaves, strict=True)), values

        def unflatten(values, leaves):
            self = object.__new__(cls)
            for name, value in zip(static, values, strict=True):
                object.__setattr__(self, name, value)
            for name, value in zip(children, leaves, strict=True):
                object.__setattr__(self, name, value)
            return self

        jax.tree_util.register_pytree_with_keys(
            cls, flatten_with_keys, unflatten, flatten
        )
        return cls

    return register


class CompressedWeight:
    """What every format tells about itself.

    Attributes:
      values: the weights, the first child of the pytree.
      shape: of the dense weight, ``(in, out)``.
      count: number of kept weights, padding left out.
    """

    values: Array
    shape: Any
    count: Any

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def density(self) -> Float[Array, ""]:
        """Kept weights over all weights of the dense layer."""
        return self.count.astype(jnp.float32) / math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, padding and transposed indices included."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def concrete(array: Any) -> bool:
    """Whether the numbers of an array can be looked at now."""
    if isinstance(array, np.ndarray):
        return True
    traced = isinstance(array, Tracer)
    return isinstance(array, jax.Array) and not traced and array.is_fully_addressable


def index_dtype(largest: int) -> np.dtype:
    """The smallest of uint8, uint16 and int32 that holds a number.

    Example:
      >>> index_dtype(255), index_dtype(256)
      (dtype('uint8'), dtype('uint16'))
    """
    for dtype in (np.uint8, np.uint16, np.int32):
        if largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise ValueError(f"an index up to {largest} does not fit int32; split the layer")


def check_range(
    owner: str,
    field: str,
    array: Any,
    largest: int,
    builder: str = "fromdense(weights, mask)",
) -> None:
    """Raises where a concrete integer array leaves 0 to ``largest``.

    Raises:
      ValueError: naming the field, the value and where it stands.
    """
    if not concrete(array) or array.size == 0:
        return
    numbers = np.asarray(array)
    wrong = (numbers < 0) | (numbers > largest)
    if wrong.any():
        place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise ValueError(
            f"{owner}.{field}{list(place)} is {numbers[place]}, outside of 0 to "
            f"{largest}; build it by `{owner}.{builder}`"
        )
