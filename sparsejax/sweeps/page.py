"""The HTML of a sweep's report: a table to sort, plots, tests, links to the runs."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.plot_style import INK, SPARSE, short
from sparsejax.report_style import STYLE
from sparsejax.sweeps.comparisons import Comparison
from sparsejax.sweeps.figures import Point
from sparsejax.sweeps.results import Result, grouped, more_is_better

_STYLE = f"""
th[data-sort] {{ cursor: pointer; }}
th[data-sort]:hover, th[aria-sort] {{ color: {INK}; }}
th[aria-sort=ascending]::after {{ content: " \\2191"; }}
th[aria-sort=descending]::after {{ content: " \\2193"; }}
th:nth-child(3), td:nth-child(3) {{ text-align: right; }}
th:first-child, td:first-child, th.text, td.text {{ text-align: left; }}
td small {{ color: #667382; }}
a {{ color: {SPARSE}; text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
.note {{ color: #667382; font-size: 13px; max-width: 90ch; margin: 12px 0 0; }}
.front td:first-child::before {{ content: "\\25CF  "; color: {SPARSE}; }}
.scroll {{ max-height: 560px; overflow: auto; }}
"""

# Sorts the rows of a table by the column that is clicked, numbers by their value.
_SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) {
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? "";
    const order = (a, b) => {
      const x = value(a), y = value(b), n = Number(x) - Number(y);
      if (x === "" || y === "") return (x === "") - (y === "");
      return (up ? 1 : -1) * (Number.isNaN(n) ? x.localeCompare(y) : n);
    };
    body.append(...[...body.rows].sort(order));
  };
  head.tabIndex = 0;
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""


class Tested(NamedTuple):
    """One comparison of two series at the same other settings.

    Attributes:
      panel: The other settings.
      first: A series.
      second: Another.
      comparison: Their values by seeds.
      corrected: The sign-flip p-value, corrected for how many tests there are.
    """

    panel: str
    first: str
    second: str
    comparison: Comparison
    corrected: float


def page(
    title: str,
    results: Sequence[Result],
    metric: str,
    points: Sequence[Point],
    front: set[str],
    images: Mapping[str, tuple[bytes, float]],
    tests: Sequence[Tested],
) -> str:
    """Writes the report of a sweep as one HTML document.

    Args:
      title: Its heading.
      results: The runs.
      metric: What they are compared by.
      points: Means over seeds, a row of the leaderboard each.
      front: Labels of settings on a Pareto front.
      images: Name of a figure to its PNG and its width in inches.
      tests: Comparisons.

    Returns:
      The document; nothing is loaded from elsewhere, and runs are linked by relative
      paths.
    """

    def pictures(*names: str) -> str:
        shown = "".join(_picture(n, *images[n]) for n in names if n in images)
        return f"<div class='pictures'>{shown}</div>" if shown else ""

    tradeoffs = [name for name in images if name != "curves"]
    sections = {
        "Leaderboard": _leaderboard(results, metric, points, front),
        f"{_words(metric)} against cost": pictures(*tradeoffs),
        "Learning": pictures("curves"),
        "Paired tests": _tests(tests, metric),
        "Runs": _runs(results, metric),
    }
    body = "\n".join(
        f"<section><h2>{_text(name)}</h2>{content}</section>"
        for name, content in sections.items()
        if content
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}{_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kicker">sparsejax sweep</p>
<h1>{_text(title)}</h1>
<p class="claim">{_text(_claim(results, metric, points))}</p>
</header>
{body}
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _claim(results: Sequence[Result], metric: str, points: Sequence[Point]) -> str:
    ended = sum(result.finished for result in results)
    seeds = sorted({len(group) for group in grouped(results).values()})
    many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    best = _ranked(points, metric)[0]
    claim = (
        f"{len(results)} runs of {len(points)} settings, {many} "
        f"seed{'s' * (seeds[-1] > 1)} each. Best: {best.label}, "
        f"{_words(metric).lower()} {_number(best.value.mean, metric)}."
    )
    if ended < len(results):
        claim += f" {len(results) - ended} runs are not finished: theirs is the latest."
    return claim


def _leaderboard(
    results: Sequence[Result],
    metric: str,
    points: Sequence[Point],
    front: set[str],
) -> str:
    groups = grouped(results)
    columns = [
        ("sparsity", "sparsity", lambda v: f"{100 * v:.2f} %"),
        ("parameters", "parameters", short),
        ("flops", "FLOPs", short),
        ("training_flops", "training FLOPs", short),
        ("bytes", "bytes", lambda v: f"{short(v)}B"),
        ("seconds", "seconds", lambda v: f"{v:.0f}"),
        ("joules", "joules", short),
    ]
    columns = [c for c in columns if any(c[0] in point.costs for point in points)]
    heads = [_head("setting", "text"), _head(_words(metric).lower()), _head("seeds")]
    heads += [_head(words) for _, words, _ in columns]
    heads += ["<th class='text'>runs, by seed</th>"]
    rows = []
    for point in _ranked(points, metric):
        group, (mean, low, high) = groups[point.label], point.value
        interval = f"{_number(low, metric)} to {_number(high, metric)}"
        cells = [
            _cell(_text(point.label), point.label, "text"),
            _cell(f"{_number(mean, metric)} <small>{interval}</small>", mean),
            _cell(str(len(group)), len(group)),
        ]
        for name, _, write in columns:
            value = point.costs.get(name)
            cells.append(_cell("" if value is None else write(value), value))
        links = " ".join(_link(result, str(result.seed)) for result in group)
        cells.append(f"<td class='text'>{links}</td>")
        mark = " class='front'" if point.label in front else ""
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    note = (
        "Mean of the last evaluation over seeds, and its 95 % bootstrap interval. "
        "Costs are means: parameters that are not zero, FLOPs per example, bytes as "
        "stored in values and indices where that is less than dense. A dot: on one of "
        "the Pareto fronts below. Click a heading to sort."
    )
    return _table(heads, rows) + f"<p class='note'>{note}</p>"


def _tests(tests: Sequence[Tested], metric: str) -> str:
    if not tests:
        return ""
    heads = [_head("at", "text"), _head("first", "text"), _head("second", "text")]
    unit = " in points" if "%" in _number(0.0, metric) else ""
    heads += map(
        _head, (f"difference{unit}", "seeds", "paired t", "t, Holm", "sign flip")
    )
    rows = []
    for test in tests:
        mean, low, high = test.comparison.difference
        interval = f"{_signed(low, metric)} to {_signed(high, metric)}"
        cells = [
            _cell(_text(test.panel), test.panel, "text"),
            _cell(_text(test.first), test.first, "text"),
            _cell(_text(test.second), test.second, "text"),
            _cell(f"{_signed(mean, metric)} <small>{interval}</small>", mean),
            _cell(str(test.comparison.count), test.comparison.count),
        ]
        for p in (test.comparison.paired_t, test.corrected, test.comparison.sign_flip):
            known = not math.isnan(p)
            cells.append(_cell(_probability(p) if known else "", p if known else None))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    least = min(test.comparison.count for test in tests)
    note = (
        "First less second, by pairs of runs with the same seed, and its 95 % "
        "bootstrap interval. p-values are two-sided: of the paired t-test, the same "
        "corrected for all tests of this table by Holm's method, and of the exact "
        "permutation test over signs, which needs no normal distribution; with "
        f"{least} seeds that cannot fall below {2 / 2**least:.2g}."
    )
    return f"<div class='scroll'>{_table(heads, rows)}</div><p class='note'>{note}</p>"


def _runs(results: Sequence[Result], metric: str) -> str:
    heads = [_head("run", "text"), _head(_words(metric).lower()), _head("step")]
    heads += [_head("state", "text")]
    rows = []
    for result in results:
        value, name = result.metrics[metric], result.run.workdir.name
        state = "finished" if result.finished else "under way"
        cells = [
            _cell(_link(result, name), name, "text"),
            _cell(_number(value, metric), value),
            _cell(f"{result.run.step:,}", result.run.step),
            _cell(state, state, "text"),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class='scroll'>{_table(heads, rows)}</div>"


def _ranked(points: Sequence[Point], metric: str) -> list[Point]:
    better = more_is_better(metric)
    return sorted(points, key=lambda point: point.value.mean, reverse=better)


def _link(result: Result, words: str) -> str:
    folder = result.run.workdir
    name = "report.html" if (folder / "report.html").exists() else "metrics.jsonl"
    target = html.escape(f"{folder.name}/{name}", quote=True)
    return f'<a href="{target}">{_text(words)}</a>'


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    return (
        f"<table><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _head(words: str, kind: str = "") -> str:
    return f"<th data-sort class='{kind}'>{_text(words)}</th>"


def _cell(content: str, value: Any, kind: str = "") -> str:
    stored = "" if value is None else html.escape(str(value), quote=True)
    return f'<td class="{kind}" data-value="{stored}">{content}</td>'


def _picture(name: str, image: bytes, width: float) -> str:
    encoded = base64.b64encode(image).decode("ascii")
    style = f"width:{100 * width:.0f}px"
    return f'<img alt="{name}" style="{style}" src="data:image/png;base64,{encoded}">'


def _number(value: float, metric: str) -> str:
    share = metric in ("accuracy", "mean_average_precision")
    return f"{100 * value:.2f} %" if share else f"{value:.4g}"


def _signed(value: float, metric: str) -> str:
    # Of shares, percentage points.
    written = _number(abs(value), metric).replace(" %", "")
    return ("+" if value >= 0 else "\N{MINUS SIGN}") + written


def _probability(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    return html.escape(str(value))
