"""What the runs of a sweep came to: one tidy row for each, and a CSV file of them."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.runs import Run, RunError, read_run

#: Metrics of an evaluation, the first that all runs have is what they are compared by;
#: and whether more of it is better.
METRICS = {
    "bits_per_byte": False,
    "mean_average_precision": True,
    "accuracy": True,
    "episode_return": True,
    "loss": False,
}
# After the name of a metric that a run has of each of its seeds.
_OF_SEED = "_of_seed"
_SEEDS = ("seed", "seeds")
_COUNTS = {
    "parameters": "active_parameters",
    "dense_parameters": "parameters",
    "flops": "sparse_flops",
    "dense_flops": "dense_flops",
}


class Result(NamedTuple):
    """A run of a sweep.

    Attributes:
      run: what its directory says.
      settings: what is varied in the sweep, field to value, without the seed.
      seed: the seed; of several in one program the first and the number added.
      number: which of several seeds in one program it is; None of a single one.
      finished: whether it has ended.
      metrics: of its last evaluation.
      costs: counts per example, bytes stored, seconds and joules; what is known.
    """

    run: Run
    settings: Mapping[str, Any]
    seed: int
    number: str | None
    finished: bool
    metrics: Mapping[str, float]
    costs: Mapping[str, float]

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Steps and values of a metric in all evaluations that have it."""
        rows = self.run.rows.get("evaluation", ())
        values = ((row["step"], _metrics(row, self.number).get(metric)) for row in rows)
        return [(step, value) for step, value in values if value is not None]

    @property
    def series(self) -> str:
        """The method, config or whatever else is varied first, in words."""
        for field in ("config", "method.name", *self.settings):
            if field in self.settings:
                return _words(field, self.settings[field])
        return "all runs"

    @property
    def panel(self) -> str:
        """The other settings in words; empty if there are none."""
        return self.label.removeprefix(self.series).removeprefix(", ")

    @property
    def label(self) -> str:
        """Its settings in words: ``"rigl_mlp, sparsity 0.9"``."""
        first = [f for f in ("config", "method.name") if f in self.settings][:1]
        fields = [*first, *(field for field in self.settings if field not in first)]
        words = [_words(field, self.settings[field]) for field in fields]
        return ", ".join(words) or "all runs"


def is_sweep(folder: pathlib.Path) -> bool:
    """Whether a folder holds runs, and is none itself.

    Args:
      folder: Any path.

    Returns:
      Whether there are run directories in it.

    Example:
      >>> is_sweep(pathlib.Path("no/such/folder"))
      False
    """
    if (folder / "metrics.jsonl").exists() or not folder.is_dir():
        return False
    return any(folder.glob("*/config.json"))


def read_results(folder: pathlib.Path) -> list[Result]:
    """Reads all runs of a sweep that have logged something.

    Args:
      folder: Of the sweep.

    Returns:
      The runs, by settings and seed.

    Raises:
      RunError: No run has logged anything yet, or a file is broken.
    """
    runs = []
    for config in sorted(folder.glob("*/config.json")):
        try:
            runs.append(read_run(config.parent))
        except RunError:
            if (config.parent / "metrics.jsonl").exists() and _has_rows(config.parent):
                raise
    if not runs:
        raise RunError(
            f"no run in {folder} has logged anything yet; wait for the first"
        )
    settings = _settings(folder, runs)
    results = [
        result for run in runs for result in _results(run, settings[run.workdir.name])
    ]
    order = {label: i for i, label in enumerate(_labels(folder, results))}
    return sorted(results, key=lambda r: (order[r.label], r.seed))


def metric(results: Sequence[Result]) -> str:
    """Chooses what runs are compared by.

    Args:
      results: The runs.

    Returns:
      The first of `METRICS` that all of them have, or else any that all have.

    Raises:
      RunError: There is none.
    """
    common = set.intersection(*(set(result.metrics) for result in results))
    for name in [*METRICS, *sorted(common)]:
        if name in common:
            return name
    raise RunError("the runs have no metric in common; evaluate them by the same one")


def more_is_better(name: str) -> bool:
    """Whether more of a metric is better; of an unknown one, if it is no loss.

    Args:
      name: Of the metric.

    Returns:
      Whether it is.

    Example:
      >>> more_is_better("accuracy"), more_is_better("validation_loss")
      (True, False)
    """
    return METRICS.get(name, "loss" not in name and "error" not in name)


def grouped(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Puts the seeds of each setting together.

    Args:
      results: The runs.

    Returns:
      Label to runs, in their order.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.label, []).append(result)
    return groups


def write_csv(path: pathlib.Path, results: Sequence[Result]) -> None:
    """Writes one line for each run, whole or not at all.

    Args:
      path: The file.
      results: The runs.
    """
    rows = [dict(_row(result)) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def _words(field: str, value: Any) -> str:
    last = field.rpartition(".")[2]
    return str(value) if last in ("config", "name") else f"{last} {value}"


def _row(result: Result) -> Iterator[tuple[str, Any]]:
    yield "run", result.run.workdir.name
    yield from result.settings.items()
    method = result.run.config.get("method") or {}
    yield "method", method.get("name") if isinstance(method, dict) else method
    yield "seed", result.seed
    yield "finished", result.finished
    yield "step", result.run.step
    yield from result.metrics.items()
    yield from result.costs.items()


def _results(run: Run, settings: Mapping[str, Any]) -> Iterator[Result]:
    """One for each seed: a run may train several as one program."""
    rows = run.rows.get("evaluation", ())
    final = run.summary.get("final") or (rows[-1] if rows else {})
    several = [v for k, v in final.items() if k.endswith(_OF_SEED)]
    numbers = list(several[0]) if several else [None]
    for number in numbers:
        seed = int(run.config.get("seed", 0)) + int(number or 0)
        metrics, ended = _metrics(final, number), bool(run.summary)
        yield Result(run, settings, seed, number, ended, metrics, _costs(run))


def _metrics(row: Mapping[str, Any], number: str | None) -> dict[str, float]:
    found: dict[str, float] = {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("step", "seconds")
    }
    for name, value in row.items():
        if number is not None and name.endswith(_OF_SEED):
            found[name.removesuffix(_OF_SEED)] = value[number]
    return found


def _costs(run: Run) -> dict[str, float]:
    costs: dict[str, float] = {}
    if "sparsity" in run.summary:
        costs["sparsity"] = run.summary["sparsity"]
    for name, field in _COUNTS.items():
        if field in run.cost:
            costs[name] = run.cost[field]
    if run.cost:
        costs["training_flops"] = run.cost["training"]["flops"]
        stored = run.cost["stored_bytes"]
        # As it is stored at best: values and indices, or dense with nothing beside.
        costs["bytes"] = min(stored["condensed"], stored["dense"])
    for name, value in (
        ("seconds", run.summary.get("seconds")),
        ("joules", (run.summary.get("energy") or {}).get("joules")),
    ):
        if value is not None:
            costs[name] = value
    return costs


def _settings(
    folder: pathlib.Path, runs: Sequence[Run]
) -> dict[str, Mapping[str, Any]]:
    """What is varied: as the sweep says, or what differs between the configs."""
    recorded = _recorded(folder)
    if all(run.workdir.name in recorded for run in runs):
        found = {run.workdir.name: recorded[run.workdir.name] for run in runs}
    else:
        flat = {run.workdir.name: dict(_flat(run.config)) for run in runs}
        fields = list(dict.fromkeys(field for one in flat.values() for field in one))
        values = {f: {json.dumps(one.get(f)) for one in flat.values()} for f in fields}
        varied = [field for field in fields if len(values[field]) > 1]
        found = {
            name: {field: one[field] for field in varied if field in one}
            for name, one in flat.items()
        }
    return {
        name: {field: _hashable(v) for field, v in one.items() if field not in _SEEDS}
        for name, one in found.items()
    }


def _labels(folder: pathlib.Path, results: Sequence[Result]) -> list[str]:
    """All labels, in the order in which the sweep lists its runs."""
    place = {name: i for i, name in enumerate(_recorded(folder))}
    ordered = sorted(results, key=lambda r: place.get(r.run.workdir.name, len(place)))
    return list(dict.fromkeys(result.label for result in ordered))


def _recorded(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        runs = json.loads((folder / "sweep.json").read_text())["runs"]
    except (OSError, json.JSONDecodeError, KeyError):
        return {}
    return {name: run["settings"] for name, run in runs.items()}


def _has_rows(folder: pathlib.Path) -> bool:
    return (folder / "metrics.jsonl").stat().st_size > 0


def _flat(value: Mapping[str, Any], field: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{field}.{key}" if field else str(key)
        if isinstance(inner, Mapping):
            yield from _flat(inner, name)
        else:
            yield name, inner


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
