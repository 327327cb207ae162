import sys
import types

import ml_collections
import pytest

from sparsejax import building
from sparsejax.building import ConfigError, build

PACKAGE = "a_test_package"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A package in the shape of ours: one file per function, and a flat module."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("import json\n")
    (folder / "rigl.py").write_text(
        "def rigl(inner, *, sparsity, every=100, drop_fraction=0.3):\n"
        "    if not 0 <= sparsity < 1:\n"
        "        raise ValueError(f'sparsity = {sparsity} is not in [0, 1).\\nmore')\n"
        "    return inner, sparsity, every, drop_fraction\n"
    )
    (folder / "needy.py").write_text("import a_module_that_is_not_there\n")
    (folder / "pipeline.py").write_text("def something_else(): pass\n")
    (folder / "schedules.py").write_text(
        "from fractions import Fraction\n\n"
        "def cosine(initial=0.3):\n    return ('cosine', initial)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_calls_the_function_of_the_file_with_the_fields_as_arguments():
    spec = {"name": "rigl", "sparsity": 0.9, "every": 7}
    assert build("method", spec, PACKAGE, "inner") == ("inner", 0.9, 7, 0.3)
    assert spec == {"name": "rigl", "sparsity": 0.9, "every": 7}


def test_takes_a_config_dict_and_builds_nested_specs():
    spec = ml_collections.ConfigDict(
        {"name": "rigl", "sparsity": 0.9, "drop_fraction": {"name": "cosine"}}
    )
    nested = {"drop_fraction": f"{PACKAGE}.schedules"}
    built = build("method", spec, PACKAGE, "inner", nested=nested)
    assert built[-1] == ("cosine", 0.3)
    with spec.ignore_type():
        spec.drop_fraction = "cosine"
    assert build("method", spec, PACKAGE, "inner", nested=nested)[-1][0] == "cosine"
    with spec.ignore_type():
        spec.drop_fraction = 0.5
    assert build("method", spec, PACKAGE, "inner", nested=nested)[-1] == 0.5


def test_offered_arguments_go_where_they_are_taken_and_the_spec_wins():
    spec = {"name": "rigl", "sparsity": 0.9}
    built = build("method", spec, PACKAGE, "inner", every=5, unwanted=1)
    assert built == ("inner", 0.9, 5, 0.3)
    assert build("method", {**spec, "every": 6}, PACKAGE, None, every=5)[2] == 6


def test_a_dotted_name_comes_from_outside(monkeypatch):
    module = types.ModuleType("outside")
    module.method = lambda *, sparsity: ("outside", sparsity)
    monkeypatch.setitem(sys.modules, "outside", module)
    spec = {"name": "outside.method", "sparsity": 0.5}
    assert build("method", spec, PACKAGE) == ("outside", 0.5)
    spec = {"name": f"{PACKAGE}.rigl", "sparsity": 0.5}
    assert build("method", spec, PACKAGE, "inner")[1] == 0.5


def test_known_lists_functions_named_like_their_file_and_nothing_imported():
    assert building.known(PACKAGE) == ["rigl"]
    assert building.known(f"{PACKAGE}.schedules") == ["cosine"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "rigle"}, ["config.method.name = 'rigle'", "mean 'rigl'", "known:"]),
        ({"name": "pipeline"}, ["config.method.name = 'pipeline'", "known: rigl"]),
        ({"name": "json"}, ["config.method.name = 'json'"]),
        ({"name": "../rigl"}, ["config.method.name"]),
        ({"name": "no_such_package.f"}, ["config.method.name", "PYTHONPATH"]),
        ({"name": "math.no_such"}, ["config.method.name = 'math.no_such'"]),
        ({"sparsity": 0.9}, ["config.method = ", "'name'"]),
        ({"name": 3}, ["config.method = ", "'name'"]),
        (None, ["config.method = None"]),
        ({"name": "rigl"}, ["config.method.sparsity is missing", "--config.method"]),
        (
            {"name": "rigl", "sparsity": 0.9, "evry": 3},
            ["config.method.evry = 3", "mean 'every'", "it takes: sparsity, every"],
        ),
        ({"name": "rigl", "sparsity": 0.9, "inner": 1}, ["config.method.inner = 1"]),
        (
            {"name": "rigl", "sparsity": 1.0},
            ["config.method.sparsity = 1.0 is not in [0, 1)."],
        ),
        ({"name": "rigl", "sparsity": "0.9x"}, ["config.method: '<=' not supported"]),
        (
            {"name": "rigl", "sparsity": 0.9, "drop_fraction": "cosinus"},
            ["config.method.drop_fraction.name = 'cosinus'", "mean 'cosine'"],
        ),
        (
            {
                "name": "rigl",
                "sparsity": 0.9,
                "drop_fraction": {"name": "cosine", "x": 1},
            },
            ["config.method.drop_fraction.x = 1"],
        ),
    ],
)
def test_a_bad_spec_is_one_line_that_names_the_field(spec, words):
    nested = {"drop_fraction": f"{PACKAGE}.schedules"}
    with pytest.raises(ConfigError) as caught:
        build("method", spec, PACKAGE, "inner", nested=nested)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_dependency_is_not_reported_as_an_unknown_name():
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        build("method", "needy", PACKAGE)


def test_located_only_takes_whole_words():
    names = ["stop", "sparsity"]
    assert building.located("m", "stop = 1 is early", names).startswith("config.m.stop")
    assert (
        building.located("m", "stopping is odd", names) == "config.m: stopping is odd"
    )
    assert building.located("m", "", names).startswith("config.m: ")
