"""Attention of the newest token over a cache of keys and values."""

from sparsejax_kernels.cached_attention.api import cached_attention

__all__ = ["cached_attention"]
