"""How a sweep is shown: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import rich.console
import rich.live
import rich.table
import rich.text

from sparsejax.sweeps.watching import STATES, Watched

_COLOURS = {
    "finished": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
}
# What is worth a look stands first.
_ORDER = ("failed", "cancelled", "running", "waiting", "to start", "finished")
_METRICS = ("accuracy", "bits_per_byte", "mean_average_precision", "return", "loss")


class View(Protocol):
    """What a sweep is shown on; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, runs: Sequence[Watched]) -> None:
        """Shows how all runs stand."""
        ...

    def message(self, text: str) -> None:
        """Prints a line that stays."""
        ...


def view(*, stream: TextIO | None = None, seconds: float = 5.0) -> View:
    """Chooses how to show a sweep.

    Args:
      stream: Where to; default: standard output.
      seconds: Without a terminal, a line is printed this often, if anything changed.

    Returns:
      A live table if the stream is a terminal, plain lines otherwise.

    Example:
      >>> import io
      >>> stream = io.StringIO()
      >>> with view(stream=stream) as shown:
      ...     shown.message("hello")
      >>> stream.getvalue()
      'hello\\n'
    """
    output: Any = sys.stdout if stream is None else stream
    return Table(output) if output.isatty() else Lines(output, seconds)


class Table:
    """A table with a line for each run that fits, and one for the others.

    Args:
      stream: The terminal.
    """

    def __init__(self, stream: TextIO):
        self._console = rich.console.Console(file=stream, highlight=False)
        self._live = rich.live.Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, runs: Sequence[Watched]) -> None:
        """Draws the table."""
        title = f"{_counts(runs)}  ({_clock(time.monotonic() - self._began)})"
        table = rich.table.Table(
            "run", "state", "step", "so far", title=title, expand=True, box=None
        )
        ordered = sorted(runs, key=lambda run: _ORDER.index(run.state))
        room = max(3, self._console.height - 6)
        for run in ordered[:room]:
            colour = _COLOURS.get(run.state, "")
            table.add_row(
                rich.text.Text(run.trial.name, overflow="ellipsis", no_wrap=True),
                rich.text.Text(run.state, style=colour),
                f"{run.standing.step}/{run.steps}",
                rich.text.Text(_said(run), overflow="ellipsis", no_wrap=True),
            )
        if hidden := ordered[room:]:
            table.add_row(f"... and {_counts(hidden)}")
        self._live.update(table, refresh=True)

    def message(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False, soft_wrap=True)


class Lines:
    """A line with the counts and what is running, every few seconds.

    Args:
      stream: Where to.
      seconds: From one line to the next.
    """

    def __init__(self, stream: TextIO, seconds: float):
        self._stream, self._seconds = stream, seconds
        self._began = time.monotonic()
        self._next, self._last = 0.0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, runs: Sequence[Watched]) -> None:
        """Prints a line, if it is time for one and it says something new."""
        elapsed = time.monotonic() - self._began
        ended = all(run.state in STATES[3:] for run in runs)
        if elapsed < self._next and not ended:
            return
        running = [run for run in runs if run.state == "running"]
        shown = ", ".join(
            f"{run.trial.name} {run.standing.step}/{run.steps}" for run in running[:3]
        )
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""
        text = f"{_counts(runs)}{': ' if shown else ''}{shown}{more}"
        if text != self._last:
            self.message(f"{text}  ({_clock(elapsed)})")
        self._next, self._last = elapsed + self._seconds, text

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, file=self._stream, flush=True)


def _counts(runs: Sequence[Watched]) -> str:
    return ", ".join(_counted(runs)) or "no runs"


def _counted(runs: Sequence[Watched]) -> Iterator[str]:
    for state in ("finished", "running", "waiting", "to start", "failed", "cancelled"):
        count = sum(run.state == state for run in runs)
        if count or state == "finished":
            of = f" of {len(runs)}" if state == "finished" else ""
            yield f"{count}{of} {state}"


def _said(run: Watched) -> str:
    if run.standing.message:
        return run.standing.message
    values = run.standing.metrics
    return "  ".join(
        f"{name} {values[name]:.4f}" for name in _METRICS if name in values
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
