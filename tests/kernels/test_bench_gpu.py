"""The benchmark for GPUs, on a machine without one."""

import json
import pathlib
import sys

import pytest
from sparsejax_kernels import rotating

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def bench_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_gpu

    return bench_gpu


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *map(str, arguments)])
    module.main()


def test_without_a_gpu_no_number_is_invented(bench_gpu, monkeypatch, tmp_path, capsys):
    table, numbers = tmp_path / "gpu.md", tmp_path / "gpu.json"
    run(monkeypatch, bench_gpu, "--markdown", table, "--json", numbers)
    assert "no speed was measured" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["rows"] is None
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(list(bench_gpu.unmeasured()))
    assert all(line.count("not measured") == 3 for line in rows[1:])
    assert (
        table.read_text().splitlines()[3:]
        == ((SCRIPTS.parent / "docs" / "gpu.md").read_text().splitlines()[3:])
    )


@pytest.mark.slow
def test_rows_of_a_measurement(bench_gpu, monkeypatch):
    monkeypatch.setattr(rotating, "MOST", 2)
    shape = (256, 128)
    x = bench_gpu.activations(4, shape[0])
    contenders = {
        "ours": (bench_gpu.FORMATS["blocks of 128x64, 90 %"](shape), bench_gpu.ours),
        "dense": (bench_gpu.dense_weight(shape), lambda x, w: x @ w),
    }
    times = bench_gpu.compare(contenders, x, 0.001)
    row = bench_gpu.row("blocks", shape, 4, "dense", times["ours"], times["dense"])
    line = bench_gpu.markdown([row], "a device").splitlines()[-1]
    assert "Device: a device" in bench_gpu.markdown([row], "a device")
    assert line.startswith("| blocks | 256x128 | 4 |")
    assert line.endswith(f"| {times['dense'][1] / times['ours'][1]:.2f} |")


@pytest.mark.slow
def test_every_kernel_is_compared_with_float64(bench_gpu, monkeypatch, capsys):
    run(monkeypatch, bench_gpu, "--check")
    lines = capsys.readouterr().out.splitlines()
    assert sum("from float64" in line for line in lines) == 3 * len(bench_gpu.FORMATS)
    monkeypatch.setattr(bench_gpu, "error", lambda *args, **kwargs: 1.0)
    with pytest.raises(SystemExit, match=r"fan-in 90 % at batch 1: 1\.00e"):
        run(monkeypatch, bench_gpu, "--check")
