"""What is compared: settings of methods, by name, and the sparsities they are for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sparsejax import configuration

SPARSITIES = (0.9, 0.95, 0.98)


class Setting(NamedTuple):
    """One line of the tables.

    Attributes:
      title: as tables and plots call it.
      config: of ``configs/``.
      overrides: steps -> fields of the config that differ from it.
      sparsities: at which it is trained.
    """

    title: str
    config: str
    overrides: Callable[[int], Mapping[str, Any]] = lambda steps: {}
    sparsities: tuple[float, ...] = SPARSITIES


def fixed(**fields: Any) -> Callable[[int], Mapping[str, Any]]:
    """Overrides of ``config.method`` that do not depend on the steps."""
    return lambda steps: {f"method.{name}": value for name, value in fields.items()}


def _two_of_four(steps: int) -> Mapping[str, Any]:
    # Trained dense for three quarters, then 2:4 at once: the reference of SR-STE.
    return {
        "method.start": steps * 3 // 4,
        "method.stop": None,
        "method.structure": {"name": "n_m", "n": 2, "m": 4},
        "method.distribution": "uniform",
    }


SETTINGS = {
    "dense": Setting("dense", "dense_mlp", sparsities=(0.0,)),
    "static": Setting("static", "static_mlp"),
    "set": Setting("SET", "set_mlp"),
    "rigl": Setting("RigL", "rigl_mlp"),
    "magnitude": Setting(
        "gradual magnitude",
        "magnitude_mlp",
        lambda steps: {"method.start": steps // 10},
    ),
    "srigl": Setting("SRigL", "srigl_mlp"),
    "srigl_whole": Setting(
        "SRigL without ablation", "srigl_mlp", fixed(ablation=False)
    ),
    "dsr": Setting("DSR", "dsr_mlp"),
    "snfs": Setting("SNFS", "snfs_mlp"),
    "mest": Setting("MEST (EM)", "mest_mlp"),
    "mest_soft": Setting("MEST (EM&S)", "mest_mlp", fixed(soft_memory_bound=True)),
    "granet": Setting("GraNet", "granet_mlp"),
    "cht": Setting("CHT", "cht_mlp"),
    "chts": Setting("CHTs", "cht_mlp", fixed(removal="sampled", growth="sampled")),
    "snip": Setting("SNIP", "snip_mlp"),
    "grasp": Setting("GraSP", "grasp_mlp"),
    "synflow": Setting("SynFlow", "synflow_mlp"),
    "force": Setting("FORCE", "force_mlp"),
    "ac_dc": Setting("AC/DC", "ac_dc_mlp"),
    "straight_through": Setting("straight-through", "straight_through_mlp"),
    "top_kast": Setting("Top-KAST", "top_kast_mlp"),
    "autosparse": Setting("AutoSparse, top-k", "autosparse_mlp"),
    "soft_top_k": Setting("soft top-k", "soft_top_k_mlp"),
    "dynadiag": Setting("DynaDiag", "dynadiag_mlp"),
    "neuron_pruning": Setting("neuron pruning", "neuron_pruning_mlp"),
    "one_shot_2_4": Setting(
        "one-shot magnitude, 2:4", "magnitude_mlp", _two_of_four, (0.5,)
    ),
    "sr_ste": Setting("SR-STE, 2:4", "sr_ste_mlp", sparsities=(0.5,)),
    "s_ste": Setting("S-STE, 2:4", "s_ste_mlp", sparsities=(0.5,)),
}
"""Everything that is trained, in the order of the tables."""


def configure(name: str, sparsity: float, steps: int) -> ConfigDict:
    """The config of a setting, at a sparsity and a number of steps.

    Args:
      name: of `SETTINGS`.
      sparsity: share of the weights that are zero; ignored by ``dense``.
      steps: training steps; until 75 % of them the topology moves every ``steps / 40``,
        at least 5.

    Returns:
      The config.
    """
    setting = SETTINGS[name]
    config = configuration.load(setting.config)
    config.steps = steps
    if "sparsity" in config.method:
        config.method.sparsity = sparsity
    if "every" in config.method:
        # Moves of RigL and SET replace a step: in short runs, too, most must train.
        config.method.every = max(5, steps // 40)
    with config.ignore_type(), config.unlocked():
        for field, value in setting.overrides(steps).items():
            *parents, last = field.split(".")
            place = config
            for parent in parents:
                place = place[parent]
            place[last] = value
    return config
