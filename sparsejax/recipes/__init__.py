"""The settings that the configs share: all but the method."""

from sparsejax.recipes.agents import (
    dqn_breakout,
    dqn_cartpole,
    ppo_cartpole,
    sac_ant,
    sac_halfcheetah,
    sac_pendulum,
)
from sparsejax.recipes.detectors import ssd_mobilenet_v1
from sparsejax.recipes.mobile_networks import mobilenet_v1
from sparsejax.recipes.parts import by_path, grid
from sparsejax.recipes.perceptrons import mlp
from sparsejax.recipes.residual_networks import resnet50
from sparsejax.recipes.transformers import transformer, transformer_classifier
from sparsejax.recipes.wide_networks import wide_resnet

__all__ = [
    "by_path",
    "dqn_breakout",
    "dqn_cartpole",
    "grid",
    "mlp",
    "mobilenet_v1",
    "ppo_cartpole",
    "resnet50",
    "sac_ant",
    "sac_halfcheetah",
    "sac_pendulum",
    "ssd_mobilenet_v1",
    "transformer",
    "transformer_classifier",
    "wide_resnet",
]
