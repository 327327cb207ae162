"""The safetensors files of a folder, whether one or many, read and written."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from sparsejax.extras import require

__all__ = [
    "DTYPES",
    "INDEX",
    "SINGLE",
    "Tensors",
    "Written",
    "read_json",
    "write_files",
]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Types of numbers that can be read, by their names in the files."""


class Written(NamedTuple):
    """A tensor that is to be written.

    Attributes:
      bytes: its size.
      make: computes it, when its file is written.
    """

    bytes: int
    make: Callable[[], np.ndarray]


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      ValueError: the file is something else; one line.
    """
    try:
        value = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); download it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object; download it again.")
    return value


class Tensors:
    """The tensors of a folder by name; a context manager.

    Args:
      folder: with ``model.safetensors``, or parts of it and their index.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._files: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if (self._folder / SINGLE).is_file():
            names = [SINGLE]
        elif (self._folder / INDEX).is_file():
            index = read_json(self._folder / INDEX)
            names = sorted(set(index["weight_map"].values()))
        else:
            other = sorted(path.name for path in self._folder.glob("*.bin"))
            raise ValueError(
                f"{self._folder} has neither {SINGLE} nor {INDEX}"
                + (
                    f", but {other[0]}, which is PyTorch's own format; write it again "
                    "by save_pretrained of a newer transformers."
                    if other
                    else "; download the whole checkpoint."
                )
            )
        with self._stack as stack:
            for name in names:
                file = stack.enter_context(self._open(name))
                self._files |= dict.fromkeys(file.keys(), file)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The type of a tensor's numbers as safetensors calls it, such as ``BF16``."""
        return self._files[name].get_slice(name).get_dtype()

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor.

        Raises:
          ValueError: it does not hold ordinary floats.
        """
        if self.dtype(name) not in DTYPES:
            raise ValueError(
                f"{name} in {self._folder} is {self.dtype(name)}; only "
                f"{', '.join(DTYPES)} are supported: use a checkpoint that is not "
                "quantized."
            )
        return self._files[name].get_tensor(name)

    def _open(self, name: str) -> Any:
        safetensors = require("safetensors", extra="train")
        path = self._folder / name
        try:
            return safetensors.safe_open(path, framework="numpy")
        except FileNotFoundError as error:
            raise ValueError(
                f"{self._folder} lacks {name}, which its {INDEX} names; download it."
            ) from error
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is no whole safetensors file ({error}); download it again."
            ) from error


def write_files(
    folder: pathlib.Path, tensors: Mapping[str, Written], *, shard_bytes: int
) -> None:
    """Writes tensors as one file, or as parts with an index, each whole or not at all.

    Args:
      folder: which is there.
      tensors: by name; made one file at a time.
      shard_bytes: the most that a file holds, unless one tensor is larger.
    """
    save_file = require("safetensors.numpy", extra="train").save_file
    shards: list[dict[str, Written]] = [{}]
    for name, tensor in tensors.items():
        used = sum(one.bytes for one in shards[-1].values())
        if shards[-1] and used + tensor.bytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    count, places = len(shards), {}
    for number, shard in enumerate(shards, start=1):
        part = f"model-{number:05d}-of-{count:05d}.safetensors"
        file = SINGLE if count == 1 else part
        made = {name: np.ascontiguousarray(one.make()) for name, one in shard.items()}
        partial = folder / f"{file}.partial"
        try:
            # transformers refuses files that do not name a framework.
            save_file(made, partial, {"format": "pt"})
            os.replace(partial, folder / file)
        finally:
            partial.unlink(missing_ok=True)
        places |= dict.fromkeys(shard, file)
    if count > 1:
        size = sum(tensor.bytes for tensor in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
