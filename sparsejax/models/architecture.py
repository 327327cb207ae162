"""What transformers consist of, and the sizes that have names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

__all__ = ["ACTIVATIONS", "SIZES", "Architecture", "sized"]

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "width": 128, "heads": 4, "key_value_heads": 2},
    "small": {"layers": 12, "width": 768, "heads": 12, "key_value_heads": 12},
    "1b": {"layers": 16, "width": 2048, "heads": 32, "key_value_heads": 8},
}
"""Name -> the fields of `Architecture` that it stands for; ``small`` is GPT-2's, ``1b``
that of Llama 3.2."""
HIDDEN = {"tiny": 384, "small": 2048, "1b": 8192}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a transformer consists of.

    Attributes:
      vocabulary: number of tokens.
      context: tokens in a sequence, for which learned positions are made.
      layers: blocks of attention and MLP.
      width: numbers for each token.
      heads: of the queries.
      key_value_heads: of keys and values; divides ``heads``.
      head_size: numbers in a head.
      hidden: width inside of the MLPs.
      gated: whether an MLP is ``down(act(gate(x)) * up(x))``, not ``down(act(up(x)))``.
      activation: a name in ``silu``, ``gelu``, ``gelu_tanh`` and ``relu``.
      normalisation: ``"rms"`` or ``"layer"``, before attention, MLP and the head.
      epsilon: of the normalisations.
      positions: ``"rotary"`` or ``"learned"``.
      rotary_theta: base of the rotary frequencies.
      rotary_scaling: of `sparsejax.models.attention.rotary_frequencies`, as pairs.
      input_bias: whether queries, keys and values have biases.
      bias: whether all other layers of the blocks have.
      tied: whether the head is the embedding, transposed.
      causal: whether a token sees only those before it.
    """

    vocabulary: int
    context: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    hidden: int
    gated: bool = True
    activation: str = "silu"
    normalisation: str = "rms"
    epsilon: float = 1e-5
    positions: str = "rotary"
    rotary_theta: float = 10_000.0
    rotary_scaling: tuple[tuple[str, float], ...] | None = None
    input_bias: bool = False
    bias: bool = False
    tied: bool = True
    causal: bool = True

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} = {value!r}: use an integer >= 1.")
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"key_value_heads = {self.key_value_heads} does not divide heads = "
                f"{self.heads}."
            )
        if self.head_size % 2 and self.positions == "rotary":
            raise ValueError(
                f"head_size = {self.head_size} is odd, which rotary positions cannot "
                "turn; use an even one."
            )
        for name, known in (
            ("activation", ACTIVATIONS),
            ("normalisation", ("rms", "layer")),
            ("positions", ("rotary", "learned")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: use one of "
                    f"{', '.join(map(repr, known))}."
                )


def sized(
    input_shape: Sequence[int],
    vocabulary: int,
    *,
    size: str = "tiny",
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    key_value_heads: int | None = None,
    head_size: int | None = None,
    hidden: int | None = None,
    rotary_scaling: Mapping[str, float] | None = None,
    **options: Any,
) -> Architecture:
    """The architecture of a named size, with some numbers replaced.

    Args:
      input_shape: ``(context,)``, tokens in a sequence.
      vocabulary: number of tokens.
      size: ``"tiny"`` (4 layers of 128), ``"small"`` (12 of 768) or ``"1b"`` (16 of
        2048).
      layers: see `Architecture`, as for all that follow.
      width: numbers for each token.
      heads: of the queries.
      key_value_heads: default: the size's share of ``heads``, if that is whole.
      head_size: default ``width / heads``.
      hidden: default the size's, in proportion to the width.
      rotary_scaling: a mapping, or None.
      **options: other fields of `Architecture`.

    Returns:
      The architecture.

    Raises:
      ValueError: an unknown size, or a value out of range.

    Example:
      >>> sized((128,), 257, width=64).hidden
      192
    """
    if size not in SIZES:
        raise ValueError(f"size = {size!r}: use one of {', '.join(map(repr, SIZES))}.")
    if len(input_shape) != 1:
        raise ValueError(
            f"input_shape = {tuple(input_shape)} is not (context,); use a dataset of "
            "tokens, or another model."
        )
    known = SIZES[size]
    width = known["width"] if width is None else width
    heads = known["heads"] if heads is None else heads
    if key_value_heads is None:
        shared = known["heads"] // known["key_value_heads"]
        key_value_heads = heads // shared if heads % shared == 0 else heads
    if head_size is None:
        if width % heads:
            raise ValueError(
                f"heads = {heads} does not divide width = {width}; give a head_size."
            )
        head_size = width // heads
    if hidden is None:
        hidden = max(8 * round(HIDDEN[size] * width / known["width"] / 8), 8)
    scaling = None
    if rotary_scaling is not None:
        scaling = tuple(sorted(dict(rotary_scaling).items()))
    fields = {field.name for field in dataclasses.fields(Architecture)}
    if unknown := sorted({*options} - fields):
        raise TypeError(
            f"got an unexpected keyword argument {unknown[0]!r}; known "
            f"are {', '.join(sorted(fields))}"
        )
    return Architecture(
        vocabulary=vocabulary,
        context=input_shape[0],
        layers=known["layers"] if layers is None else layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        hidden=hidden,
        rotary_scaling=scaling,
        **options,
    )
