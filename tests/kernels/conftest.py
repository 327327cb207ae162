"""What the tests of the kernels share."""

import pytest


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Interprets Pallas kernels: there is no device that could run them."""
    monkeypatch.setenv("SPARSEJAX_KERNELS_INTERPRET", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leaves most cases of interpreted kernels to the slow tests."""
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        if values and str(values.get("implementation")).startswith("pallas"):
            small = values.get("batch") in (3, 8, 9, 17)
            plain = "activation" in values and values["activation"] is None
            again = "any_batch_rank" in item.name
            if small or plain or again or "packed" in item.path.name:
                item.add_marker(pytest.mark.slow)
