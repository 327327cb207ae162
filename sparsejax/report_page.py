"""The HTML of a report."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sparsejax.plot_style import short
from sparsejax.report_style import STYLE
from sparsejax.runs import Row, Run

# The first of these that a run has is what its report begins with.
_REACHED = {
    "bits_per_byte": "bits per byte of held-out text",
    "accuracy": "evaluation accuracy",
    "average_precision_50": "average precision at 50 % overlap",
    "episode_return": "mean return of an episode",
}
_HEADLINES = {
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "average_precision_50": "Average precision at 50 %",
    "mean_average_precision": "Average precision",
    "episode_return": "Episode return",
}
# Those that are no fractions, and how they are written.
_NUMBERS = {"bits_per_byte": ".3f", "episode_return": ",.1f"}


def page(run: Run, images: Mapping[str, tuple[bytes, float]]) -> str:
    """Writes the report of a run as one HTML document.

    Args:
      run: the run.
      images: name of a figure to its PNG and its width in inches.

    Returns:
      The document; images are embedded, and nothing is loaded from elsewhere.
    """

    def pictures(*names: str) -> str:
        shown = "".join(
            _picture(name, *images[name]) for name in names if name in images
        )
        return f"<div class='pictures'>{shown}</div>" if shown else ""

    sections = {
        "Learning": pictures(
            "loss",
            "bits_per_byte",
            "accuracy",
            "average_precision_50",
            "mean_average_precision",
            "returns",
            "activity",
        ),
        "Examples": pictures("detections"),
        "Cost against the dense network": pictures("cost"),
        "Topology": pictures("density", "turnover", "exploration", "moves"),
        "Layers": pictures("layers") + _layer_table(run),
        "How to reproduce": _reproduce(run.summary),
        "Config": _facts(_flat(run.config)),
        "Environment": _facts(_environment(run.summary)),
    }
    body = "\n".join(
        f"<section><h2>{name}</h2>{content}</section>"
        for name, content in sections.items()
        if content
    )
    title = _title(run)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kicker">sparsejax</p>
<h1>{_text(title)}</h1>
<p class="claim">{_text(_claim(run))}</p>
</header>
{_tiles(run)}
{body}
</main>
</body>
</html>
"""


def _title(run: Run) -> str:
    names = [_name(run.config.get(field)) for field in ("method", "model", "data")]
    method, model, data = names
    if not any(names):
        return run.workdir.resolve().name
    title = " \N{EN DASH} ".join(name for name in (method, model) if name)
    return f"{title} on {data}" if data else title


def _claim(run: Run) -> str:
    reached = next(
        (
            f"{_measured(metric, value)} {words}"
            for metric, words in _REACHED.items()
            if (value := run.last(metric)) is not None
        ),
        None,
    )
    if not run.summary:
        claim = f"Under way: the last logged step is {run.step:,}"
        return f"{claim}, with {reached}." if reached else f"{claim}."
    claim = f"After {run.step:,} steps"
    if reached:
        claim += f": {reached}"
    if not run.masked:
        return f"{claim}, no weight masked."
    active, size = _totals(run.masked)
    return f"{claim} with {active:,} of {size:,} weights."


def _tiles(run: Run) -> str:
    tiles = []
    loss = run.last("loss")
    for metric, label in _HEADLINES.items():
        if (value := run.last(metric)) is not None:
            where = "in evaluation"
            detail = where if loss is None else f"{where}, loss {loss:.4g}"
            tiles.append((label, _measured(metric, value), detail))
    for name, value in (run.summary.get("references") or {}).items():
        tiles.append((_words(name), f"{value:.3f}", "without a network"))
    if run.masked:
        active, size = _totals(run.masked)
        zeros, count = f"{size - active:,} zeros", len(run.masked)
        detail = f"exactly {zeros} in {count} layer{'s' * (count > 1)}"
        tiles.append(("Sparsity", _percent(1 - active / size), detail))
    tiles += _cost_tiles(run.cost, masked=bool(run.masked)) if run.cost else []
    if "seconds" in run.summary:
        device = run.summary.get("device", "")
        tiles.append(("Wall time", _duration(run.summary["seconds"]), device))
    cells = "".join(
        f"<div class='tile'><div class='label'>{_text(label)}</div>"
        f"<div class='value'>{_text(value)}</div>"
        f"<div class='detail'>{_text(detail)}</div></div>"
        for label, value, detail in tiles
    )
    return f"<div class='tiles'>{cells}</div>"


def _cost_tiles(cost: Row, *, masked: bool) -> list[tuple[str, str, str]]:
    training = cost["training"]
    tiles = []
    for label, value, dense, detail in (
        ("Parameters", cost["active_parameters"], cost["parameters"], "in all"),
        ("Inference FLOPs", cost["sparse_flops"], cost["dense_flops"], "per example"),
        ("Training FLOPs", training["flops"], training["dense_flops"], "per example"),
    ):
        if masked and dense:
            detail = f"{short(value)} of {short(dense)} {detail}"
            tiles.append((label, _percent(value / dense), detail))
        else:
            tiles.append((label, short(value), detail))
    return tiles


def _layer_table(run: Run) -> str:
    rows = run.layers
    if not rows:
        return ""
    explored: Row = {}
    for row in run.rows.get("topology", ()):
        explored = row.get("exploration") or explored
    costed = any("dense_flops" in row for row in rows)
    heads = ["layer", "shape", "structure", "active", "weights", "density"]
    heads += ["FLOPs", "dense FLOPs"] * costed + ["explored"] * bool(explored)
    lines = []
    for row in [*rows, _total_row(rows)]:
        share = 100 * row["active"] / row["size"]
        bar = "" if row["shape"] is None else f"<i style='width:{share:.2f}%'></i>"
        cells = [
            _text(row["path"]),
            "&times;".join(map(str, row["shape"] or ())),
            _text(_name(row["structure"])),
            f"{row['active']:,}",
            f"{row['size']:,}",
            f"<div class='bar'>{bar}</div><span>{share:.2f} %</span>",
        ]
        if costed:
            flops = (row.get(name, 0) for name in ("sparse_flops", "dense_flops"))
            cells += [f"{round(value):,}" for value in flops]
        if explored:
            share = explored.get(row["path"])
            cells.append("" if share is None else f"{100 * share:.1f} %")
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines[:-1])}</tbody>"
        f"<tfoot>{lines[-1]}</tfoot></table>"
    )


def _total_row(rows: Sequence[Row]) -> Row:
    fields = ("active", "size", "sparse_flops", "dense_flops")
    sums = {field: sum(row.get(field, 0) for row in rows) for field in fields}
    count = f"{len(rows)} layer{'s' * (len(rows) > 1)}"
    return {"path": count, "shape": None, "structure": "", **sums}


def _reproduce(summary: Row) -> str:
    if not summary.get("command"):
        return ""
    commit = summary.get("commit")
    where = f"<p>At commit <code>{_text(commit)}</code>:</p>" if commit else ""
    return f"{where}<pre>{_text(summary['command'])}</pre>"


def _environment(summary: Row) -> Iterator[tuple[str, str]]:
    if "energy" in summary:
        yield "energy", summary["energy"]["text"]
    for field in ("data", "device", "seed", "versions"):
        if summary.get(field) is not None:
            yield from _flat(summary[field], "" if field == "versions" else field)


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in pairs
    )
    return f"<dl>{cells}</dl>" if cells else ""


def _flat(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{field}.{key}" if field else str(key))
    else:
        yield field, value if isinstance(value, str) else json.dumps(value)


def _picture(name: str, image: bytes, width: float) -> str:
    encoded = base64.b64encode(image).decode("ascii")
    style = f"width:{100 * width:.0f}px"
    return f'<img alt="{name}" style="{style}" src="data:image/png;base64,{encoded}">'


def _totals(rows: Sequence[Row]) -> tuple[int, int]:
    return sum(row["active"] for row in rows), sum(row["size"] for row in rows)


def _name(spec: Any) -> str:
    return str(spec.get("name", "") if isinstance(spec, Mapping) else spec or "")


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _measured(metric: str, value: float) -> str:
    return f"{value:{_NUMBERS[metric]}}" if metric in _NUMBERS else _percent(value)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _text(value: Any) -> str:
    return html.escape(str(value))
