"""What all plots share: colours, axes, and how numbers are written."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from sparsejax.extras import require

INK, MUTED, GRID, PAPER = "#1d2733", "#667382", "#e6eaee", "#ffffff"
SPARSE, DENSE, EVALUATION = "#2b6cb0", "#d5dce3", "#dd7a1f"
GROWN, DROPPED, OVERHEAD = "#2a8c7f", "#c2513f", "#c99a3b"

_DOTS_PER_INCH = 160
# A page shows an inch as 100 CSS pixels: two halves and a gap, or one full width.
HALF, FULL = 5.1, 10.42
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": [
        "Inter",
        "Helvetica",
        "Arial",
        "Liberation Sans",
        "DejaVu Sans",
    ],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b8c2cc",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.fontsize": 8.6,
    "legend.handlelength": 1.3,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0,
    "legend.borderpad": 0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
}


def save(figure: Any, path: pathlib.Path | io.BytesIO) -> None:
    """Writes a figure as PNG, to a file or into memory."""
    matplotlib = require("matplotlib", extra="train")
    # Fonts are looked up when the figure is drawn.
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)


def short(value: float) -> str:
    """Writes a count with three digits and a unit: `12.3 M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            digits = max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:,.0f}"


def drawn(width: float, height: float, draw: Callable[[Any], None]) -> Any:
    """Makes a figure of that size in inches and has `draw` fill it, in our style."""
    matplotlib = require("matplotlib", extra="train")
    figures = require("matplotlib.figure", extra="train")
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        draw(figure)
    return figure


def titles(axes: Any, title: str, detail: str) -> None:
    """Writes what is seen above the axes, and below it the unit."""
    axes.set_title(f"{title}\n", loc="left", fontsize=10.8, weight="bold", pad=6)
    axes.annotate(
        detail,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 8),
        textcoords="offset points",
        color=MUTED,
        fontsize=9,
    )


def steps_axis(axes: Any, intervals: int = 6) -> None:
    """Makes the horizontal axis count training steps from 0."""
    ticker = require("matplotlib.ticker", extra="train")
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=intervals, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def mark(axes: Any, step: int | None, height: float) -> None:
    """Marks the step after which masks stay fixed; `height` places the words."""
    if step is None or not 0 < step < axes.get_xlim()[1]:
        return
    axes.axvline(step, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        "masks fixed",
        (step, height),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=MUTED,
        fontsize=8.2,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )


def legend(axes: Any) -> None:
    """Puts the legend above the axes, on the right."""
    # Beside the subtitle, where no curve can be.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=3)


def bars(axes: Any, dense: Sequence[float], sparse: Sequence[float]) -> None:
    """Draws bars from the top: the dense value in grey, over it the sparse one."""
    places = range(len(dense))
    colours = [
        SPARSE if s <= d else OVERHEAD for s, d in zip(sparse, dense, strict=True)
    ]
    axes.barh(places, dense, 0.7, color=DENSE)
    axes.barh(places, sparse, 0.7, color=colours)


def bare(axes: Any) -> None:
    """Removes what bars with labels do not need."""
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def beside(axes: Any, place: float, end: float, text: str, **style: Any) -> None:
    """Writes a text right of the axes, ending `end` points from their edge."""
    axes.annotate(
        text,
        (1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(end, 0),
        textcoords="offset points",
        annotation_clip=False,
        **{"ha": "right", "va": "center", "fontsize": 8.4, **style},
    )


def tick(value: float) -> str:
    """Writes a count for an axis: `1.5 M`, `2 M`."""
    number, *unit = short(value).split(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return " ".join([number, *unit])


def percent(value: float) -> str:
    """Writes a percentage; one below 100 % never reads as 100 %."""
    if value >= 100:
        return f"{value:.0f} %"
    if value >= 99.95:
        return "> 99.9 %"
    return f"{value:.1f} %" if value >= 0.95 else f"{value:.2g} %"
