"""The page of a sweep says what its runs came to, and sorts in a real browser."""

import csv
import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("matplotlib")

from sweep_runs import make_run

from sparsejax import report
from sparsejax.runs import RunError
from sparsejax.sweeps.report import comparisons, write_sweep_report
from sparsejax.sweeps.results import grouped, metric, read_results

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
METHODS = {"static": 0.80, "rigl": 0.92, "<b>": 0.70}


@pytest.fixture
def folder(tmp_path):
    """Three methods at two sparsities with three seeds; one run is under way."""
    for method, reached in METHODS.items():
        for sparsity in (0.9, 0.95):
            for seed in range(3):
                config = {
                    "method": {"name": method, "sparsity": sparsity},
                    "seed": seed,
                }
                last = reached - (sparsity - 0.9) + 0.01 * seed
                make_run(
                    tmp_path / f"{method.strip('<>')},{sparsity},{seed}",
                    config=config,
                    accuracies=[last / 2, last],
                    sparsity=sparsity,
                    finished=(method, sparsity, seed) != ("static", 0.9, 0),
                )
    return tmp_path


def test_runs_are_one_row_each(folder):
    write_sweep_report(folder)
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    row = next(r for r in rows if r["run"] == "rigl,0.95,2")
    assert float(row["accuracy"]) == pytest.approx(0.89)
    assert (row["method"], row["method.sparsity"], row["seed"]) == ("rigl", "0.95", "2")
    assert (row["parameters"], row["bytes"], row["step"]) == ("50", "300", "20")
    assert [r["run"] for r in rows if r["finished"] == "False"] == ["static,0.9,0"]


def test_settings_are_what_differs_and_seeds_are_put_together(folder):
    results = read_results(folder)
    assert metric(results) == "accuracy"
    groups = grouped(results)
    assert set(groups) == {f"{m}, sparsity {s}" for m in METHODS for s in (0.9, 0.95)}
    assert {len(group) for group in groups.values()} == {3}


def test_methods_are_compared_at_the_same_setting_by_the_same_seeds(folder):
    tests = comparisons(read_results(folder), "accuracy")
    assert len(tests) == 2 * 3
    found = {(t.panel, t.first, t.second): t.comparison for t in tests}
    one = found["sparsity 0.95", "rigl", "static"]
    assert one.count == 3
    assert one.difference.mean == pytest.approx(0.12)
    assert one.sign_flip == 0.25


def test_the_page_needs_nothing_from_elsewhere(folder):
    text = write_sweep_report(folder).read_text()
    assert "18 runs of 6 settings, 3 seeds each" in text
    assert "1 runs are not finished" in text
    assert 'href="rigl,0.9,0/metrics.jsonl"' in text
    assert not re.search(r"(src|href)=[\"'](https?:)?//", text)
    assert "<b>" not in text
    assert text.count("<img ") == 5
    rows = re.search(r"Leaderboard.*?<tbody>(.*?)</tbody>", text, re.DOTALL)[1]
    labels = re.findall(r'<td class="text" data-value="([^"]*)">', rows)
    assert labels[0] == "rigl, sparsity 0.9"
    assert labels[-1] == "&lt;b&gt;, sparsity 0.95"


def test_seeds_of_one_program_are_told_apart(tmp_path):
    for sparsity in (0.9, 0.95):
        run = tmp_path / f"agent{sparsity}"
        config = {
            "method": {"name": "rigl", "sparsity": sparsity},
            "seed": 4,
            "seeds": 2,
        }
        make_run(run, config=config, accuracies=[0.1], finished=False)
        row = {
            "step": 10,
            "kind": "evaluation",
            "episode_return": 15.0,
            "episode_return_of_seed": {"0": 10.0, "1": 20.0 + sparsity},
        }
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    results = read_results(tmp_path)
    assert metric(results) == "episode_return"
    assert [r.seed for r in results] == [4, 5, 4, 5]
    assert [r.metrics["episode_return"] for r in results] == [10, 20.9, 10, 20.95]
    assert results[1].curve("episode_return") == [(10, 20.9)]
    assert len(comparisons(results, "episode_return")) == 1


def test_the_command_line_tells_sweeps_from_runs(folder, capsys):
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("sweep.html")
    assert report.main([str(folder / "rigl,0.9,0")]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_a_sweep_without_a_row_says_so(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="has logged anything yet"):
        write_sweep_report(tmp_path)
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("sparsejax.report: no run in")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_shows_and_sorts_it(folder, tmp_path):
    page = write_sweep_report(folder)
    # The page, a click on each heading in turn, and what stands first then.
    click = """<script>
      const shown = [], first = () =>
        document.querySelector("tbody tr td").dataset.value;
      for (const words of ["accuracy", "parameters", "setting"]) {
        const heads = [...document.querySelectorAll("th[data-sort]")];
        heads.find(head => head.textContent === words).click();
        shown.push(first());
      }
      document.title = shown.join("|");
    </script>"""
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("</body>", click + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1240,2400"]
    dumped = subprocess.run(
        [BROWSER, *flags, "--dump-dom", f"file://{probe}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    title = re.search(r"<title>(.*?)</title>", dumped)[1]
    lowest, smallest, alphabetical = title.split("|")
    assert lowest == "&lt;b&gt;, sparsity 0.95"
    assert smallest.endswith("sparsity 0.95")
    assert alphabetical == "&lt;b&gt;, sparsity 0.9"
    shot = tmp_path / "page.png"
    command = [BROWSER, *flags, f"--screenshot={shot}", f"file://{page}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert shot.stat().st_size > 50_000
