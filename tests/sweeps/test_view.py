import io
import pathlib

from sparsejax.sweeps.plan import Trial
from sparsejax.sweeps.trial import Standing
from sparsejax.sweeps.view import Lines, Table, view
from sparsejax.sweeps.watching import Watched


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(name, state, step=0, message="", **metrics):
    trial = Trial(name, (), {}, {"steps": 100}, "--vary")
    found = Standing(state, step, metrics, message)
    return Watched(trial, pathlib.Path(name), state, found)


RUNS = [
    run("a", "finished", 100, accuracy=0.9),
    run("b", "running", 40, accuracy=0.51239),
    run("c", "failed", 10, "killed [by] SIGKILL"),
    run("d", "to start"),
]


def test_elsewhere_there_is_a_line_when_something_has_changed():
    stream = io.StringIO()
    with view(stream=stream, seconds=0) as shown:
        assert isinstance(shown, Lines)
        shown.show(RUNS)
        shown.show(RUNS)
        shown.show([*RUNS[:3], run("d", "running", 1)])
    first, second = stream.getvalue().splitlines()
    assert first.startswith(
        "1 of 4 finished, 1 running, 1 to start, 1 failed: b 40/100"
    )
    assert second.startswith("1 of 4 finished, 2 running, 1 failed: b 40/100, d 1/100")


def test_on_a_terminal_there_is_a_table():
    stream = Terminal()
    with view(stream=stream) as shown:
        assert isinstance(shown, Table)
        shown.show(RUNS)
        shown.message("resumed [bold]")
    text = stream.getvalue()
    for part in ("1 of 4 finished", "40/100", "accuracy 0.5124", "killed [by] SIGKILL"):
        assert part in text
    assert "resumed [bold]" in text


def test_what_does_not_fit_is_counted():
    stream = Terminal()
    with view(stream=stream) as shown:
        shown.show([run(f"r{i}", "finished", 100) for i in range(200)])
    assert "more" not in stream.getvalue()
    assert "... and" in stream.getvalue()
