"""Environments: ``make("gymnax:CartPole-v1")``, one file for each library of them."""

from sparsejax.envs.base import Environment, Step, auto_reset, scaled
from sparsejax.envs.making import make

__all__ = ["Environment", "Step", "auto_reset", "make", "scaled"]
