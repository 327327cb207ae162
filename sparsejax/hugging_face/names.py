"""Which tensors of a Hugging Face checkpoint are which leaves of a `Transformer`."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["BASES", "BUFFERS", "PARTS", "Source", "source_of"]

BASES = {"gpt2": "transformer.", "llama": "model."}
"""What names begin with, unless the checkpoint is of the network without a head."""

BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|attn\.(bias|masked_bias)|position_ids)$"
)
"""Tensors of old checkpoints that follow from the settings."""

PARTS = 3
"""Query, key and value are one tensor in GPT-2."""

_LLAMA = {
    "embed": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp/gate": "mlp.gate_proj",
    "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
}
_GPT2 = {
    "embed": "transformer.wte",
    "position_embed": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "ln_1",
    "attention/query": "attn.c_attn",
    "attention/key": "attn.c_attn",
    "attention/value": "attn.c_attn",
    "attention/out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp/up": "mlp.c_fc",
    "mlp/down": "mlp.c_proj",
}
_MODULES = {"gpt2": _GPT2, "llama": _LLAMA}
_BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers"}
_JOINED = ("attention/query", "attention/key", "attention/value")


class Source(NamedTuple):
    """Where a leaf stands in a checkpoint.

    Attributes:
      name: of the tensor, with ``{layer}`` where the block's number belongs.
      transposed: whether it is ``(out, in)`` there.
      part: which third of the tensor's last axis it is; None for all of it.
    """

    name: str
    transposed: bool = False
    part: int | None = None

    def in_layer(self, layer: int) -> str:
        """The tensor's name in one of the blocks."""
        return self.name.format(layer=layer)


def source_of(family: str, path: str) -> Source:
    """Says where a leaf of a `Transformer` stands.

    Args:
      family: ``"gpt2"``, or any of Llama's kin.
      path: of the leaf, of stacked blocks: ``"blocks/mlp/up/kernel"``.

    Example:
      >>> source_of("llama", "blocks/mlp/up/kernel").in_layer(3)
      'model.layers.3.mlp.up_proj.weight'
      >>> source_of("gpt2", "blocks/attention/key/bias")
      Source(name='transformer.h.{layer}.attn.c_attn.bias', transposed=False, part=1)
    """
    kind = "gpt2" if family == "gpt2" else "llama"
    module, _, leaf = path.rpartition("/")
    inside = module.removeprefix("blocks/")
    name = _MODULES[kind][inside]
    if inside != module:
        name = f"{_BLOCKS[kind]}.{{layer}}.{name}"
    name += ".bias" if leaf == "bias" else ".weight"
    # GPT-2's layers are (in, out) but for its head.
    transposed = leaf == "kernel" and (kind == "llama" or inside == "head")
    part = _JOINED.index(inside) if kind == "gpt2" and inside in _JOINED else None
    return Source(name, transposed, part)
