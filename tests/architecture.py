"""The layers of the package, for the tests that hold its modules to them.

A module imports only from its own layer and from those below. The library, up to layer
2, is what the base install brings; everything above needs the ``train`` extra.
"""

import functools
import pathlib

from beartype import BeartypeConf, beartype

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sparsejax"

LIBRARY_LAYER = 2

FOLDERS = {
    "structures": 1,
    "kernels": 1,
    "methods": 2,
    "optim": 2,
    "always_sparse": 2,
    "detection": 2,
    "pruning": 2,
    "cost": 2,
    "nn": 3,
    "models": 3,
    "data": 4,
    "envs": 4,
    "reinforcement": 4,
    "hugging_face": 4,
    "tasks": 5,
    "recipes": 6,
    "sweeps": 6,
}

FILES = {
    1: """allocation checks distributions graph initialization layers links
        schedules selection version""",
    2: """__init__ applying card inspection leaves masking options planning
        proximal reparametrizing rewinding rules runtime_checks single_shot state
        statistics views""",
    3: "decoding extras",
    4: """average_precision building checkpoint energy health interruption metrics
        process_groups process_links processes programs progress python_lines runs
        sharding supervising validation workdir""",
    5: "restoring",
    6: """configuration cost/__main__ cost_table expected_cost generate pictures
        play plot_style plots prunable prunable_run prune prune_command prune_report
        report report_page report_style return_plots summary_file sweep topology_rows
        train training""",
}

MAY_IMPORT = {
    1: {"jax", "jaxtyping", "numpy"},
    2: {"jax", "jaxtyping", "numpy", "optax", "sparsejax_kernels"},
    3: {"flax", "jax", "jaxtyping", "numpy", "sparsejax_kernels"},
}

# An integer is a number: sparsity=0 is as good as 0.0.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def module_name(file: pathlib.Path) -> str:
    """``sparsejax/methods/rigl.py`` -> ``sparsejax.methods.rigl``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def layers() -> dict[str, int]:
    """Maps every module of the package to its layer.

    Raises:
      LookupError: if a file has no layer yet.
    """
    files = {name: layer for layer, names in FILES.items() for name in names.split()}
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        folder, *rest = file.relative_to(PACKAGE).parts
        where, key = (FOLDERS, folder) if rest else (files, file.stem)
        if f"{folder}/{file.stem}" in files:
            where, key = files, f"{folder}/{file.stem}"
        if key not in where:
            raise LookupError(f"{file} has no layer: add {key!r} to {__file__}")
        found[module_name(file)] = where[key]
    return found


def library() -> list[str]:
    """Names of the modules that the base install can import."""
    return [name for name, layer in layers().items() if layer <= LIBRARY_LAYER]


def library_files() -> list[pathlib.Path]:
    """Files of these modules, whose docstrings are tested too."""
    names = library()
    return [file for file in PACKAGE.rglob("*.py") if module_name(file) in names]


def tested_layer(file: pathlib.Path) -> int | None:
    """The layer of the module or folder that a test file mirrors; None if none."""
    if not file.is_relative_to(ROOT / "tests"):
        return None
    folder = file.relative_to(ROOT / "tests").parts[0]
    if folder in FOLDERS:
        return FOLDERS[folder]
    return layers().get(f"sparsejax.{file.stem.removeprefix('test_')}")


if __name__ == "__main__":
    print(*sorted(library_files()))
