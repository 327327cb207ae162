import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from pretended_jobs import Pretended

from sparsejax.sweeps.trial import standing

# Counts its starts in a file, and ends as it is told for each.
COUNTED = """
import os, pathlib, sys
starts = pathlib.Path(sys.argv[1]) / "starts"
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
print("sparsejax.train: start", count)
end = {ends}[count]
os.kill(os.getpid(), 9) if end == -9 else sys.exit(end)
"""


def starts(folder):
    return len((folder / "starts").read_text())


@pytest.mark.parametrize(
    ("ends", "retries", "code", "count"),
    [
        ([0], 2, 0, 1),
        ([1, -9, 0], 2, 0, 3),
        ([1, 1, 1], 2, 1, 3),
        ([74], 0, 74, 1),
        ([75, 75, 75, 0], 0, 0, 4),
        ([2], 2, 2, 1),
        ([3], 2, 3, 1),
        ([-9, 4], 1, 4, 2),
    ],
)
def test_what_may_get_better_is_tried_again(tmp_path, ends, retries, code, count):
    job = Pretended(COUNTED.format(ends=ends), tmp_path / "run", retries)
    assert job() == code
    assert starts(tmp_path / "run") == count
    found = standing(tmp_path / "run", 10)
    assert found.state == ("failed" if code else "unfinished")
    if code:
        assert found.message == f"sparsejax.train: start {count - 1}"


# Gets as many steps further as it is told at each start, of which all but the last end
# by a kill.
ADVANCING = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
rows = folder / "metrics.jsonl"
steps = [json.loads(line)["step"] for line in open(rows)] if rows.exists() else []
further = {further}[len(steps)]
with open(rows, "a") as file:
    print(json.dumps(dict(step=sum(steps[-1:]) + further)), file=file)
if len(steps) + 1 < len({further}):
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("further", "retries", "code"),
    [
        ([5, 5, 5, 5, 5, 5], 1, 0),
        ([5, 0, 5, 0, 1], 2, 0),
        ([5, 0, 5, 0, 1], 1, -9),
        ([5, 0, 0, 0], 2, -9),
    ],
)
def test_only_what_gets_no_further_uses_up_its_retries(
    tmp_path, further, retries, code
):
    job = Pretended(ADVANCING.format(further=further), tmp_path / "run", retries)
    assert job() == code


def test_a_signal_is_named(tmp_path):
    assert Pretended(COUNTED.format(ends=[-9]), tmp_path)() == -9
    assert standing(tmp_path, 10).message == "killed by SIGKILL"


def test_a_run_that_was_put_right_is_not_failed(tmp_path):
    assert Pretended(COUNTED.format(ends=[1, 0]), tmp_path)() == 1
    assert Pretended(COUNTED.format(ends=[1, 0]), tmp_path)() == 0
    assert standing(tmp_path, 10).state == "unfinished"


SAVES = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / "saved").write_text("")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "ready").write_text("")
time.sleep(30)
"""


def soon(path):
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    return path.exists()


def test_sigterm_has_the_run_save_and_the_job_end(tmp_path):
    def ask():
        soon(tmp_path / "ready")
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert Pretended(SAVES, tmp_path)() == 75
    finally:
        signal.signal(signal.SIGTERM, before)
        thread.join()
    assert (tmp_path / "saved").exists()
    assert standing(tmp_path, 10).state == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the child")
def test_training_ends_with_its_job_and_is_deaf_to_submitit_s_signal(tmp_path):
    parent = f"""
import pathlib, sys
sys.path[:0] = {[os.path.dirname(__file__), *sys.path]!r}
from pretended_jobs import Pretended
Pretended({SAVES!r}, pathlib.Path({str(tmp_path)!r}))()
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    assert soon(tmp_path / "ready")
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(children) as file:
        (child,) = map(int, file.read().split())
    os.kill(child, signal.SIGUSR2)
    time.sleep(0.2)
    assert not (tmp_path / "saved").exists()
    process.kill()
    process.wait()
    assert soon(tmp_path / "saved")


def test_the_step_and_the_last_evaluation_are_read_from_a_broken_file(tmp_path):
    rows = [
        {"step": 10, "kind": "evaluation", "accuracy": 0.5},
        {"step": 15, "kind": "train", "loss": 1.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 20, "ki'
    (tmp_path / "metrics.jsonl").write_text(text)
    found = standing(tmp_path, 20)
    assert (found.state, found.step) == ("unfinished", 15)
    assert found.metrics["accuracy"] == 0.5
    (tmp_path / "summary.json").write_text('{"step": 20, "final": {"accuracy": 0.7}}')
    assert standing(tmp_path, 20).state == "finished"
    assert standing(tmp_path, 30).state == "unfinished"
