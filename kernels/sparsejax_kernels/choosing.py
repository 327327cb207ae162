"""When a compressed weight pays, by format, density and batch; and saying so."""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
import platform
import warnings
from typing import Any

import jax

from sparsejax_kernels import native

__all__ = [
    "cache_file",
    "explain",
    "largest_density",
    "machine",
    "measured_on_gpu",
    "measured_tiles",
    "pays_to_pack",
]

Limits = tuple[tuple[float, float], ...]

DEFAULTS: dict[str, Limits] = {
    "FanIn": ((1, 0.41), (8, 0.63), (64, 0.53), (math.inf, 0.44)),
    "Packed": ((1, 0.97), (8, 0.97), (64, 0.72), (math.inf, 0.59)),
    "Block": ((1, 0.72), (math.inf, 0.97)),
}
"""Format -> (batch up to, density up to) where the native product beats XLA's dense.

Measured by ``python -m sparsejax_kernels.tune`` on two cores of an AMD EPYC with
AVX-512, float32; the smaller value of 3072x768 and 768x3072. At these densities both
take about as long; below them the compressed product is the faster one. What holds for
N:32 weights, packed, holds for any where `pays_to_pack` says so.
"""
FALLBACK: dict[str, Limits] = dict.fromkeys(DEFAULTS, ((1, 0.1), (math.inf, 0.0)))
"""The same without native kernels: gathering at batch 1 is all that pays."""
ON_GPU: dict[str, Limits] = dict.fromkeys(
    ("FanIn", "NM", "TwoFour", "Block"), ((math.inf, 0.0),)
)
"""The same for kernels in Pallas: none was measured yet, so none is chosen."""
READ_AS = {"NM": "FanIn", "TwoFour": "FanIn"}
"""Formats that are multiplied as another one is, on CPUs."""
READ_AS_ON_GPU = {"Packed": "FanIn"}


LARGEST_PACKED_BATCH = 4
LARGEST_PACKED_BYTES = 10_000_000
"""Up to them weights without a pattern are faster packed, 1.3 to 2.6 times at batch 1.

Measured on Zen 4 with a third-level cache of 32 MB: when more has to come from memory
than it keeps, the fewer bytes of a fan-in weight are the faster ones, 1.1 to 1.3 times.
"""


def pays_to_pack(batch: int, nbytes: int) -> bool:
    """Whether `Packed.from_fan_in` makes products with fan-in weights faster here.

    It does on CPUs with AVX-512, for batches up to 4, if the weights stay in caches.

    Args:
      batch: rows of x that are multiplied at once.
      nbytes: of all weights that are read until the same one is read again.

    Example:
      >>> pays_to_pack(256, 1_000_000), pays_to_pack(1, 100_000_000)
      (False, False)
    """
    small = batch <= LARGEST_PACKED_BATCH and nbytes <= LARGEST_PACKED_BYTES
    return small and _runs() and native.has_avx512()


def largest_density(batch: int, kind: str = "FanIn") -> float:
    """The density up to which a compressed product is faster than a dense one here.

    It was measured on this machine if ``python -m sparsejax_kernels.tune`` has run on
    it, else on another one.

    Args:
      batch: rows of x that are multiplied at once.
      kind: name of the weight's format, such as "FanIn", "NM" or "Block".

    Raises:
      ValueError: if ``batch`` is not positive, or no format has this name.

    Example:
      >>> 0 <= largest_density(256) < 1
      True
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; it is a number of rows, at least 1")
    limits, _ = _limits()
    read_as = READ_AS_ON_GPU if jax.default_backend() == "gpu" else READ_AS
    name = read_as.get(kind, kind)
    if name not in limits:
        names = ", ".join((*limits, *read_as))
        raise ValueError(f"kind is {kind!r}; it is one of {names}")
    return next(density for most, density in limits[name] if batch <= most)


def explain(w: Any, batch: int) -> str:
    """Which product a compressed weight would run on, and why.

    Args:
      w: a compressed weight of any format, not traced.
      batch: rows of x that are multiplied at once.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax_kernels import FanIn
      >>> mask = jnp.arange(400).reshape(20, 20) % 10 == 0
      >>> print(explain(FanIn.fromdense(mask * 1.0, mask), batch=64).split(":")[0])
      FanIn 20x20, 10 % dense, batch 64
    """
    inputs, outputs = w.shape
    kind = type(w).__name__
    read = w.values.nbytes + w.indices.nbytes if kind == "FanIn" else w.nbytes
    packs = pays_to_pack(batch, read)
    to_be_packed = kind == "FanIn" and packs
    if to_be_packed:
        limit = largest_density(batch, "Packed")
    elif kind == "Packed" and w.depth and not packs:
        # Without a pattern it is no faster than it was unpacked.
        limit = largest_density(batch, "FanIn")
    else:
        limit = largest_density(batch, kind)
    density = float(w.density)
    what = f"{kind} {inputs}x{outputs}, {100 * density:.3g} % dense, batch {batch}"
    if measured_on_gpu(w, batch):
        how = "the kernel in Pallas"
    elif _runs():
        how = "the native CPU kernel"
    else:
        how = f"XLA's own operations instead of a native kernel ({_why_not()})"
    _, source = _limits()
    if density <= limit:
        packed = (
            f" packed, as by sparsejax.compress(..., batch={batch}), it is"
            if to_be_packed
            else ""
        )
        return (
            f"{what}: {how};{packed} faster than dense up to {100 * limit:g} % at this "
            f"batch ({source})"
        )
    return (
        f"{what}: {how}; but a dense weight is faster above {100 * limit:g} % at this "
        f"batch ({source}); keep the layer dense (sparsejax.compress(..., batch=...) "
        "does)"
    )


def measured_on_gpu(w: Any, batch: int) -> bool:
    """Whether this is a GPU whose kernel was measured to beat dense for this weight.

    It goes by the room that the weight has, which is known while a program is traced.
    """
    if jax.default_backend() != "gpu":
        return False
    room = w.values.size / math.prod(w.shape)
    return room <= largest_density(batch, type(w).__name__)


def measured_tiles() -> dict[str, tuple[int, int]]:
    """Operation and type to the fastest tiles that were measured on this GPU."""
    stored = _stored() if jax.default_backend() == "gpu" else None
    found = {} if stored is None else stored.get("tiles", {})
    return {key: (side, warps) for key, (side, warps) in found.items()}


def cache_file() -> pathlib.Path:
    """Where `sparsejax_kernels.tune` keeps what it measured.

    ``$XDG_CACHE_HOME/sparsejax/kernels.json``, by default below ``~/.cache``; for a GPU
    ``kernels_gpu.json``.
    """
    folder = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    name = "kernels_gpu.json" if jax.default_backend() == "gpu" else "kernels.json"
    return pathlib.Path(folder) / "sparsejax" / name


def machine() -> dict[str, Any]:
    """What a measurement holds for: the GPU, or processor and instruction set; jax."""
    if jax.default_backend() == "gpu":
        return {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": native.level(),
        "jax": jax.__version__,
    }


def _why_not() -> str:
    backend = jax.default_backend()
    if backend in ("gpu", "tpu"):
        return (
            f"implementation='pallas_{backend}' runs one, whose speed was not measured "
            "yet"
        )
    return native.why_not() or f"there is none for {backend}"


def _runs() -> bool:
    return native.available() and jax.default_backend() == "cpu"


def _limits() -> tuple[dict[str, Limits], str]:
    """The limits that hold here, and where they are from."""
    gpu = jax.default_backend() == "gpu"
    if not gpu and not _runs():
        return FALLBACK, "a default"
    defaults = ON_GPU if gpu else DEFAULTS
    stored = _stored()
    if stored is not None:
        limits = {
            name: tuple(
                (math.inf if most is None else most, float(density))
                for most, density in stored["limits"][name]
            )
            for name in defaults
        }
        return limits, "measured on this machine"
    return defaults, "a default; python -m sparsejax_kernels.tune measures it here"


def _stored() -> dict[str, Any] | None:
    """What was measured on this machine, if anything."""
    file = cache_file()
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return None
    gpu = jax.default_backend() == "gpu"
    return _read(file, changed, "gpu" if gpu else native.level())


@functools.cache
def _read(file: pathlib.Path, changed: int, level: int | str) -> dict[str, Any] | None:
    """What the file says of this machine; None if it is of another one."""
    del changed  # The file is read again when it, or the instruction set, is another.
    names = ON_GPU if level == "gpu" else DEFAULTS
    try:
        stored = json.loads(file.read_text())
        if stored["machine"] != machine():
            return None
        rows = [row for name in names for row in stored["limits"][name]]
        for first, second in (*rows, *stored.get("tiles", {}).values()):
            if not (first is None or first > 0) or second < 0:
                raise ValueError(f"{first}, {second} are no limits or tiles")
        return stored
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(
            f"{file} cannot be read ({type(error).__name__}: {error}), so defaults are "
            "used; delete it or run python -m sparsejax_kernels.tune again",
            stacklevel=5,
        )
        return None
