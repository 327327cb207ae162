"""Being asked to stop: finish the step, save, and leave."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Request:
    """Whether somebody has asked this process to stop.

    Attributes:
      signal: The name of the signal, or None so far.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def requested() -> Iterator[Request]:
    """Listens for SIGTERM and SIGINT within a block.

    The first signal is only noted. A second Ctrl-C interrupts at once, as usual.

    Yields:
      The request, false until a signal has come.
    """
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
