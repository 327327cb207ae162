import pytest

from sparsejax.building import ConfigError
from sparsejax.sweeps import plan


def test_the_runs_are_all_combinations_in_order():
    trials = plan.expand("rigl_mlp", ["method.name=rigl,set", "seed=0..4"])
    assert len(trials) == 10
    assert [t.settings["seed"] for t in trials] == [*range(5), *range(5)]
    assert trials[7].config["method"]["name"] == "set"
    assert "--config.seed=2" in trials[7].arguments


def test_without_a_vary_they_are_the_config_s_own_sweep():
    trials = plan.expand("rigl_mlp", [], ["--config.steps=40"])
    assert len(trials) == 15
    assert {t.config["steps"] for t in trials} == {40}
    sparsities = {t.config["method"]["sparsity"] for t in trials}
    assert sparsities == {0.9, 0.95, 0.98}


def test_a_name_depends_on_what_differs_from_the_defaults_and_on_nothing_else():
    (plain,) = plan.expand("rigl_mlp", ["seed=1"])
    (longer,) = plan.expand("rigl_mlp", ["seed=1"], ["--config.steps=40"])
    (default,) = plan.expand("rigl_mlp", ["seed=1"], ["--config.steps=2000"])
    (other,) = plan.expand("set_mlp", ["seed=1"])
    (written,) = plan.expand("configs/rigl_mlp.py", ["method.sparsity=0.950", "seed=1"])
    assert plain.name == default.name
    assert plain.name.startswith("rigl_mlp,seed=1-")
    digests = [t.name.rpartition("-")[2] for t in (plain, longer, other, written)]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_the_same_run_is_there_once():
    assert len(plan.expand("rigl_mlp", ["seed=0,1,0", "method.sparsity=0.9,0.90"])) == 2


def test_configs_can_be_varied():
    trials = plan.expand(None, ["config=mlp:static,mlp:magnitude", "seed=0..1"])
    assert [t.settings["config"] for t in trials[::2]] == [
        "mlp-static",
        "mlp-magnitude",
    ]
    assert trials[2].config["method"]["start"] == 250


def test_seeds_are_one_run_where_a_config_trains_several_as_one_program():
    (run,) = plan.expand("rigl_dqn_cartpole", ["seed=3..6"])
    assert (run.config["seed"], run.config["seeds"]) == (3, 4)
    assert len(plan.expand("rigl_dqn_cartpole", ["seed=0,2"])) == 2
    assert (
        len(plan.expand("rigl_dqn_cartpole", ["seed=0,1"], ["--config.seeds=1"])) == 2
    )


def test_the_check_is_once_per_setting():
    said = []
    plan.check(plan.expand("static_mlp", ["seed=0..3"]), said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("spec", "varied", "overrides", "expected"),
    [
        ("rigl_mlp", ["seed"], [], ["--vary seed: give a field and its values"]),
        ("rigl_mlp", ["seed=0,,1"], [], ["--vary seed=0,,1"]),
        ("rigl_mlp", ["seed=4..0"], [], ["--vary seed=4..0", "write 0..4"]),
        ("rigl_mlp", ["seed=0", "seed=1"], [], ["--vary seed=1", "twice"]),
        ("rigl_mlp", ["sed=0"], [], ["--vary sed=0", "mean seed"]),
        ("rigl_mlp", ["seed=0,x"], [], ["--vary seed=x", "config.seed"]),
        ("rigl_mlp", ["seed=0,-1"], [], ["--vary seed=-1", "integer >= 0"]),
        (
            "rigl_mlp",
            ["seed=0"],
            ["--config.seed=1"],
            ["--config.seed=1", "same field"],
        ),
        ("rigl_mpl", ["seed=0"], [], ["rigl_mpl", "did you mean rigl_mlp"]),
        (None, ["seed=0"], [], ["--config is missing"]),
        (None, ["config=mlp:rigl,mpl"], [], ["--vary config=mpl", "no such file"]),
    ],
)
def test_mistakes_name_the_vary(spec, varied, overrides, expected):
    with pytest.raises(ConfigError) as error:
        plan.expand(spec, varied, overrides)
    for part in expected:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("varied", "expected"),
    [
        ("method.name=rigl,static", "--vary method.name=static: config.method"),
        ("method.sparsity=0.9,1.5", "--vary method.sparsity=1.5: config.method.spars"),
        ("data.name=nowhere", "--vary data.name=nowhere: config.data.name"),
    ],
)
def test_what_cannot_be_built_names_the_vary(varied, expected):
    trials = plan.expand("rigl_mlp", [varied, "seed=0..1"])
    with pytest.raises(ConfigError) as error:
        plan.check(trials, lambda _: None)
    assert str(error.value).startswith(expected)


def test_a_config_without_a_sweep_says_so(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from sparsejax import recipes\nget_config = lambda: 1\n")
    with pytest.raises(ConfigError, match=r"defines no sweep\(\); name what to vary"):
        plan.expand(str(file))
