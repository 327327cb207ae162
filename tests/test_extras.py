import subprocess
import sys
import textwrap

import pytest

from sparsejax.extras import require


def test_returns_the_module():
    assert require("json", extra="train") is sys.modules["json"]


def test_a_missing_module_names_its_extra():
    with pytest.raises(ImportError, match=r'pip install "sparsejax\[train\]"'):
        require("not_installed_anywhere", extra="train")


def test_a_module_that_fails_inside_raises_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_installed"):
        require("broken_inside", extra="train")


@pytest.mark.parametrize(
    ("package", "dependency"),
    [
        ("sparsejax.models", "flax"),
        ("sparsejax.data", "grain"),
        ("sparsejax.data", "tensorflow_datasets"),
        ("sparsejax.tasks", "flax"),
    ],
)
def test_packages_say_which_extra_they_need(package, dependency):
    script = textwrap.dedent(f"""
        import sys
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == {dependency!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Hide())
        import {package}
    """)
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("sparsejax.extras.MissingExtraError")
    assert f"'{dependency}' is not installed" in last
    assert 'pip install "sparsejax[train]"' in last
