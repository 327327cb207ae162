"""Settings and fixtures shared by all tests."""

import os

# Before jax is imported anywhere: layouts are tested on eight simulated devices.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest


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
