import json

import pytest
from sweep_runs import make_run

from sparsejax import workdir
from sparsejax.sweeps import plan
from sparsejax.sweeps.watching import Sweep


class Pretending:
    """A launcher whose jobs do what the test writes into their folders."""

    name, stopped, stays, grace = "pretending", False, True, 0.0

    def __init__(self, capacity=10):
        self.capacity, self.submitted, self.now = capacity, [], {}

    def room(self, active):
        return self.capacity - active

    def submit(self, jobs):
        names = [f"job{len(self.submitted) + i}" for i in range(len(jobs))]
        self.submitted += [job.folder for job in jobs]
        self.now |= dict.fromkeys(names, "running")
        return names

    def states(self, jobs):
        return {job: self.now.get(job, "ended") for job in jobs}

    def stop(self, jobs):
        self.now |= dict.fromkeys(jobs, "ended")

    def end(self, number, state="ended"):
        self.now[f"job{number}"] = state


@pytest.fixture
def trials():
    return plan.expand("rigl_mlp", ["seed=0..2"], ["--config.steps=20"])


def begin(trials, folder, launcher, retries=1):
    return Sweep(trials, folder, launcher, retries=retries, report=lambda _: None)


def finish(folder, config):
    (folder / "config.json").unlink(missing_ok=True)
    for file in list(folder.glob("*")):
        file.unlink()
    folder.rmdir()
    make_run(folder, config=config, accuracies=[0.5, 0.6])


def states(sweep):
    return [run.state for run in sweep.runs]


def test_finished_runs_are_skipped(tmp_path, trials):
    make_run(tmp_path / trials[1].name, config={}, accuracies=[0.5, 0.6])
    launcher = Pretending()
    sweep = begin(trials, tmp_path, launcher)
    sweep.start()
    assert states(sweep) == ["waiting", "finished", "waiting"]
    names = [folder.name for folder in launcher.submitted]
    assert names == [trials[0].name, trials[2].name]


def test_no_more_run_at_once_than_there_is_room_for(tmp_path, trials):
    launcher = Pretending(capacity=2)
    sweep = begin(trials, tmp_path, launcher)
    for _ in range(3):
        sweep.start()
        sweep.step()
    assert states(sweep) == ["running", "running", "to start"]
    finish(launcher.submitted[0], {})
    launcher.end(0)
    sweep.step()
    sweep.start()
    assert states(sweep) == ["finished", "running", "waiting"]


def test_a_job_that_is_gone_is_started_again_as_often_as_was_said(tmp_path, trials):
    launcher = Pretending()
    sweep = begin(trials[:1], tmp_path, launcher, retries=2)
    for number in range(3):
        sweep.start()
        launcher.end(number)
        sweep.step()
    assert states(sweep) == ["failed"]
    assert len(launcher.submitted) == 3
    assert "3 times without a word" in sweep.runs[0].standing.message


def test_a_job_that_gets_on_may_be_lost_any_number_of_times(tmp_path, trials):
    launcher = Pretending()
    sweep = begin(trials[:1], tmp_path, launcher, retries=0)
    for number in range(5):
        sweep.start()
        row = {"step": number + 1, "kind": "train", "loss": 1.0}
        path = sweep.runs[0].folder / "metrics.jsonl"
        path.write_text(json.dumps(row) + "\n")
        launcher.end(number)
        sweep.step()
    assert states(sweep) == ["to start"]


def test_a_run_that_says_why_it_failed_is_not_started_again(tmp_path, trials):
    launcher = Pretending()
    sweep = begin(trials[:1], tmp_path, launcher, retries=5)
    sweep.start()
    verdict = {"code": 3, "message": "the loss is nan"}
    workdir.write_json(launcher.submitted[0] / "verdict.json", verdict)
    launcher.end(0)
    sweep.step()
    assert sweep.over
    assert sweep.runs[0].standing.message == "the loss is nan"
    # Who gives the command again means to try it anew.
    again = begin(trials[:1], tmp_path, launcher)
    assert states(again) == ["to start"]
    again.start()
    assert not (launcher.submitted[1] / "verdict.json").exists()


def test_what_was_cancelled_stays_so(tmp_path, trials):
    launcher = Pretending()
    sweep = begin(trials[:1], tmp_path, launcher)
    sweep.start()
    launcher.end(0, "cancelled")
    sweep.step()
    assert states(sweep) == ["cancelled"]


def test_jobs_of_an_earlier_launcher_are_not_started_twice(tmp_path, trials):
    launcher = Pretending()
    begin(trials, tmp_path, launcher).start()
    launcher.end(1)
    again = begin(trials, tmp_path, launcher)
    assert states(again) == ["running", "to start", "running"]
    again.start()
    assert len(launcher.submitted) == 4


def test_a_run_that_somebody_else_trains_is_waited_for(tmp_path, trials):
    launcher = Pretending()
    folder = tmp_path / trials[0].name
    with workdir.locked(folder):
        sweep = begin(trials[:1], tmp_path, launcher)
        sweep.start()
        sweep.step()
        assert states(sweep) == ["running"]
    assert not launcher.submitted
    finish(folder, {})
    sweep.step()
    assert states(sweep) == ["finished"]


def test_another_sweep_finds_a_run_by_its_hash(tmp_path, trials):
    sweep = begin(trials[:1], tmp_path, Pretending())
    sweep.start()
    finish(sweep.runs[0].folder, {})
    same = plan.expand("rigl_mlp", ["method.sparsity=0.95"], ["--config.steps=20"])
    assert same[0].name != trials[0].name
    assert states(begin(same, tmp_path, Pretending())) == ["finished"]
