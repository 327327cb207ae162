"""The layers: imports point downward, and the library stays light."""

import ast
import functools
import subprocess
import sys
import tomllib

import architecture
import pytest

# Distributions whose name is not that of the module they bring.
MODULES = {
    "absl-py": "absl",
    "importlib-resources": "importlib_resources",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
}


@functools.cache
def imports(module):
    """Names of all modules that a module imports, also inside functions."""
    path = architecture.ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide their layer"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            known = architecture.layers()
            found |= {name if name in known else str(node.module) for name in names}
    return found


def own_imports(module):
    known = architecture.layers()
    return {name for name in imports(module) if name in known}


def foreign_imports(module):
    tops = {name.split(".")[0] for name in imports(module)}
    return tops - {"sparsejax"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", architecture.layers())
def test_imports_point_downward(module):
    layers = architecture.layers()
    upward = {name for name in own_imports(module) if layers[name] > layers[module]}
    assert not upward, f"{module} (layer {layers[module]}) imports {sorted(upward)}"


def test_imports_make_no_circle():
    # The package itself is imported by everything and so stands outside of this.
    graph = {name: own_imports(name) - {"sparsejax"} for name in architecture.layers()}
    while graph:
        free = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert free, f"a circle of imports among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


@pytest.mark.parametrize("module", architecture.layers())
def test_lower_layers_know_few_libraries(module):
    layer = architecture.layers()[module]
    if layer in architecture.MAY_IMPORT:
        assert foreign_imports(module) <= architecture.MAY_IMPORT[layer]


def test_every_import_is_declared():
    project = tomllib.loads((architecture.ROOT / "pyproject.toml").read_text())
    project = project["project"]
    base = declared(project["dependencies"]) | {"sparsejax_kernels"}
    train = base | declared(project["optional-dependencies"]["train"])
    for module, layer in architecture.layers().items():
        allowed = base if layer <= architecture.LIBRARY_LAYER else train
        assert foreign_imports(module) <= allowed, module


def declared(requirements):
    names = {requirement.split(">=")[0] for requirement in requirements}
    return {MODULES.get(name.lower(), name) for name in names}


def test_the_package_imports_nothing_but_jax_optax_numpy_and_jaxtyping():
    script = """
import sys
import jax, jaxtyping, numpy, optax
jaxtyping.PRNGKeyArray, jaxtyping.PyTree  # jaxtyping loads what it needs when asked
before = {name.split(".")[0] for name in sys.modules}
import sparsejax as sj
for method in sj.METHODS:
    getattr(sj, method)
after = {name.split(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["sparsejax"]


def test_heavy_libraries_are_not_loaded_by_way_of_others():
    script = "import sys, sparsejax; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    heavy = "flax grain tensorflow_datasets orbax ml_collections matplotlib sklearn"
    heavy += " tensorflow tensorboardX rich PIL brax gymnax flashbax"
    assert not loaded & set(heavy.split())
