"""Agents on the environments that they learn in minutes."""

from typing import Any

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import check_argument, method_fields


def dqn_cartpole(method: str, argument: str | None = None) -> ConfigDict:
    """DQN that balances a pole: five seeds in one program.

    Args:
      method: A method's name.
      argument: ``None`` or ``"cartpole"``.

    Returns:
      The config: a perceptron of 256-256 with LayerNorm, adam at 1e-3, 95 % sparse by
      ERK, the topology moving every 500 updates until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> dqn_cartpole("rigl").method.stop
      15000
    """
    check_argument(f"{method}_dqn_cartpole", argument, ("cartpole",))
    steps = FieldReference(20_000)
    config = _common(steps, seeds=5)
    config.task = {
        "name": "dqn",
        "discount": 0.99,
        "double": True,
        "n_steps": 1,
        "target_every": 100,
        "epsilon": 0.05,
        "exploration": 0.25,
    }
    config.model = {"name": "mlp", "hidden": (256, 256), "layer_norm": True}
    config.data = {
        "name": "gymnax:CartPole-v1",
        "batch_size": 128,
        "environments": 4,
        "replay_size": 20_000,
        "learning_starts": 1_000,
        "steps_per_update": 1,
        "updates_per_step": 1,
        "normalize": True,
    }
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.method = _moving(method, 0.95, every=500, steps=steps, drop=0.5)
    return config


def _common(steps: FieldReference, *, seeds: int) -> ConfigDict:
    """What agents share; the steps are updates of the networks."""
    config = ConfigDict({"seed": 0, "seeds": seeds, "steps": steps})
    config.learning_rate_schedule = {"name": "constant"}
    config.initialization = "dense"
    config.updates_per_call = 500
    config.evaluation_episodes = 10
    config.log_every = 500
    config.evaluate_every = 1_000
    config.checkpoint_every = 5_000
    config.keep_checkpoints = 2
    return config


def _moving(
    method: str, sparsity: float, *, every: int, steps: FieldReference, drop: float
) -> dict[str, Any]:
    """A method's fields: pruning from 20 to 80 % of the updates, moves until 75 %."""
    pruning = method in ("magnitude", "granet")
    fields = method_fields(
        method,
        sparsity=sparsity,
        every=every,
        steps=steps,
        start=steps // 5 if pruning else None,
        stop=steps * 4 // 5 if pruning else None,
    )
    if method in ("rigl", "set"):
        fields["drop_fraction"] = {"name": "cosine", "initial": drop}
    return fields
