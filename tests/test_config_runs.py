"""Every config trains, small and on embedded data, for twenty steps."""

import json
import math

import pytest
from ml_collections import ConfigDict
from test_configs import ARGUMENTS

from sparsejax import configuration, training

STEPS = 20
TEXT = {
    "name": "python_standard_library",
    "context": 32,
    "batch_size": 8,
    "evaluation_rows": 64,
}


def runs():
    """Every config with each argument that changes more than the length.

    Those of agents are in test_agent_runs.
    """
    for name in configuration.available():
        if configuration.load(name).get("updates_per_call"):
            continue
        network = next((n for n in ARGUMENTS if name.endswith(n)), None)
        for argument in ARGUMENTS.get(network, (None,)):
            if argument != "imagenet_5x":
                yield f"{name}:{argument}" if argument else name


def shrunk(spec):
    """The config with a small network, small images and all phases in 20 steps."""
    config = configuration.load(spec)
    factor = STEPS / config.steps
    with config.ignore_type(), config.unlocked():
        text = "transformer" in config.model.name
        config.data = TEXT if text else {"name": "digits", "batch_size": 32}
        if config.model.name == "transformer_classifier":
            config.data = {"name": "python_packages", "context": 64, "batch_size": 8}
        if config.task == "detect":
            config.data = {"name": "digit_scenes", "batch_size": 8, "augment": False}
        if isinstance(config.method.get("distribution"), ConfigDict):
            # Images of one channel leave the first layer dense by themselves.
            config.method.distribution = "erk"
        if config.model.name == "resnet":
            config.model.update({"depth": 18, "width": 8})
        elif config.model.name in ("mobilenet_v1", "ssd_mobilenet_v1"):
            config.model.width = 0.25
        elif "transformer" in config.model.name:
            config.model.update({"size": "tiny", "layers": 2, "width": 64})
            config.start_from.workdir = ""
        elif config.model.name == "wide_resnet":
            config.model.update({"depth": 10, "width": 1})
        schedule = config.learning_rate_schedule
        schedule.warmup_steps = round(schedule.warmup_steps * factor)
        if "boundaries" in schedule:
            scaled = (round(boundary * factor) for boundary in schedule.boundaries)
            schedule.boundaries = tuple(scaled)
        for field in ("start", "stop"):
            if config.method.get(field):
                config.method[field] = max(1, round(config.method[field] * factor))
        if "every" in config.method:
            config.method.every = 1
        for field in ("log_every", "evaluate_every", "checkpoint_every"):
            config[field] = STEPS
        config.steps = STEPS
    return config


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*runs()])
def test_twenty_steps(spec, tmp_path, data_dir):
    folder = tmp_path / "run"
    command = configuration.Command(shrunk(spec), spec, folder, "")
    assert training.run(command) == training.FINISHED
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["step"] == STEPS
    assert math.isfinite(summary["train"]["loss"])
    active = sum(layer["active"] for layer in summary["layers"])
    assert active > 0 or spec.startswith("dense")
    assert (folder / "report.html").stat().st_size > 10_000
