"""Settings and fixtures shared by all tests."""

import os
import tempfile
from pathlib import Path

# Before jax is imported anywhere: layouts are tested on eight simulated devices.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before tensorflow_datasets is imported anywhere: it reads the variable only once.
_DATASETS = tempfile.TemporaryDirectory(prefix="sparsejax-datasets-")
os.environ["TFDS_DATA_DIR"] = _DATASETS.name

import architecture
import pytest
from jaxtyping import install_import_hook

# Before the package is imported: every call in the library checks its annotations. Not
# where wrong types are refused with an error of our own, which has tests of its own.
_OWN_ERRORS = ("sparsejax.masking", "sparsejax.methods", "sparsejax.rules")
install_import_hook(
    [
        name
        for name in architecture.library()
        if name != "sparsejax" and not name.startswith(_OWN_ERRORS)
    ],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def data_dir():
    """Where datasets are prepared, once for all tests; subprocesses see it too."""
    return Path(_DATASETS.name)
