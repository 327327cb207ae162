"""A run that is killed at any moment comes to the same end: fifty times."""

import concurrent.futures
import random
import shutil
import signal
import time

import pytest
from test_train import assert_same_run, compiled_once, launch

from sparsejax import train

__all__ = ["compiled_once"]

pytestmark = pytest.mark.slow

OFTEN = [
    "--config.log_every=1",
    "--config.evaluate_every=4",
    "--config.keep_checkpoints=30",
]
# It is being saved nearly all the time, or seldom.
SAVES = ["--config.checkpoint_every=2", "--config.checkpoint_every=10"]


def rows_of(folder):
    file = folder / "metrics.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def kill(folder, seed):
    """Kills a run while it saves, or some time after a random row of its metrics.

    Returns:
      What it was doing: ``"saving"`` or ``"training"``; None if it was over too soon.
    """
    rng = random.Random(seed)
    process = launch(folder, *OFTEN, SAVES[seed % 2])
    lines, saving = rng.randint(1, 55), seed % 2 == 0
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if rows_of(folder) >= lines:
            if not saving:
                time.sleep(rng.uniform(0, 0.03))
                break
            if list(folder.glob("checkpoints/*.orbax-checkpoint-tmp")):
                time.sleep(rng.uniform(0, 0.003))
                break
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return None
    half = list(folder.glob("checkpoints/*.orbax-checkpoint-tmp"))
    return "saving" if half else "training"


def killed_and_resumed(folder, seed, whole):
    while (found := kill(folder, seed)) is None:
        shutil.rmtree(folder)
        seed += 1000
    again = launch(folder, *OFTEN, SAVES[seed % 2])
    said = again.communicate(timeout=300)[0]
    assert again.returncode == train.FINISHED, said
    assert_same_run(folder, whole)
    return found


def test_fifty_kills_change_nothing(tmp_path, data_dir):
    whole = tmp_path / "whole"
    process = launch(whole, *OFTEN, SAVES[0])
    said = process.communicate(timeout=300)[0]
    assert process.returncode == train.FINISHED, said
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        doing = list(
            pool.map(
                lambda seed: killed_and_resumed(tmp_path / str(seed), seed, whole),
                range(50),
            )
        )
    print({one: doing.count(one) for one in set(doing)})
    assert doing.count("saving") >= 10
    assert doing.count("training") >= 10
