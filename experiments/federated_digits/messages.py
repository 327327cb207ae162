"""What server and clients send each other, as bytes: values, and where they belong.

A masked leaf is sent as its values and the cheapest of three descriptions of the mask:
nothing (the receiver knows it), one bit per weight, or one index per value.
"""

import struct
from typing import Any

import numpy as np

DENSE, KNOWN, BITS, INDICES = range(4)

Leaves = dict[str, np.ndarray]
"""Path -> array."""


def encode(values: Leaves, masks: Leaves, known: Leaves) -> bytes:
    """Writes a message.

    Args:
      values: float32 parameters.
      masks: of those that are sparse; a value outside is not sent.
      known: the masks that the receiver has from before.

    Returns:
      For each leaf, in the order of the paths, a byte that tells how it is written, the
      description of the mask, and the values.
    """
    parts = []
    for path in sorted(values):
        value = np.ascontiguousarray(values[path], np.float32)
        if path not in masks:
            parts += [bytes([DENSE]), value.tobytes()]
            continue
        mask = masks[path].ravel()
        if path in known and np.array_equal(mask, known[path].ravel()):
            kind, description = KNOWN, b""
        else:
            kind, description = _described(mask)
        parts += [bytes([kind]), description, value.ravel()[mask].tobytes()]
    return b"".join(parts)


def _described(mask: np.ndarray) -> tuple[int, bytes]:
    bits = np.packbits(mask).tobytes()
    places = np.flatnonzero(mask).astype(_index_type(mask.size))
    indices = struct.pack("<I", places.size) + places.tobytes()
    return (BITS, bits) if len(bits) <= len(indices) else (INDICES, indices)


def _index_type(size: int) -> Any:
    return np.dtype("<u2") if size <= 2**16 else np.dtype("<u4")


def decode(
    message: bytes, shapes: dict[str, tuple[int, ...]], known: Leaves
) -> tuple[Leaves, Leaves]:
    """Reads a message.

    Args:
      message: as `encode` wrote it.
      shapes: path -> shape of every parameter.
      known: the masks that the sender supposed to be known.

    Returns:
      The parameters, zero outside their masks; and the masks.
    """
    values, masks, place = {}, {}, 0

    def take(kind: Any, count: int) -> np.ndarray:
        nonlocal place
        kind = np.dtype(kind)
        found = np.frombuffer(message, kind, count, place)
        place += count * kind.itemsize
        return found

    for path in sorted(shapes):
        size = int(np.prod(shapes[path]))
        [how] = take(np.uint8, 1)
        value = np.zeros(size, np.float32)
        mask = np.ones(size, bool)
        if how == KNOWN:
            mask = known[path].ravel()
        elif how == BITS:
            mask = np.unpackbits(take(np.uint8, -(-size // 8)), count=size).astype(bool)
        elif how == INDICES:
            [count] = take("<u4", 1)
            mask = np.zeros(size, bool)
            mask[take(_index_type(size), int(count))] = True
        value[mask] = take("<f4", int(mask.sum()))
        values[path] = value.reshape(shapes[path])
        if how != DENSE:
            masks[path] = mask.reshape(shapes[path])
    return values, masks
