"""Energy of a run, by the meters that a machine has, and which ones these were."""

from __future__ import annotations

import importlib
import logging
import pathlib
import threading
import types
from collections.abc import Callable
from typing import Any, NamedTuple, Self

__all__ = ["Counter", "Energy", "Meters", "find_meters"]

POWERCAP = pathlib.Path("/sys/class/powercap")

# The smallest counters of processors overflow after a few minutes at full power.
_PERIOD = 30.0


class Counter(NamedTuple):
    """A meter that counts joules.

    Attributes:
      name: what it is and what it measures: ``"RAPL package-0"``.
      read: returns its count in joules.
      range: the count at which it starts again from 0; None if it never does.
    """

    name: str
    read: Callable[[], float]
    range: float | None = None


class Meters(NamedTuple):
    """The meters of a machine.

    Attributes:
      counters: those that can be read.
      missing: why others cannot, as clauses.
    """

    counters: tuple[Counter, ...]
    missing: tuple[str, ...]


def find_meters(
    *,
    gpus: bool = False,
    powercap: pathlib.Path = POWERCAP,
    import_module: Callable[[str], Any] = importlib.import_module,
) -> Meters:
    """Looks for meters: RAPL for processors and memory, NVML for NVIDIA's GPUs.

    Without either codecarbon, if it is installed (the extra ``energy``), estimates.

    Args:
      gpus: whether the program runs on GPUs; all of the machine's are measured.
      powercap: the folder where Linux has RAPL's counters.
      import_module: imports the optional modules.

    Returns:
      The meters, and what is missing.

    Example:
      >>> found = find_meters()
      >>> bool(found.counters or found.missing)
      True
    """
    counters, missing = _rapl(powercap)
    if gpus:
        found, lacking = _nvml(import_module)
        counters, missing = [*counters, *found], [*missing, *lacking]
    if not counters:
        try:
            counters = [_codecarbon(import_module("codecarbon"))]
        except ImportError:
            missing = [*missing, "codecarbon, which estimates, is not installed"]
    return Meters(tuple(counters), tuple(missing))


class Energy:
    """Counts energy while the ``with`` block runs, and in earlier parts of a run.

    The meters are of devices, not of programs: what else runs on them counts, too. They
    are read in the background often enough that no counter overflows unseen.

    Args:
      meters: what to read; default all that the machine has.
      period: seconds between readings.

    Example:
      >>> counts = iter([90.0, 99.0, 2.0])
      >>> counter = Counter("RAPL package-0", lambda: next(counts), range=100.0)
      >>> with Energy(Meters((counter,), ())) as energy:
      ...     energy.sample()
      >>> energy.joules
      12.0
      >>> print(energy)
      12.0 J, measured by RAPL package-0
    """

    def __init__(self, meters: Meters | None = None, *, period: float = _PERIOD):
        self._meters = find_meters() if meters is None else meters
        self._period = period
        self._last: list[float] = []
        self._total = 0.0
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._last = [self._read(one) for one in self._meters.counters]
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()
        self.sample()

    @property
    def joules(self) -> float | None:
        """The energy so far; None if a meter is missing or has stopped answering."""
        if not self._meters.counters or self._lost is not None:
            return None
        return self._total

    def sample(self) -> None:
        """Reads the meters."""
        with self._lock:
            for index, counter in enumerate(self._meters.counters):
                now = self._read(counter)
                used = now - self._last[index]
                if used < 0 and counter.range is not None:
                    used += counter.range
                self._last[index] = now
                self._total += max(used, 0.0)

    def add_earlier(self, joules: float | None) -> None:
        """Adds what an earlier part of the run used; None if that is not known."""
        if joules is None:
            self._lost = self._lost or "a part of the run was not measured"
        else:
            self._total += joules

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: ``joules``, ``meters``, ``missing`` and the text."""
        return {
            "joules": self.joules,
            "meters": [counter.name for counter in self._meters.counters],
            "missing": [*self._meters.missing, *filter(None, [self._lost])],
            "text": str(self),
        }

    def __str__(self) -> str:
        names = ", ".join(counter.name for counter in self._meters.counters)
        missing = "; ".join(self._meters.missing)
        if not names:
            return f"not measured: {missing}"
        if self.joules is None:
            return f"not measured: {self._lost}"
        estimated = names.startswith("codecarbon")
        how = "estimated" if estimated else "measured"
        text = f"{_amount(self.joules)}, {how} by {names}"
        return f"{text} ({missing})" if missing else text

    def _read(self, counter: Counter) -> float:
        try:
            return counter.read()
        except Exception as error:
            # Whatever a driver raises: training goes on, without a number.
            self._lost = f"{counter.name} stopped answering ({error})"
            return 0.0

    def _watch(self) -> None:
        while not self._ended.wait(self._period):
            self.sample()


def _rapl(powercap: pathlib.Path) -> tuple[list[Counter], list[str]]:
    """A processor's packages and, where it has counters of its own, memory.

    Cores and graphics lie within a package, and the zone of the whole platform holds
    all of them: adding those would count twice.
    """
    counters, missing = [], []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith(("package", "dram")):
                continue
            limit = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = Counter(f"RAPL {name}", _microjoules(zone / "energy_uj"), limit)
            counter.read()
        except PermissionError:
            missing.append(
                f"RAPL may not be read (as root: chmod a+r {zone}/energy_uj)"
            )
        except (OSError, ValueError) as error:
            missing.append(f"RAPL cannot be read ({error})")
        else:
            counters.append(counter)
    return counters, missing or ([] if counters else ["no RAPL on this machine"])


def _microjoules(file: pathlib.Path) -> Callable[[], float]:
    return lambda: int(file.read_text()) / 1e6


def _nvml(import_module: Callable[[str], Any]) -> tuple[list[Counter], list[str]]:
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return [], ['no NVML (pip install "sparsejax[energy]")']
    try:
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index)
            for index in range(nvml.nvmlDeviceGetCount())
        ]
        counters = [
            Counter(f"NVML GPU {index}", _millijoules(nvml, handle))
            for index, handle in enumerate(handles)
        ]
        for counter in counters:
            counter.read()
    except nvml.NVMLError as error:
        return [], [f"NVML does not answer ({error})"]
    return counters, []


def _millijoules(nvml: types.ModuleType, handle: Any) -> Callable[[], float]:
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def _codecarbon(codecarbon: Any) -> Counter:
    """An estimate from the processor's load and its rated power."""
    # It greets before it has read its own log level.
    logging.getLogger("codecarbon").disabled = True
    # The country decides on emissions alone, which are not asked for.
    tracker = codecarbon.OfflineEmissionsTracker(
        country_iso_code="USA",
        save_to_file=False,
        log_level="critical",
        allow_multiple_runs=True,
    )
    tracker.start_task()
    total = 0.0

    def read() -> float:
        nonlocal total
        total += 3.6e6 * tracker.stop_task().energy_consumed
        tracker.start_task()
        return total

    return Counter("codecarbon (from load and rated power)", read)


def _amount(joules: float) -> str:
    for unit, size in (("kWh", 3.6e6), ("kJ", 1e3)):
        if joules >= size:
            return f"{joules / size:.3g} {unit}"
    return f"{joules:.1f} J"
