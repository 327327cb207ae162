"""``summary.json``: what a finished run came to, and what it was run with."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

import sparsejax as sj
from sparsejax.configuration import Command
from sparsejax.cost import cost
from sparsejax.expected_cost import dense_gradient_every
from sparsejax.layers import leaves_with_paths
from sparsejax.metrics import MetricsWriter
from sparsejax.tasks.base import Task, TrainState

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def collect(
    command: Command,
    task: Task,
    state: TrainState,
    metrics: MetricsWriter,
    *,
    seconds: float,
    energy: Mapping[str, Any],
) -> dict[str, Any]:
    """Gathers the summary of a finished run.

    Args:
      command: What was asked for.
      task: The task that was trained.
      state: Its final state.
      metrics: Where the rows of all parts of the run are.
      seconds: Wall time of all parts.
      energy: What they used, and which meter says so (`sparsejax.energy`).

    Returns:
      Plain data, for JSON: ``final`` (the last evaluation), ``train`` (the last
      training row), ``layers`` (exact counts), ``sparsity``, ``cost``, ``seconds``,
      ``energy``, ``references`` and ``data`` (as the dataset has them), ``seed``,
      ``versions``, ``commit``, ``device``, ``command``.
    """
    config = command.config
    counts = sj.counts(state.optimizer_state)
    shapes = {path: leaf.shape for path, leaf in leaves_with_paths(state.params)}
    costs = cost(
        lambda params, inputs: task.forward(params, state.model_state, inputs),
        state.params,
        counts,
        task.example_input,
        examples=task.example_input.shape[0],
        dense_gradient_every=dense_gradient_every(config.method),
        mean_progress=_mean_progress(metrics, int(state.step)),
    )
    structure = _field(config.method, "structure", "unstructured")
    size = sum(size for _, size in counts.values())
    zeros = size - sum(active for active, _ in counts.values())
    return {
        "config": command.name,
        "command": command.text,
        "step": int(state.step),
        "final": _values(metrics.last("evaluation")),
        "train": _values(metrics.last("train")),
        "sparsity": zeros / size if size else 0.0,
        "layers": [
            {
                "path": path,
                "shape": list(shapes[path]),
                "structure": _field(structure, "name", structure),
                "active": active,
                "size": size,
            }
            for path, (active, size) in counts.items()
        ],
        "cost": costs.as_dict(),
        "references": dict(task.dataset.references),
        "data": task.dataset.identity or None,
        "seconds": seconds,
        "energy": dict(energy),
        "seed": config.seed,
        "device": device(),
        "versions": versions(),
        "commit": commit(),
    }


def device() -> str:
    """Says what the program runs on.

    Returns:
      Such as ``"8 x NVIDIA H100 80GB HBM3 (gpu)"`` or ``"cpu (x86_64, 2 cores)"``.

    Example:
      >>> bool(device())
      True
    """
    devices = jax.devices()
    many = f"{len(devices)} x " if len(devices) > 1 else ""
    if devices[0].platform == "cpu":
        return f"{many}cpu ({platform.machine()}, {os.cpu_count()} cores)"
    return f"{many}{devices[0].device_kind} ({devices[0].platform})"


def versions() -> dict[str, str]:
    """Lists the versions of what a result depends on.

    Returns:
      Package to version, Python and this package included.

    Example:
      >>> versions()["jax"] == jax.__version__
      True
    """
    found = {"python": platform.python_version(), "sparsejax": sj.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Says which commit this package is at.

    Returns:
      The commit's hash, with ``-dirty`` if files differ from it; None outside a git
      checkout of this package.

    Example:
      >>> commit() is None or len(commit()) >= 40
      True
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    # An installed package may lie within somebody else's checkout.
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _values(row: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (row or {}).items() if k not in ("step", "kind")}


def _field(spec: Any, field: str, default: Any) -> Any:
    return default if isinstance(spec, str) else spec.get(field, default) or default


def _mean_progress(metrics: MetricsWriter, steps: int) -> float:
    """The mean over the steps of the sparsity so far, over the final sparsity.

    Exact to the interval at which rows are written.
    """
    rows = [row for row in metrics.rows if row["kind"] == "topology"]
    if not rows or not rows[-1]["sparsity"]:
        return 1.0
    final = rows[-1]["sparsity"]
    ends = [row["step"] for row in rows[1:]] + [steps]
    area = sum(
        (end - row["step"]) * (row["sparsity"] / final)
        for row, end in zip(rows, ends, strict=True)
    )
    return min(1.0, area / steps)
