"""Package roots; all metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sparsejax*"]), "sparsejax.configs"],
    package_dir={"sparsejax.configs": "configs"},
)
