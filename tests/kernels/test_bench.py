"""The benchmark compares equal products, and prints and draws what it measured."""

import jax
import numpy as np
import pytest
from sparsejax_kernels import bench


def rows():
    def row(op, shape, batch, sparsity, contender):
        case = {"op": op, "shape": shape, "batch": batch, "sparsity": sparsity}
        time = 100.0 if contender == bench.OURS else 450.0
        return {**case, "contender": contender, "median_us": time, "p10_us": time}

    return [
        row(op, shape, batch, sparsity, contender)
        for op, batch in ((bench.FORWARD, 1), (bench.BACKWARD, 128), (bench.BLOCK, 8))
        for shape in ("64x32", "32x64")
        for sparsity in (0.8, 0.9)
        for contender in (bench.DENSE, bench.OURS)
    ]


def test_a_line_says_how_much_faster():
    case = rows()[:2]
    assert bench.title(case).split() == [
        "op",
        "shape",
        "batch",
        "sparsity",
        "sparsejax",
        "XLA",
        "dense",
    ]
    assert bench.line(case).split() == [
        "forward",
        "64x32",
        "1",
        "80.0%",
        "100",
        "450",
        "4.5x",
        "(4.5x)",
    ]


def test_draws_every_kind(tmp_path):
    pytest.importorskip("matplotlib")
    bench.plot(rows(), str(tmp_path / "speed.png"))
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    others = [{**row, "op": bench.COLD} for row in rows()]
    with pytest.raises(SystemExit, match="--plot draws products"):
        bench.plot(others, str(tmp_path / "none.png"))


@pytest.mark.parametrize("op", [bench.FORWARD, bench.BACKWARD, bench.COLD])
def test_contenders_compute_the_same(op):
    runs = bench.contenders(bench.random_fan_in(64, 32, 0.9), 4, op)
    assert {bench.DENSE, bench.OURS} <= {*runs}
    dense, ours = (jax.tree.leaves(runs[name]()) for name in (bench.DENSE, bench.OURS))
    np.testing.assert_allclose(ours[0], dense[0], rtol=1e-4, atol=1e-5)


def test_random_weights_have_the_sparsity():
    assert float(bench.random_fan_in(64, 32, 0.75).density) == 0.25
    assert float(bench.random_blocks(128, 64, 0.75).density) == 0.25
    assert float(bench.random_n_m(64, 32, 3, 32).density) == 3 / 32
