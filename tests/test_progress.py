import io
import time

from sparsejax.progress import Bar, Lines, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_a_line_comes_every_few_seconds_also_within_a_stage():
    stream = io.StringIO()
    with progress(10, stream=stream, seconds=0.05) as shown:
        assert isinstance(shown, Lines)
        shown.stage("compiling")
        time.sleep(0.3)
        shown.advance(3, "loss 0.5")
        time.sleep(0.3)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "compiling ..."
    assert sum(line.startswith("compiling  (") for line in lines) >= 2
    assert sum(line.startswith("step 3/10  loss 0.5") for line in lines) >= 2
    printed = len(lines)
    time.sleep(0.15)
    assert len(stream.getvalue().splitlines()) == printed


def test_on_a_terminal_there_is_a_bar():
    stream = Terminal()
    with progress(10, stream=stream) as shown:
        assert isinstance(shown, Bar)
        shown.stage("compiling")
        shown.advance(3, "loss [0.5]")
        shown.message("saved [bold]")
    assert "compiling" in stream.getvalue()
    assert "3/10" in stream.getvalue()
    assert "loss [0.5]" in stream.getvalue()
    assert "saved [bold]" in stream.getvalue()
