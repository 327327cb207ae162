"""The report of a run: `plots/*.png` and one self-contained `report.html`.

python -m sparsejax.report WORKDIR

Of a sweep, a folder of runs: `results.csv` and one self-contained `sweep.html`.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from sparsejax import pictures, plots, return_plots
from sparsejax.plot_style import save
from sparsejax.report_page import page
from sparsejax.runs import Run, RunError, read_run
from sparsejax.sweeps.report import write_sweep_report
from sparsejax.sweeps.results import is_sweep

__all__ = ["figures", "main", "write_report"]


def write_report(workdir: str | pathlib.Path) -> pathlib.Path:
    """Draws the plots of a run and writes its report.

    Reads `config.json`, `metrics.jsonl` and, once the run has ended, `summary.json` and
    `samples.npz`;
    writes `plots/*.png` and `report.html`, which holds the images and needs neither
    network nor scripts. Plots of an earlier report are replaced.

    Args:
      workdir: the run directory.

    Returns:
      The path of `report.html`.

    Raises:
      RunError: the directory is missing, or nothing was logged to it.

    Example:
      >>> write_report("runs/none")
      Traceback (most recent call last):
      ...
      sparsejax.runs.RunError: runs/none is no directory; give the --workdir of a run
    """
    run = read_run(workdir)
    folder = run.workdir / "plots"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    images = {}
    for name, figure in figures(run).items():
        path = folder / f"{name}.png"
        save(figure, path)
        images[name] = (path.read_bytes(), figure.get_figwidth())
    target = run.workdir / "report.html"
    target.write_text(page(run, images), encoding="utf-8")
    return target


def figures(run: Run) -> dict[str, Any]:
    """Draws every figure that a run has data for.

    Args:
      run: the run.

    Returns:
      Name to `matplotlib.figure.Figure`.
    """
    train, evaluation = run.rows.get("train", []), run.rows.get("evaluation", [])
    topology = run.rows.get("topology", [])
    sizes = {layer["path"]: layer["size"] for layer in run.layers}
    last_move = topology[-1]["step"] if len(topology) > 1 else None
    drawn = {
        "loss": plots.curve("loss", train, evaluation, last_move),
        "bits_per_byte": plots.curve("bits_per_byte", train, evaluation, last_move),
        "accuracy": plots.curve("accuracy", train, evaluation, last_move),
        "average_precision_50": plots.curve(
            "average_precision_50", train, evaluation, last_move
        ),
        "mean_average_precision": plots.curve(
            "mean_average_precision", train, evaluation, last_move
        ),
        "returns": return_plots.returns(train, evaluation),
        "activity": return_plots.activity(evaluation),
        "detections": pictures.detections(run.samples),
        "cost": plots.cost(*_costs(run)),
        "density": plots.density(topology, sizes),
        "turnover": plots.turnover(topology, sizes),
        "exploration": plots.exploration(topology, sizes),
        "moves": plots.moves(topology),
        "layers": plots.layers(run.layers),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: without the program's name; default: the process's own.

    Returns:
      The exit status; for what went wrong there is one line on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sparsejax.report",
        description="Draws the plots of a run and writes its report.html; of a sweep, "
        "results.csv and sweep.html.",
    )
    parser.add_argument("workdir", help="a run directory, or the folder of a sweep")
    folder = pathlib.Path(parser.parse_args(arguments).workdir)
    write = write_sweep_report if is_sweep(folder) else write_report
    try:
        print(write(folder))
    except (RunError, ImportError, OSError) as error:
        print(f"sparsejax.report: {error}", file=sys.stderr)
        return 2
    return 0


def _costs(run: Run) -> tuple[list[plots.Share], str]:
    cost = run.cost
    if not cost or not run.masked:
        return [], ""
    stored, training = cost["stored_bytes"], cost["training"]
    shares = [
        plots.Share("Parameters", cost["active_parameters"], cost["parameters"]),
        plots.Share("Inference FLOPs", cost["sparse_flops"], cost["dense_flops"]),
        plots.Share("Training FLOPs", training["flops"], training["dense_flops"]),
    ]
    parameters, inference, learning = (f"{100 * share.ratio:.1f} %" for share in shares)
    shares += [
        plots.Share(f"Bytes, {form}", stored[field], stored["dense"], "B")
        for form, field in (
            ("values + indices", "condensed"),
            ("compressed sparse rows", "csr"),
            ("dense + 1-bit masks", "packed"),
            ("dense + 1-byte masks", "masked"),
        )
        # Runs of earlier versions do not know all of them.
        if field in stored
    ]
    title = f"{parameters} of the parameters, {inference} of the inference FLOPs, "
    return shares, title + f"{learning} of the training FLOPs"


if __name__ == "__main__":
    sys.exit(main())
