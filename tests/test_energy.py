"""Meters of energy, on folders and drivers that only look like the real ones."""

import types

import pytest

from sparsejax.energy import Counter, Energy, Meters, find_meters
from sparsejax.report_page import _environment


def no_module(name):
    raise ImportError(name)


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one with memory of its own, and zones that overlap with them."""

    def zone(path, name, joules, limit=1000):
        folder = tmp_path / path
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
        (folder / "max_energy_range_uj").write_text(f"{limit * 10**6}\n")

    zone("intel-rapl:0", "package-0", 990)
    zone("intel-rapl:0:0", "core", 500)
    zone("intel-rapl:0:1", "dram", 10)
    zone("intel-rapl:1", "package-1", 5)
    zone("intel-rapl:2", "psys", 1500)
    zone("intel-rapl-mmio:0", "package-0", 990)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def advance(powercap, zone, joules):
    (powercap / zone / "energy_uj").write_text(f"{int(joules * 1e6)}\n")


def test_packages_and_memory_count_once_and_counters_may_wrap(powercap):
    meters = find_meters(powercap=powercap, import_module=no_module)
    names = [counter.name for counter in meters.counters]
    assert names == ["RAPL package-0", "RAPL dram", "RAPL package-1"]
    assert not meters.missing
    with Energy(meters) as energy:
        advance(powercap, "intel-rapl:0", 998)
        energy.sample()
        assert energy.joules == pytest.approx(8)
        # Over its end at 1,000.
        advance(powercap, "intel-rapl:0", 3)
        advance(powercap, "intel-rapl:0:0", 900)
        advance(powercap, "intel-rapl:0:1", 11.5)
        advance(powercap, "intel-rapl:2", 9)
    assert energy.joules == pytest.approx(8 + 5 + 1.5)
    text = "14.5 J, measured by RAPL package-0, RAPL dram, RAPL package-1"
    assert str(energy) == text
    assert dict(_environment({"energy": energy.as_dict()})) == {"energy": text}


def test_a_wrap_between_samples_is_seen_by_the_watcher(powercap):
    meters = find_meters(powercap=powercap, import_module=no_module)
    with Energy(meters, period=0.01) as energy:
        for joules in (999, 400, 800, 200):
            before = energy.joules
            advance(powercap, "intel-rapl:0", joules)
            for _ in range(1000):
                if energy.joules != before:
                    break
                energy._ended.wait(0.01)
    assert energy.joules == pytest.approx(9 + 401 + 400 + 400)


def test_without_a_meter_it_says_so(tmp_path):
    meters = find_meters(gpus=True, powercap=tmp_path, import_module=no_module)
    with Energy(meters) as energy:
        pass
    assert energy.joules is None
    assert str(energy).startswith("not measured: no RAPL on this machine; no NVML (pip")
    assert energy.as_dict()["meters"] == []


def test_counters_that_may_not_be_read_are_named(powercap, monkeypatch):
    import pathlib

    read = pathlib.Path.read_text

    def refused(self, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "read_text", refused)
    meters = find_meters(powercap=powercap, import_module=no_module)
    assert not meters.counters
    assert "intel-rapl:0/energy_uj" in meters.missing[0]


def nvml(joules):
    class NVMLError(Exception):
        pass

    def total(handle):
        if joules[handle] is None:
            raise NVMLError("Not Supported")
        return 1000 * joules[handle]

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(joules),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_all_gpus_count_and_what_is_missing_is_said(tmp_path):
    joules = [10.0, 20.0]
    modules = {"pynvml": nvml(joules)}
    meters = find_meters(
        gpus=True, powercap=tmp_path, import_module=modules.__getitem__
    )
    with Energy(meters) as energy:
        joules[:] = [15.0, 2020.0]
    assert energy.joules == 2005
    expected = "2 kJ, measured by NVML GPU 0, NVML GPU 1 (no RAPL on this machine)"
    assert str(energy) == expected


def test_old_gpus_without_a_counter(tmp_path):
    modules = {"pynvml": nvml([None])}

    def load(name):
        return modules[name] if name in modules else no_module(name)

    meters = find_meters(gpus=True, powercap=tmp_path, import_module=load)
    assert not meters.counters
    assert "NVML does not answer (Not Supported)" in meters.missing


def test_a_meter_that_stops_answering_leaves_no_number():
    answers = iter([1.0, 2.0])
    with Energy(Meters((Counter("GPU", lambda: next(answers)),), ())) as energy:
        energy.sample()
        assert energy.joules == 1
    assert energy.joules is None
    assert str(energy).startswith("not measured: GPU stopped answering")


def test_parts_of_a_run_add_up():
    def energy():
        return Energy(Meters((Counter("GPU", iter([0.0, 5.0]).__next__),), ()))

    with energy() as found:
        found.add_earlier(100.0)
    assert found.joules == 105
    with energy() as found:
        found.add_earlier(None)
    assert str(found) == "not measured: a part of the run was not measured"


def test_codecarbon_estimates_where_there_is_no_meter(tmp_path):
    pytest.importorskip("codecarbon")
    with Energy(find_meters(powercap=tmp_path)) as energy:
        sum(range(10**7))
    assert energy.joules > 0
    assert "estimated by codecarbon" in str(energy)
