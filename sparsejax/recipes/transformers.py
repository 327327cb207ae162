"""Transformers that model language: of Python's own source, or of large corpora."""

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import check_argument, method_fields, sparsify_only

# Attention and MLPs; embeddings, norms and the head are dense.
_SPARSE = r"blocks/.*/kernel$"


def transformer(
    method: str, argument: str | None = None, *, variant: str = ""
) -> ConfigDict:
    """A decoder on Python's standard library in minutes, on lm1b or on C4.

    Matrices of attention and MLPs are sparse; embeddings, norms and the head are dense.

    Args:
      method: A method's name.
      argument: ``None`` or ``"python"``: 4 layers of 128 on bytes, 1,000 steps of 16
        rows of 128. ``"lm1b"``: 12 layers of 768 on 32,768 pairs of bytes, 100,000
        steps of 256 rows of 256. ``"c4"``: 12 layers of 768, 100,000 steps of 256 rows
        of 1,024.
      variant: What the config's name has between those of method and network.

    Returns:
      The config: adamw with a cosine schedule, sparsity 0.8 by ERK.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> transformer("rigl", "c4").data.context
      1024
    """
    name = "_".join(part for part in (method, variant, "transformer") if part)
    check_argument(name, argument, ("python", "lm1b", "c4"))
    if argument in ("lm1b", "c4"):
        return _large(method, argument)
    steps = FieldReference(1_000)
    config = ConfigDict({"seed": 0, "task": "language_model", "steps": steps})
    config.model = {
        "name": "transformer",
        "size": "tiny",
        "layers": 4,
        "width": 128,
        "scanned": True,
        "dtype": "float32",
    }
    config.data = {
        "name": "python_standard_library",
        "context": 128,
        "tokenizer": "bytes",
        "batch_size": 16,
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 4e-3,
        "b2": 0.95,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
    }
    config.learning_rate_schedule = {
        "name": "cosine",
        "warmup_steps": 100,
        "final": 0.05,
    }
    _common(config)
    config.method = method_fields(method, sparsity=0.8, every=50, steps=steps)
    sparsify_only(config, _SPARSE)
    config.log_every = 25
    config.evaluate_every = 500
    config.checkpoint_every = 500
    config.keep_checkpoints = 2
    return config


def _large(method: str, argument: str) -> ConfigDict:
    steps = FieldReference(100_000)
    config = ConfigDict({"seed": 0, "task": "language_model", "steps": steps})
    config.model = {
        "name": "transformer",
        "size": "small",
        "scanned": True,
        "remat": True,
        "dtype": "bfloat16",
    }
    config.data = {
        "name": argument,
        "context": {"lm1b": 256, "c4": 1024}[argument],
        "tokenizer": "bpe",
        "vocabulary_size": 32_768,
        "batch_size": 256,
        "worker_count": 8,
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 6e-4,
        "b2": 0.95,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
    }
    config.learning_rate_schedule = {
        "name": "cosine",
        "warmup_steps": 2_000,
        "final": 0.1,
    }
    _common(config)
    config.method = method_fields(method, sparsity=0.8, every=100, steps=steps)
    sparsify_only(config, _SPARSE)
    config.log_every = 100
    config.evaluate_every = 5_000
    config.checkpoint_every = 1_000
    config.keep_checkpoints = 3
    return config


def _common(config: ConfigDict) -> None:
    config.z_loss = 0.0
    config.gradient_accumulation = 1
    config.average = {"decay": 0.0}
    config.initialization = "dense"
    config.start_from = {"workdir": "", "topology": "keep", "new": ""}


def transformer_classifier(method: str, argument: str | None = None) -> ConfigDict:
    """An encoder that tells the packages of Python's standard library apart.

    Args:
      method: A method's name.
      argument: ``None`` or ``"python"``: 2 layers of 128, 400 steps of 16 pieces of 128
        bytes.

    Returns:
      The config: adamw with a cosine schedule, sparsity 0.8 by ERK, a dense head.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> transformer_classifier("rigl").data.name
      'python_packages'
    """
    check_argument(f"{method}_transformer_classifier", argument, ("python",))
    steps = FieldReference(400)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": steps})
    config.model = {"name": "transformer_classifier", "size": "tiny", "layers": 2}
    config.data = {"name": "python_packages", "context": 128, "batch_size": 16}
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "b2": 0.95,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
    }
    config.learning_rate_schedule = {
        "name": "cosine",
        "warmup_steps": 40,
        "final": 0.05,
    }
    config.label_smoothing = 0.0
    config.average = {"decay": 0.0}
    config.initialization = "dense"
    config.start_from = {"workdir": "", "topology": "keep", "new": ""}
    config.method = method_fields(method, sparsity=0.8, every=20, steps=steps)
    sparsify_only(config, _SPARSE)
    config.log_every = 20
    config.evaluate_every = 200
    config.checkpoint_every = 200
    config.keep_checkpoints = 2
    return config
