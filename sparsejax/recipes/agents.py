"""Agents: DQN and PPO on a pole, DQN on MinAtar, SAC on a pendulum and on robots."""

from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from sparsejax.recipes.parts import check_argument, method_fields

# Begin to prune at a fifth of training, end at four fifths.
_PRUNING = ("magnitude", "granet")


def dqn_cartpole(method: str, argument: str | None = None) -> ConfigDict:
    """DQN that balances a pole: five seeds in one program.

    Args:
      method: A method's name.
      argument: ``None`` or ``"cartpole"``.

    Returns:
      The config: a perceptron of 256-256 with LayerNorm, adam from 1e-3, 95 % sparse by
      ERK, the topology moving every 500 of 20,000 updates until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> dqn_cartpole("rigl").method.stop
      15000
    """
    check_argument(f"{method}_dqn_cartpole", argument, ("cartpole",))
    steps = FieldReference(20_000)
    config = _agent(steps, seeds=5)
    config.task = _dqn(n_steps=5, target_every=50, exploration=0.25)
    config.model = {"name": "mlp", "hidden": (256, 256), "layer_norm": True}
    # All that it ever sees: one who only remembers balancing forgets falling. And the
    # scale is about what the pole may do; statistics of a balanced one drift to 0.
    config.data = _experience(
        "gymnax:CartPole-v1",
        batch_size=64,
        environments=4,
        replay_size=100_000,
        learning_starts=1_000,
        normalize=False,
        observation_scale=(2.4, 2.0, 0.2, 2.0),
    )
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.method = _method(method, 0.95, every=500, steps=steps, drop=0.5)
    return config


def dqn_breakout(method: str, argument: str | None = None) -> ConfigDict:
    """DQN that plays MinAtar's Breakout: eight seeds in one program.

    Args:
      method: A method's name.
      argument: ``None`` or ``"breakout"``; ``"cnn"`` for MinAtar's own network, whose
        convolution may have a method of its own: ``config.encoder.method``.

    Returns:
      The config: a perceptron of 128-128 with LayerNorm, adam at 5e-4, one update every
      8 of 300,000 frames, 95 % sparse by ERK, the topology moving every 500 updates.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> dqn_breakout("rigl").data.name
      'gymnax:Breakout-MinAtar'
    """
    check_argument(f"{method}_dqn_breakout", argument, ("breakout", "cnn"))
    steps = FieldReference(37_500)
    config = _agent(steps, seeds=8)
    config.task = _dqn(n_steps=1, target_every=200, exploration=0.1)
    if argument == "cnn":
        config.model = {"name": "minatar_cnn", "hidden": 128, "layer_norm": True}
    else:
        config.model = {"name": "mlp", "hidden": (128, 128), "layer_norm": True}
    config.data = _experience(
        "gymnax:Breakout-MinAtar",
        batch_size=32,
        environments=8,
        replay_size=100_000,
        learning_starts=5_000,
    )
    config.evaluate_every, config.evaluation_episodes = 1_500, 20
    config.checkpoint_every = 7_500
    config.optimizer = {"name": "adam", "learning_rate": 5e-4}
    config.method = _method(method, 0.95, every=500, steps=steps, drop=0.3)
    return config


def ppo_cartpole(method: str, argument: str | None = None) -> ConfigDict:
    """PPO that balances a pole: five seeds in one program.

    Args:
      method: A method's name.
      argument: ``None`` or ``"cartpole"``.

    Returns:
      The config: perceptrons of 256-256 with LayerNorm, adam from 1e-3, rollouts of 64
      steps of 8 copies and 40 updates after each, 95 % sparse by ERK, the topology
      moving every 250 of 5,000 updates until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> ppo_cartpole("rigl").method.stop
      3750
    """
    check_argument(f"{method}_ppo_cartpole", argument, ("cartpole",))
    steps = FieldReference(5_000)
    config = _agent(steps, seeds=5)
    config.task = {
        "name": "ppo",
        "discount": 0.99,
        "advantage_decay": 0.95,
        "clip": 0.2,
        "value_weight": 0.5,
        "entropy_weight": 0.01,
        "epochs": 10,
        "minibatches": 4,
    }
    _two_roles(config)
    config.data = {
        "name": "gymnax:CartPole-v1",
        "batch_size": 128,
        "environments": 8,
        "normalize": False,
        "observation_scale": (2.4, 2.0, 0.2, 2.0),
    }
    config.updates_per_call = config.log_every = 200
    config.optimizer = {"name": "adam", "learning_rate": 1e-3, "gradient_clip": 0.5}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.method = _method(method, 0.95, every=250, steps=steps, drop=0.5)
    return config


def sac_pendulum(method: str, argument: str | None = None) -> ConfigDict:
    """SAC that swings up a pendulum: five seeds in one program.

    Args:
      method: A method's name.
      argument: ``None`` or ``"pendulum"``.

    Returns:
      The config: perceptrons of 256-256 with LayerNorm, adam from 1e-3, 95 % sparse by
      ERK, the topology moving every 250 of 10,000 updates until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> sac_pendulum("set").method.every
      250
    """
    check_argument(f"{method}_sac_pendulum", argument, ("pendulum",))
    steps = FieldReference(10_000)
    config = _sac(steps, seeds=5)
    config.data = _experience(
        "gymnax:Pendulum-v1",
        batch_size=128,
        environments=1,
        replay_size=20_000,
        learning_starts=1_000,
    )
    config.checkpoint_every = 5_000
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.method = _method(method, 0.95, every=250, steps=steps, drop=0.5)
    return config


def sac_halfcheetah(method: str, argument: str | None = None) -> ConfigDict:
    """SAC that makes brax's half-cheetah run, by the published settings, for a GPU.

    Args:
      method: A method's name.
      argument: ``None`` or ``"halfcheetah"``.

    Returns:
      The config: perceptrons of 256-256, adam at 3e-4, batches of 256, 90 % sparse by
      ERK, the topology moving every 1,000 of 1,000,000 updates until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> sac_halfcheetah("rigl").method.every
      1000
    """
    check_argument(f"{method}_sac_halfcheetah", argument, ("halfcheetah",))
    return _robot(method, "brax:halfcheetah")


def sac_ant(method: str, argument: str | None = None) -> ConfigDict:
    """SAC that makes brax's ant walk; else as `sac_halfcheetah`.

    Args:
      method: A method's name.
      argument: ``None`` or ``"ant"``.

    Returns:
      The config.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> sac_ant("rigl").data.name
      'brax:ant'
    """
    check_argument(f"{method}_sac_ant", argument, ("ant",))
    return _robot(method, "brax:ant")


def _robot(method: str, name: str) -> ConfigDict:
    steps = FieldReference(1_000_000)
    config = _sac(steps, seeds=8)
    config.data = _experience(
        name,
        batch_size=256,
        environments=8,
        replay_size=1_000_000,
        learning_starts=10_000,
        updates_per_step=8,
    )
    config.updates_per_call = 1_000
    config.log_every = 1_000
    config.evaluate_every = 20_000
    config.checkpoint_every = 100_000
    config.optimizer = {"name": "adam", "learning_rate": 3e-4}
    config.method = _method(method, 0.9, every=1_000, steps=steps, drop=0.5)
    return config


def _agent(steps: FieldReference, *, seeds: int) -> ConfigDict:
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
    # Of convolutions, where the network has some: what is not set is as elsewhere.
    config.encoder = {"method": _own_method()}
    return config


def _sac(steps: FieldReference, *, seeds: int) -> ConfigDict:
    config = _agent(steps, seeds=seeds)
    config.task = {
        "name": "sac",
        "discount": 0.99,
        "n_steps": 1,
        "target_rate": 0.005,
        "initial_temperature": 1.0,
    }
    _two_roles(config)
    return config


def _two_roles(config: ConfigDict) -> None:
    """An actor and a critic, which may have networks and sparsities of their own."""
    config.model = {"name": "mlp", "hidden": (256, 256), "layer_norm": True}
    # What is not set here is as in `config.model` and `config.method`.
    for role in ("actor", "critic"):
        config[role] = {
            "model": {"name": placeholder(str), "hidden": placeholder(tuple)},
            "method": _own_method(),
        }
    config.actor_share = placeholder(float)


def _own_method() -> dict[str, Any]:
    return {"name": placeholder(str), "sparsity": placeholder(float)}


def _dqn(*, n_steps: int, target_every: int, exploration: float) -> dict[str, Any]:
    return {
        "name": "dqn",
        "discount": 0.99,
        "double": True,
        "n_steps": n_steps,
        "target_every": target_every,
        "epsilon": 0.05,
        "exploration": exploration,
    }


def _experience(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "steps_per_update": 1,
        "updates_per_step": 1,
        "normalize": True,
        "observation_scale": 1.0,
        **fields,
    }


def _method(
    method: str, sparsity: float, *, every: int, steps: FieldReference, drop: float
) -> dict[str, Any]:
    """A method's fields: pruning from 20 to 80 % of the updates, moves until 75 %."""
    pruning = method in _PRUNING
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
