"""What a ``config.json`` of Hugging Face says about a network, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsejax.models.architecture import Architecture

__all__ = ["FAMILIES", "UnsupportedError", "architecture_of", "settings_of"]

FAMILIES = ("gpt2", "llama", "mistral", "qwen2")
"""Values of ``model_type`` that can be read and written."""

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
_SCALING = (
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
)
# What has to have this value, if it is there at all.
_FIXED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "llama": {},
    "mistral": {},
    "qwen2": {},
}
# Written where the defaults of the family are others.
_NEUTRAL = {"bos_token_id": None, "eos_token_id": None}


class UnsupportedError(ValueError):
    """A checkpoint, or a network, that the other side has no form for; one line."""


def architecture_of(
    settings: Mapping[str, Any], *, context: int | None = None
) -> Architecture:
    """Reads a ``config.json``.

    Args:
      settings: its fields. Those that only matter in training, such as dropout, are
        ignored; those that are absent have the defaults of transformers.
      context: tokens of the longest sequence that will be read; default, and most:
        ``max_position_embeddings``. Attention through a sliding window is full
        attention for sequences no longer than the window. Learned positions keep
        their whole table.

    Returns:
      The architecture of the same network.

    Raises:
      UnsupportedError: a setting that our network has no form for.

    Example:
      >>> settings = settings_of(architecture_of({
      ...     "model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 1}))
      >>> settings["model_type"], settings["activation_function"], settings["n_inner"]
      ('gpt2', 'gelu_new', 256)
    """
    family = settings.get("model_type")
    if family not in FAMILIES:
        raise UnsupportedError(
            f"model_type = {family!r} is not supported; supported are "
            f"{', '.join(FAMILIES)}."
        )
    fixed = {"is_encoder_decoder": False, "quantization_config": None, **_FIXED[family]}
    for field, only in fixed.items():
        if settings.get(field, only) != only:
            _refuse(settings, field, f"only {only!r} is")
    if family == "gpt2":
        return _architecture_of_gpt2(settings, context)
    return _architecture_of_llama(family, settings, context)


def settings_of(shape: Architecture, **fields: Any) -> dict[str, Any]:
    """Writes a ``config.json`` from which transformers makes the same network.

    Networks with rotary positions, RMS norms and gates are Llama's, or Qwen2's if only
    query, key and value have biases; those with learned positions, layer norms and
    biases are GPT-2's.

    Args:
      shape: of the network.
      **fields: added, such as ``eos_token_id=256``.

    Returns:
      The fields, in the names that old and new releases of transformers know.

    Raises:
      UnsupportedError: none of the families has such a network.

    Example:
      >>> from sparsejax.models.architecture import sized
      >>> settings_of(sized((128,), 257))["architectures"]
      ['LlamaForCausalLM']
    """
    rotary = shape.positions == "rotary" and shape.normalisation == "rms"
    learned = shape.positions == "learned" and shape.normalisation == "layer"
    if not shape.causal:
        raise UnsupportedError(
            "causal = False: networks that see both directions have no form here; "
            "write those with causal = True."
        )
    whole = shape.width % shape.heads == 0
    if rotary and whole and shape.gated and (shape.input_bias or not shape.bias):
        written = _settings_of_llama(shape)
    elif (
        learned
        and not shape.gated
        and shape.input_bias
        and shape.bias
        and shape.key_value_heads == shape.heads
        and shape.head_size * shape.heads == shape.width
    ):
        written = _settings_of_gpt2(shape)
    else:
        raise UnsupportedError(
            f"positions = {shape.positions!r}, normalisation = "
            f"{shape.normalisation!r}, gated = {shape.gated}, input_bias = "
            f"{shape.input_bias}, bias = {shape.bias}, heads = {shape.heads} of "
            f"{shape.head_size}, key_value_heads = {shape.key_value_heads}, width = "
            f"{shape.width} are no network of {', '.join(FAMILIES)}: with rotary "
            "positions use RMS norms, gates, no bias without input_bias, and heads "
            "that divide the width; with learned ones layer norms, all biases, no "
            "gates, and heads that share nothing and fill the width."
        )
    written["architectures"] = [_CLASSES[written["model_type"]]]
    return {**written, **_NEUTRAL, **fields}


def _refuse(settings: Mapping[str, Any], field: str, supported: str) -> None:
    raise UnsupportedError(
        f"{field} = {settings.get(field)!r} of a {settings['model_type']} is not "
        f"supported; {supported} supported."
    )


def _needed(settings: Mapping[str, Any], field: str) -> int:
    value = settings.get(field)
    if not isinstance(value, int):
        raise UnsupportedError(
            f"{field} = {value!r} of a {settings['model_type']}: an integer is needed."
        )
    return value


def _activation(settings: Mapping[str, Any], field: str, default: str) -> str:
    name = settings.get(field, default)
    if name not in _ACTIVATIONS:
        _refuse(settings, field, f"{', '.join(_ACTIVATIONS)} are")
    return _ACTIVATIONS[name]


def _architecture_of_gpt2(
    settings: Mapping[str, Any], context: int | None
) -> Architecture:
    width = settings.get("n_embd", 768)
    heads = settings.get("n_head", 12)
    positions = settings.get("n_positions", 1024)
    _check_context(context, "n_positions", positions)
    if width % heads:
        _refuse(settings, "n_head", f"divisors of n_embd = {width} are")
    return Architecture(
        vocabulary=settings.get("vocab_size", 50257),
        context=positions,
        layers=settings.get("n_layer", 12),
        width=width,
        heads=heads,
        key_value_heads=heads,
        head_size=width // heads,
        hidden=settings.get("n_inner") or 4 * width,
        gated=False,
        activation=_activation(settings, "activation_function", "gelu_new"),
        normalisation="layer",
        epsilon=settings.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        input_bias=True,
        bias=True,
        tied=settings.get("tie_word_embeddings", True),
    )


def _architecture_of_llama(
    family: str, settings: Mapping[str, Any], context: int | None
) -> Architecture:
    biased = family == "qwen2"
    others = family == "llama" and bool(settings.get("attention_bias", False))
    if family == "llama" and bool(settings.get("mlp_bias", False)) != others:
        _refuse(settings, "mlp_bias", f"attention_bias = {others} and the same here is")
    width = _needed(settings, "hidden_size")
    heads = _needed(settings, "num_attention_heads")
    head_size = settings.get("head_dim")
    if head_size is None:
        if width % heads:
            _refuse(settings, "num_attention_heads", f"divisors of {width} are")
        head_size = width // heads
    positions = _needed(settings, "max_position_embeddings")
    _check_context(context, "max_position_embeddings", positions)
    context = context or positions
    _check_window(family, settings, context)
    theta, scaling = _rotary(settings, positions)
    return Architecture(
        vocabulary=_needed(settings, "vocab_size"),
        context=context,
        layers=_needed(settings, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_value_heads=settings.get("num_key_value_heads") or heads,
        head_size=head_size,
        hidden=_needed(settings, "intermediate_size"),
        activation=_activation(settings, "hidden_act", "silu"),
        epsilon=settings.get("rms_norm_eps", 1e-6),
        rotary_theta=theta,
        rotary_scaling=scaling,
        input_bias=biased or others,
        bias=others,
        tied=settings.get("tie_word_embeddings", False),
    )


def _check_context(context: int | None, field: str, positions: int) -> None:
    if context is not None and not 1 <= context <= positions:
        raise UnsupportedError(
            f"context = {context} is not in the {field} = {positions} of the "
            "checkpoint; use fewer tokens."
        )


def _check_window(family: str, settings: Mapping[str, Any], context: int) -> None:
    """Raises if a token does not see all those before it."""
    window = settings.get("sliding_window", 4096 if family == "mistral" else None)
    if family == "qwen2":
        layers = _needed(settings, "num_hidden_layers")
        kinds = settings.get("layer_types")
        first = settings.get("max_window_layers", 28)
        slides = "sliding_attention" in kinds if kinds else first < layers
        if not (settings.get("use_sliding_window", False) and slides):
            window = None
    if window is not None and window < context:
        raise UnsupportedError(
            f"sliding_window = {window!r} of a {family} is shorter than its "
            f"{context} tokens of context, and only full attention is supported; if "
            f"no sequence is longer, read it with context = {window}."
        )


def _rotary(
    settings: Mapping[str, Any], positions: int
) -> tuple[float, tuple[tuple[str, float], ...] | None]:
    """Base and scaling of the rotary frequencies, in old and in new names."""
    # transformers 5 has both in one field, before that they were two.
    field = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    rope = dict(settings.get(field) or {})
    theta = float(rope.pop("rope_theta", settings.get("rope_theta", 10_000.0)))
    old_name = rope.pop("type", "default")
    kind = rope.pop("rope_type", old_name)
    turned = rope.pop("partial_rotary_factor", settings.get("partial_rotary_factor"))
    if turned not in (None, 1.0):
        raise UnsupportedError(
            f"partial_rotary_factor = {turned!r} of a {settings['model_type']} is not "
            "supported; only 1.0 is supported."
        )
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UnsupportedError(
            f"{field}.rope_type = {kind!r} of a {settings['model_type']} is not "
            "supported; 'default' and 'llama3' are supported."
        )
    top = settings.get("original_max_position_embeddings", positions)
    rope.setdefault("original_max_position_embeddings", top)
    if missing := [name for name in _SCALING if name not in rope]:
        raise UnsupportedError(
            f"{field} = {settings[field]!r} lacks {missing[0]}, which rope_type = "
            "'llama3' needs."
        )
    return theta, tuple((name, rope[name]) for name in _SCALING)


def _settings_of_llama(shape: Architecture) -> dict[str, Any]:
    family = "qwen2" if shape.input_bias and not shape.bias else "llama"
    written: dict[str, Any] = {
        "model_type": family,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_size,
        "hidden_act": _written_activation(shape),
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rotary_theta,
        "rope_scaling": None,
        "tie_word_embeddings": shape.tied,
    }
    if shape.rotary_scaling is not None:
        scaling = dict(shape.rotary_scaling)
        context = int(scaling["original_max_position_embeddings"])
        scaling["original_max_position_embeddings"] = context
        written["rope_scaling"] = {"rope_type": "llama3", **scaling}
    if family == "qwen2":
        written["use_sliding_window"] = False
    else:
        written |= {"attention_bias": shape.bias, "mlp_bias": shape.bias}
    return written


def _settings_of_gpt2(shape: Architecture) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": shape.vocabulary,
        "n_embd": shape.width,
        "n_inner": shape.hidden,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "activation_function": _written_activation(shape),
        "layer_norm_epsilon": shape.epsilon,
        "tie_word_embeddings": shape.tied,
    }


def _written_activation(shape: Architecture) -> str:
    names = [name for name, ours in _ACTIVATIONS.items() if ours == shape.activation]
    return names[0]
