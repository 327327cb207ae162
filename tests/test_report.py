"""Reports of runs of every kind, and of directories that hold none."""

import base64
import html.parser
import json
import re
import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")

from sparsejax.plot_style import percent, short
from sparsejax.plots import Share, shorten
from sparsejax.plots import cost as cost_figure
from sparsejax.report import main, write_report
from sparsejax.runs import RunError, read_run

SIZES = {"hidden0/kernel": 8192, "hidden1/kernel": 16384, "head/kernel": 1280}
ACTIVE = {"hidden0/kernel": 819, "hidden1/kernel": 1638, "head/kernel": 1280}


def topology(step, *, explored=0.2, dropped=50, grown=50, scale=1.0):
    return {
        "step": step,
        "kind": "topology",
        "moves": step // 50,
        "density": {path: scale * ACTIVE[path] / SIZES[path] for path in SIZES},
        "exploration": dict.fromkeys(SIZES, explored),
        "dropped": dict.fromkeys(SIZES, dropped),
        "grown": dict.fromkeys(SIZES, grown),
    }


def cost_summary(active):
    layers = [
        {
            "path": path,
            "shape": [64, size // 64],
            "weights": size,
            "active": active[path],
            "dense_macs": size,
            "sparse_macs": active[path],
            "dense_flops": 2 * size,
            "sparse_flops": 2 * active[path],
        }
        for path, size in SIZES.items()
    ]
    dense, sparse = 2 * sum(SIZES.values()), 2 * sum(active.values())
    return {
        "layers": layers,
        "parameters": sum(SIZES.values()),
        "active_parameters": sum(active.values()),
        "dense_flops": dense,
        "sparse_flops": sparse,
        "ratio": sparse / dense,
        "stored_bytes": {"dense": 100, "masked": 125, "packed": 104, "condensed": 18},
        "training": {
            "flops": 3.0 * sparse,
            "dense_flops": 3 * dense,
            "ratio": sparse / dense,
        },
    }


def make_run(folder, *, masked=True, finished=True, moves=(), evaluates=True):
    """Writes a run directory."""
    rows = [
        {"step": s, "kind": "train", "loss": 2 / s, "accuracy": 1 - 1 / s}
        for s in range(1, 201, 4)
    ]
    if evaluates:
        rows += [
            {"step": s, "kind": "evaluation", "loss": 3 / s, "accuracy": 0.95}
            for s in (100, 200)
        ]
    rows += moves
    rows.sort(key=lambda row: row["step"])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    config = {
        "method": {"name": "rigl", "sparsity": 0.9},
        "model": {"name": "mlp", "hidden": [128, 128]},
        "data": {"name": "digits"},
        "note": "<script>alert(1)</script>",
    }
    (folder / "config.json").write_text(json.dumps(config))
    if finished:
        # As in a sorted tree: the head comes before the layers that feed it.
        layers = [
            {
                "path": path,
                "shape": [64, SIZES[path] // 64],
                "structure": "unstructured",
                "active": ACTIVE[path],
                "size": SIZES[path],
            }
            for path in sorted(SIZES)
        ]
        summary = {
            "final": {"loss": 0.015, "accuracy": 0.95},
            "layers": layers if masked else [],
            "cost": cost_summary(ACTIVE if masked else SIZES),
            "seconds": 95.0,
            "seed": 3,
            "versions": {"jax": "0.10.2"},
            "commit": "abc",
            "device": "cpu",
            "command": "python -m sparsejax.train --config=rigl_mlp",
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def plot_names(folder):
    return {path.stem for path in (folder / "plots").iterdir()}


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and gathers links and cells."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_of_a_sparse_run(tmp_path):
    make_run(tmp_path, moves=[topology(0, dropped=0, grown=0), topology(50)])
    text = write_report(tmp_path).read_text()
    names = {"loss", "accuracy", "cost", "turnover", "exploration", "moves", "layers"}
    assert plot_names(tmp_path) == names
    page = Page(text)
    assert page.open == []
    words = " ".join(page.text)
    for expected in (
        "rigl",
        "95.00 %",
        "3,737 of 25,856",
        "16,384",
        "python -m sparsejax.train --config=rigl_mlp",
        "model.hidden",
        "[128, 128]",
        "0.10.2",
        "1.6 min",
    ):
        assert expected in words


def test_report_needs_neither_network_nor_scripts(tmp_path):
    text = write_report(make_run(tmp_path)).read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert page.links
    for link in page.links:
        kind, data = link.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "http" not in text
    assert "url(" not in text


def test_layers_are_listed_in_the_order_of_the_forward_pass(tmp_path):
    run = read_run(make_run(tmp_path))
    assert [row["path"] for row in run.layers] == list(SIZES)
    text = write_report(tmp_path).read_text()
    assert re.findall(r"<td>(\w+/kernel)</td>", text) == list(SIZES)


def test_report_of_a_dense_run(tmp_path):
    text = write_report(make_run(tmp_path, masked=False)).read_text()
    assert plot_names(tmp_path) == {"loss", "accuracy", "layers"}
    assert "no weight masked" in text
    assert "Sparsity" not in text


def test_report_of_gradual_pruning_has_the_density_over_the_steps(tmp_path):
    moves = [topology(s, grown=0, scale=1 - s / 400) for s in (50, 100, 150)]
    for row in moves:
        row["exploration"] = dict.fromkeys(SIZES, 1.0)
    write_report(make_run(tmp_path, moves=moves))
    assert "density" in plot_names(tmp_path)
    # Every weight was active at first, so there is nothing to explore.
    assert "exploration" not in plot_names(tmp_path)


def test_report_of_a_static_run_has_no_moves(tmp_path):
    row = topology(0, dropped=0, grown=0)
    row |= {"exploration": {}, "dropped": {}, "grown": {}}
    write_report(make_run(tmp_path, moves=[row]))
    assert plot_names(tmp_path) == {"loss", "accuracy", "cost", "layers"}


def test_report_of_a_run_under_way(tmp_path):
    make_run(tmp_path, finished=False, moves=[topology(50)], evaluates=False)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 205, "kind": "tr')
    text = write_report(tmp_path).read_text()
    assert "Under way: the last logged step is 197." in text
    assert {"loss", "accuracy", "exploration"} <= plot_names(tmp_path)


def test_a_new_report_replaces_the_plots_of_the_old(tmp_path):
    make_run(tmp_path, moves=[topology(50)])
    write_report(tmp_path)
    make_run(tmp_path)
    write_report(tmp_path)
    assert "turnover" not in plot_names(tmp_path)


def test_the_same_run_gives_the_same_report(tmp_path):
    make_run(tmp_path, moves=[topology(50)])
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_nan_losses_are_left_out_and_do_not_stop_the_report(tmp_path):
    make_run(tmp_path, finished=False)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 201, "kind": "train", "loss": NaN, "accuracy": 0.1}\n')
    assert write_report(tmp_path).exists()


def test_config_values_are_escaped(tmp_path):
    text = write_report(make_run(tmp_path)).read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize("kind", ["missing", "empty", "no rows", "broken summary"])
def test_command_line_errors_are_one_line(tmp_path, capsys, kind):
    folder = tmp_path / "run"
    if kind != "missing":
        folder.mkdir()
    if kind == "no rows":
        (folder / "metrics.jsonl").write_text("")
    if kind == "broken summary":
        make_run(folder)
        (folder / "summary.json").write_text('{"final": ')
    with pytest.raises(RunError):
        write_report(folder)
    assert main([str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(folder) in lines[0]


def test_command_line(tmp_path):
    make_run(tmp_path)
    command = [sys.executable, "-m", "sparsejax.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "report.html")
    assert not done.stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_999, "1.00 M"),
        (12_345, "12.3 k"),
        (8_178_368_512, "8.18 G"),
        (485.3, "485"),
    ],
)
def test_short_numbers(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(100, "100 %"), (99.99, "> 99.9 %"), (12.34, "12.3 %"), (0.0512, "0.051 %")],
)
def test_percentages(value, text):
    assert percent(value) == text


def test_short_names():
    assert shorten("stage1/block0/conv1/kernel") == "stage1/block0/conv1"
    assert shorten("kernel") == "kernel"
    assert shorten("head/scale") == "head/scale"


def test_bars_show_the_costs_they_are_given():
    figure = cost_figure([Share("a", 10, 40), Share("b", 5, 4)], "title")
    bars = [round(patch.get_width(), 6) for patch in figure.axes[0].patches]
    assert bars == [100, 100, 25, 125]
