"""Telling the user what goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import rich.console
import rich.progress
import rich.table


class Progress(Protocol):
    """What the training loop tells; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def stage(self, description: str) -> None:
        """Says what is done from now on, such as ``"compiling"``."""
        ...

    def advance(self, step: int, text: str) -> None:
        """Says which step has been made, and how it stands."""
        ...

    def message(self, text: str) -> None:
        """Prints a line that stays."""
        ...


def progress(
    steps: int, *, stream: TextIO | None = None, seconds: float = 5
) -> Progress:
    """Chooses how to show progress.

    Args:
      steps: Steps in all.
      stream: Where to; default: standard output.
      seconds: Without a terminal, a line is printed this often.

    Returns:
      A bar if the stream is a terminal, plain lines otherwise.

    Example:
      >>> import io
      >>> stream = io.StringIO()
      >>> with progress(10, stream=stream) as shown:
      ...     shown.message("hello")
      >>> stream.getvalue()
      'hello\\n'
    """
    output: Any = sys.stdout if stream is None else stream
    return Bar(steps, output) if output.isatty() else Lines(steps, output, seconds)


class Bar:
    """A bar with the time taken and the time left.

    Args:
      steps: Steps in all.
      stream: The terminal.
    """

    def __init__(self, steps: int, stream: TextIO):
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.BarColumn(bar_width=16),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn(
                "{task.description}",
                markup=False,
                # Of what does not fit into the line, the text goes first.
                table_column=rich.table.Column(
                    ratio=1, no_wrap=True, overflow="ellipsis"
                ),
            ),
            expand=True,
            console=rich.console.Console(file=stream, highlight=False),
        )
        self._task = self._bar.add_task("starting", total=steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, description: str) -> None:
        """Shows the description beside the bar."""
        self._bar.update(self._task, description=description, refresh=True)

    def advance(self, step: int, text: str) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step, description=text)

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False, soft_wrap=True)


class Lines:
    """A line at each new stage, and one every few seconds, also within a long stage.

    Args:
      steps: Steps in all.
      stream: Where to.
      seconds: From one line to the next.
    """

    def __init__(self, steps: int, stream: TextIO, seconds: float):
        self._steps = steps
        self._stream = stream
        self._seconds = seconds
        self._text = "starting"
        self._began = time.monotonic()
        self._ended = threading.Event()
        # Compiling keeps the main thread busy for up to minutes.
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def stage(self, description: str) -> None:
        """Prints the description."""
        self._text = description
        self.message(f"{description} ...")

    def advance(self, step: int, text: str) -> None:
        """Remembers what the next line says."""
        self._text = f"step {step}/{self._steps}  {text}"

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, file=self._stream, flush=True)

    def _repeat(self) -> None:
        while not self._ended.wait(self._seconds):
            elapsed = time.monotonic() - self._began
            self.message(f"{self._text}  ({elapsed:.0f} s)")
