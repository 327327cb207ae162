"""Every file of configs/ is checked by existing."""

import ast
import json
import pathlib
import re

import pytest

import sparsejax
from sparsejax import configuration, recipes, validation
from sparsejax.building import ConfigError, parameters, resolve

NAMES = configuration.available()

# Of the networks that train on more than the embedded digits.
ARGUMENTS = {
    "resnet50": ("digits", "imagenet", "imagenet_5x"),
    "ppo_cartpole": ("cartpole",),
    "ssd_mobilenet_v1": ("scenes", "voc", "coco"),
    "mobilenet_v1": ("digits", "imagenet"),
    "wide_resnet": ("digits", "cifar10"),
    "transformer": ("python", "lm1b", "c4"),
    "transformer_classifier": ("python",),
    "dqn_cartpole": ("cartpole",),
    "dqn_breakout": ("breakout", "cnn"),
    "sac_pendulum": ("pendulum",),
    "sac_halfcheetah": ("halfcheetah",),
    "sac_ant": ("ant",),
}


def test_all_that_were_promised_are_there():
    methods = ("dense", "static", "set", "rigl", "magnitude")
    networks = {
        "mlp": methods,
        "resnet50": (*methods, "srigl", "ac_dc", "soft_threshold"),
        "mobilenet_v1": ("dense", "static", "rigl", "magnitude", "autosparse"),
        "wide_resnet": methods,
        "ssd_mobilenet_v1": ("dense", "rigl"),
        "transformer": (
            *methods,
            "srigl",
            "sr_ste",
            "s_ste",
            "rigl_block",
            "dense_finetuned",
            "static_pruned",
        ),
        "dqn_cartpole": methods,
        "dqn_breakout": methods,
        "sac_pendulum": methods,
        "sac_halfcheetah": methods,
        "sac_ant": methods,
        "ppo_cartpole": ("dense", "rigl"),
    }
    expected = {
        f"{method}_{network}" for network in networks for method in networks[network]
    }
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEveryConfig:
    def test_has_what_a_reader_needs(self, name):
        document = ast.get_docstring(ast.parse(configuration.find(name).read_text()))
        for heading in ("Paper: ", "Cost: ", "Expected: "):
            assert heading in document
        command = f"python -m sparsejax.train --config=configs/{name}.py\n"
        assert command in document
        override = re.search(rf"--config={name} (--config\.\S+)", document)
        assert override, "one override as an example"
        configuration.parse([f"--config={name}", override[1]])

    def test_passes_the_checks_and_can_be_stored(self, name):
        config = configuration.load(name)
        validation.check(config)
        assert json.loads(json.dumps(config.to_dict())) is not None

    def test_gives_its_method_arguments_that_it_has(self, name):
        for argument in _arguments(name):
            config = configuration.load(f"{name}:{argument}")
            validation.check(config)
            method = config.method.to_dict()
            function = resolve("method", method.pop("name"), "sparsejax.methods")
            assert set(method) <= set(parameters(function))

    def test_names_its_method_first(self, name):
        method = configuration.load(name).method.name
        assert name == "mlp" or name.startswith(f"{method}_")

    def test_sweeps_over_fields_that_it_has(self, name):
        overrides = list(configuration.module(name).sweep())
        assert len(overrides) > 1
        assert len({json.dumps(o, sort_keys=True) for o in overrides}) == len(overrides)
        for one in overrides:
            config = configuration.load(name)
            config.update_from_flattened_dict(one)
            validation.check(config)

    def test_rejects_an_argument_that_it_has_not(self, name):
        # The argument of `mlp` is a method; the others name theirs.
        first = f"{name}:{_arguments(name)[0]}"
        expected = "known: .*rigl" if name == "mlp" else f"nothing.*{first}"
        with pytest.raises(ConfigError, match=expected):
            configuration.load(f"{name}:nothing")


def _arguments(name):
    if name == "mlp":
        return sparsejax.METHODS
    for network, arguments in ARGUMENTS.items():
        if name.endswith(network):
            return arguments
    return ("digits",)


def test_the_imagenet_recipe_is_the_published_one():
    config = configuration.load("rigl_resnet50:imagenet")
    assert config.steps == 32_000
    assert config.data.batch_size == 4096
    assert config.label_smoothing == 0.1
    assert config.optimizer.learning_rate == 0.1 * 4096 / 256
    assert config.optimizer.weight_decay == 1e-4
    assert (config.method.every, config.method.stop) == (100, 25_000)
    assert config.method.drop_fraction.to_dict() == {"name": "cosine", "initial": 0.3}
    assert (config.method.distribution, config.method.sparsity) == ("erk", 0.8)
    # 1,281,167 images: epochs 5 (warm-up), 30, 70 and 90.
    schedule = config.learning_rate_schedule
    epochs = [schedule.warmup_steps, *schedule.boundaries]
    assert [round(step * 4096 / 1_281_167, 2) for step in epochs] == [5, 30, 70, 90]


def test_five_times_as_long_is_five_times_everything():
    once = configuration.load("rigl_resnet50:imagenet")
    longer = configuration.load("rigl_resnet50:imagenet_5x")
    assert (longer.steps, longer.method.stop) == (5 * once.steps, 5 * once.method.stop)
    assert longer.method.every == once.method.every
    pairs = zip(
        longer.learning_rate_schedule.boundaries,
        once.learning_rate_schedule.boundaries,
        strict=True,
    )
    assert all(abs(late - 5 * early) <= 2 for late, early in pairs)


def test_the_cifar_recipe_is_the_published_one():
    config = configuration.load("rigl_wide_resnet:cifar10")
    assert (config.steps, config.data.batch_size) == (97_656, 128)
    schedule = config.learning_rate_schedule
    assert (schedule.boundaries, schedule.factor) == ((30_000, 60_000, 90_000), 0.2)
    assert config.optimizer.weight_decay == 5e-4
    assert (config.method.every, config.method.stop) == (100, 75_000)
    pruning = configuration.load("magnitude_wide_resnet:cifar10").method
    assert (pruning.start, pruning.stop, pruning.every) == (20_000, 75_000, 1_000)


def test_other_imagenet_recipes_are_the_published_ones():
    srigl = configuration.load("srigl_resnet50:imagenet")
    assert (srigl.data.batch_size, srigl.steps, srigl.method.every) == (
        512,
        256_000,
        800,
    )
    assert srigl.optimizer.learning_rate == 0.2
    for name, decay in (("ac_dc", 3.05e-5), ("soft_threshold", 2.251757813e-5)):
        config = configuration.load(f"{name}_resnet50:imagenet")
        optimizer = config.optimizer
        assert (optimizer.learning_rate, optimizer.momentum) == (0.256, 0.875)
        assert optimizer.weight_decay == decay
    epoch = 1_281_167 // 256
    phases = configuration.load("ac_dc_resnet50:imagenet").method
    starts = (phases.start, phases.every, phases.stop)
    assert starts == (10 * epoch, 5 * epoch, 85 * epoch)
    # The authors' stairs for MobileNets, and the first layer dense.
    config = configuration.load("rigl_mobilenet_v1:imagenet")
    schedule = config.learning_rate_schedule
    epochs = [schedule.warmup_steps, *schedule.boundaries]
    assert [round(step * 4096 / 1_281_167, 2) for step in epochs] == [8, 40, 75, 95]


def test_digits_is_the_default():
    assert configuration.load("rigl_mlp") == configuration.load("rigl_mlp:digits")
    assert configuration.load("rigl_resnet50").data.name == "digits"


def test_intervals_follow_an_override_of_the_steps():
    config = configuration.parse(
        ["--config=magnitude_mlp", "--config.steps=400"]
    ).config
    assert (config.steps, config.method.start, config.method.stop) == (400, 50, 300)
    one = ["--config=rigl_mlp", "--config.steps=400", "--config.method.stop=200"]
    assert configuration.parse(one).config.method.stop == 200


@pytest.mark.parametrize(
    "spec",
    ["rigl_mlp", "rigl_mlp.py", "configs/rigl_mlp.py", "configs/rigl_mlp.py:digits"],
)
def test_a_config_is_found_from_any_folder(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configuration.find(spec).name == "rigl_mlp.py"
    assert configuration.load(spec).method.name == "rigl"


def test_an_installed_package_has_its_configs_inside(tmp_path, monkeypatch):
    package = tmp_path / "sparsejax"
    (package / "configs").mkdir(parents=True)
    (package / "configs" / "only_here.py").write_text("")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "of_somebody_else.py").write_text("")
    monkeypatch.setattr(configuration, "_PACKAGE", package)
    assert configuration.available() == ["only_here"]
    assert configuration.find("configs/only_here.py").parent == package / "configs"


def test_a_file_of_the_user_goes_before_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rigl_mlp.py").write_text(
        "from sparsejax import recipes\n"
        "def get_config(argument='3'):\n"
        "    config = recipes.mlp('set')\n"
        "    config.seed = int(argument)\n"
        "    return config\n"
    )
    assert configuration.load("rigl_mlp.py").seed == 3
    assert configuration.load("rigl_mlp.py:5").seed == 5
    assert configuration.load("rigl_mlp").method.name == "rigl"


def test_names_and_run_directories():
    command = configuration.parse(["--config=configs/rigl_resnet50.py:imagenet"])
    assert command.name == "rigl_resnet50-imagenet"
    assert command.workdir == pathlib.Path("runs/rigl_resnet50-imagenet")
    command = configuration.parse(["--config", "rigl_mlp", "--workdir", "/x/y"])
    assert command.workdir == pathlib.Path("/x/y")
    assert command.text.endswith("--config rigl_mlp --workdir /x/y")


def test_overrides_of_every_type():
    command = configuration.parse(
        [
            "--config=rigl_mlp",
            "--config.seed",
            "7",
            "--config.method.sparsity=0.5",
            "--noconfig.method.track",
            "--config.method.packed=true",
            "--config.model.hidden=(3,4)",
            "--config.method.distribution=uniform",
        ]
    )
    config = command.config
    assert config.seed == 7
    assert config.method.sparsity == 0.5
    assert config.method.track is False
    assert config.method.packed is True
    assert tuple(config.model.hidden) == (3, 4)
    assert config.method.distribution == "uniform"
    with pytest.raises(AttributeError):
        config.something_new = 1


def test_the_grid_is_every_combination():
    assert list(recipes.grid({"a": (1, 2), "b": "xy"})) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_the_recipes_know_every_method_that_they_are_used_for():
    for method in sparsejax.METHODS:
        assert configuration.load(f"mlp:{method}").method.name == method
