"""Examples of a prepared dataset, and what is said where its files are damaged."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from sparsejax.data.pipeline import Example, Source


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The examples of a split, by their index.

    Attributes:
      source: What tfds returns.
      folder: Where its files are.
      split: Its name.
    """

    source: Source
    folder: str
    split: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        try:
            return self.source[index]
        # What array_record raises for whatever is wrong with a file.
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise OSError(
                f"example {index} of the split {self.split!r} in {self.folder} "
                f"({reason[:200]}); its files are damaged: delete that folder and "
                "prepare the dataset again, or copy it again"
            ) from error


def open_split(builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> Source:
    """Opens a split that was prepared in the array_record format.

    Args:
      builder: Of the dataset.
      split: The split's name.
      **options: Further arguments of the builder's ``as_data_source``.

    Returns:
      The examples. Reading one raises an OSError where the files are damaged.
    """
    # A decorator of tfds hides the method's arguments from type checkers.
    opened: Any = builder.as_data_source
    return Prepared(opened(split=split, **options), str(builder.data_dir), split)
