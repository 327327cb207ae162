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
        model = {"size": "small", "remat": True, "dtype": "bfloat16"}
        data = {
            "name": argument,
            "context": {"lm1b": 256, "c4": 1024}[argument],
            "tokenizer": "bpe",
            "vocabulary_size": 32_768,
            "batch_size": 256,
            "worker_count": 8,
        }
        config = _trained("language_model", 100_000, learning_rate=6e-4, warmup=2_000)
        config.update({"learning_rate_schedule": {"final": 0.1}})
        every, logged, evaluated, saved = 100, 100, 5_000, 1_000
    else:
        model = {"size": "tiny", "layers": 4, "width": 128, "dtype": "float32"}
        data = {
            "name": "python_standard_library",
            "context": 128,
            "tokenizer": "bytes",
            "batch_size": 16,
        }
        config = _trained("language_model", 1_000, learning_rate=4e-3, warmup=100)
        every, logged, evaluated, saved = 50, 25, 500, 500
    config.model = {"name": "transformer", "scanned": True, **model}
    config.data = data
    config.z_loss = 0.0
    config.gradient_accumulation = 1
    _sparse(config, method, every=every)
    config.log_every = logged
    config.evaluate_every = evaluated
    config.checkpoint_every = saved
    return config


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
    config = _trained("classify", 400, learning_rate=2e-3, warmup=40)
    config.model = {"name": "transformer_classifier", "size": "tiny", "layers": 2}
    config.data = {"name": "python_packages", "context": 128, "batch_size": 16}
    config.label_smoothing = 0.0
    _sparse(config, method, every=20)
    config.log_every = 20
    config.evaluate_every = 200
    config.checkpoint_every = 200
    return config


def _trained(task: str, steps: int, *, learning_rate: float, warmup: int) -> ConfigDict:
    config = ConfigDict({"seed": 0, "task": task, "steps": FieldReference(steps)})
    config.optimizer = {
        "name": "adamw",
        "learning_rate": learning_rate,
        "b2": 0.95,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
    }
    config.learning_rate_schedule = {
        "name": "cosine",
        "warmup_steps": warmup,
        "final": 0.05,
    }
    config.average = {"decay": 0.0}
    config.initialization = "dense"
    config.start_from = {"workdir": "", "topology": "keep", "new": ""}
    config.keep_checkpoints = 2
    return config


def _sparse(config: ConfigDict, method: str, *, every: int) -> None:
    # The intervals follow the steps if those are changed.
    steps = config.get_ref("steps")
    config.method = method_fields(method, sparsity=0.8, every=every, steps=steps)
    sparsify_only(config, _SPARSE)
