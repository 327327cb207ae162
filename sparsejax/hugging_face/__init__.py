"""Checkpoints of Hugging Face: Llama's family and GPT-2, read and written.

Neither PyTorch nor transformers is needed: the files are read as they are.
"""

from sparsejax.hugging_face.checkpoint import load, read_settings, save
from sparsejax.hugging_face.masks import load_masks, save_masks
from sparsejax.hugging_face.settings import (
    UnsupportedError,
    architecture_of,
    settings_of,
)

__all__ = [
    "UnsupportedError",
    "architecture_of",
    "load",
    "load_masks",
    "read_settings",
    "save",
    "save_masks",
    "settings_of",
]
