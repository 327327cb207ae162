"""Settings and fixtures shared by all tests."""

import importlib.metadata
import importlib.util
import os
import pathlib

# Before jax is imported anywhere: layouts are tested on eight simulated devices.
# Nearly all of the time goes into compiling: with as little of it as there can be it is
# a quarter. Releases from 0.11 on know one way to compile fusions only.
FLAGS = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(FLAGS)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import architecture
import jax
import jaxtyping
import pytest

TESTS = pathlib.Path(__file__).parent

# Their assertions, too, are to say what was compared.
pytest.register_assert_rewrite("common_table", "rollout", "wrappers")

# Before the package is imported: every call in the library checks its annotations.
# The name of the package itself would stand for all modules in it.
jaxtyping.install_import_hook(
    [
        *(name for name in architecture.library() if name != "sparsejax"),
        "sparsejax_kernels",
    ],
    "architecture.checked",
)

# With the base install alone there is only the library to test.
if importlib.util.find_spec("flax") is None:
    collect_ignore = [
        str(file)
        for file in TESTS.rglob("test_*.py")
        if (architecture.tested_layer(file) or 6) > architecture.LIBRARY_LAYER
    ]

# Files whose examples need a library of the extra ``rl``.
EXAMPLES_NEED = {
    "gymnax": ("envs/gymnax.py", "envs/making.py", "envs/distractors.py"),
    "brax": ("envs/brax.py",),
}


def pytest_collection_modifyitems(items):
    """Skips examples that need what is not installed."""
    missing = {
        architecture.PACKAGE / file: library
        for library, files in EXAMPLES_NEED.items()
        if importlib.util.find_spec(library) is None
        for file in files
    }
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path in missing:
            library = missing[item.path]
            item.add_marker(pytest.mark.skip(reason=f"{library} is not installed"))


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Forgets them after each file: thousands would fill memory and jax's caches."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def explicit_promotion(request):
    """In tests of the library no rank and, below optax, no dtype is promoted."""
    layer = architecture.tested_layer(request.path) or 6
    rank = "raise" if layer <= 2 else "allow"
    dtype = "strict" if layer <= 1 else "standard"
    with jax.numpy_rank_promotion(rank), jax.numpy_dtype_promotion(dtype):
        yield


@pytest.fixture
def implicit_promotion(explicit_promotion):
    """Lets the programs of users promote ranks and dtypes."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def any_type():
    """Lets arguments of wrong types through, to the library's own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A directory for prepared datasets, made once, also seen by subprocesses."""
    directory = tmp_path_factory.mktemp("datasets")
    before = os.environ.get("TFDS_DATA_DIR")
    os.environ["TFDS_DATA_DIR"] = str(directory)
    yield directory
    if before is None:
        del os.environ["TFDS_DATA_DIR"]
    else:
        os.environ["TFDS_DATA_DIR"] = before
