"""The command line of pruning: what it asks for, checked."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from sparsejax.building import ConfigError

METHODS = ("magnitude", "wanda", "sparsegpt")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line.

    Raises:
      ConfigError: what it asks for cannot be.
      SystemExit: a flag is unknown or malformed; what is wrong was printed.
    """
    own = argparse.ArgumentParser(
        prog="sparsejax.prune", add_help=False, allow_abbrev=False, usage="see --help"
    )
    own.add_argument("--checkpoint", type=pathlib.Path, required=True)
    own.add_argument("--method", choices=METHODS, required=True)
    own.add_argument("--sparsity", type=float)
    own.add_argument("--structure")
    own.add_argument("--where")
    own.add_argument("--calibration")
    own.add_argument("--evaluation")
    own.add_argument("--samples", type=int, default=128)
    own.add_argument("--evaluation_samples", type=int, default=128)
    own.add_argument("--length", type=int)
    own.add_argument("--batch_size", type=int, default=8)
    own.add_argument("--block", type=int, default=128)
    own.add_argument("--damping", type=float, default=0.01)
    own.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    own.add_argument("--seed", type=int, default=0)
    own.add_argument("--output", type=pathlib.Path)
    command = own.parse_args(arguments)
    for name in ("samples", "evaluation_samples", "batch_size", "block", "length"):
        value = getattr(command, name)
        if value is not None and value < 1 + (name == "length"):
            least = 2 if name == "length" else 1
            raise ConfigError(f"--{name}={value}: give an integer >= {least}.")
    if command.seed < 0:
        raise ConfigError(f"--seed={command.seed}: give an integer >= 0.")
    if not command.damping > 0:
        raise ConfigError(f"--damping={command.damping}: give a number above 0.")
    command.structure = _structure(command)
    if command.output is None:
        share = f"{command.sparsity:g}"
        if command.structure["name"] == "n_m":
            share = "{n}of{m}".format(**command.structure)
        name = f"{command.method}-{share}"
        folder = command.checkpoint.resolve()
        command.output = folder.with_name(f"{folder.name}-{name}")
    if command.output.exists() and any(command.output.iterdir()):
        raise ConfigError(
            f"--output={command.output}: the folder is not empty; delete it, or name "
            "another."
        )
    return command


def _structure(command: argparse.Namespace) -> dict[str, Any]:
    """The structure as a config names it; also sets the sparsity that it implies."""
    defaults = {"wanda": "fan_in"}
    name = command.structure or defaults.get(command.method, "unstructured")
    groups = re.fullmatch(r"(\d+):(\d+)", name)
    if groups:
        n, m = map(int, groups.groups())
        if not 1 <= n < m:
            raise ConfigError(
                f"--structure={name}: give N:M with 1 <= N < M, such as 2:4."
            )
        own = 1 - n / m
        if command.sparsity not in (None, own):
            raise ConfigError(
                f"--sparsity={command.sparsity} with --structure={name}, whose "
                f"sparsity is {own:g}; leave --sparsity out."
            )
        command.sparsity = own
        return {"name": "n_m", "n": n, "m": m}
    if name not in ("unstructured", "fan_in"):
        raise ConfigError(
            f"--structure={name}: use N:M such as 2:4, unstructured or fan_in."
        )
    if command.sparsity is None:
        raise ConfigError(
            "--sparsity is missing: give a fraction such as 0.5, or --structure=2:4."
        )
    if not 0 <= command.sparsity < 1:
        raise ConfigError(f"--sparsity={command.sparsity}: give a number in [0, 1).")
    return {"name": name}
