"""What is trained, and which orderings are expected: chosen before anything was run."""

from typing import NamedTuple


class Problem(NamedTuple):
    """An environment and the agent that learns in it.

    Attributes:
      title: as tables and plots call it.
      config: second half of its configs' names.
      small: hidden layers of the dense network with as many parameters as a sparse one.
      updates: the config's own steps.
    """

    title: str
    config: str
    small: tuple[int, ...]
    updates: int


class Arm(NamedTuple):
    """A way to train.

    Attributes:
      title: as tables and plots call it.
      method: first half of its config's name.
      small: whether the network is the small dense one.
    """

    title: str
    method: str
    small: bool = False


PROBLEMS = {
    "breakout": Problem("DQN on MinAtar Breakout", "dqn_breakout", (8, 8), 37_500),
    "pendulum": Problem("SAC on Pendulum-v1", "sac_pendulum", (54, 54), 10_000),
    "halfcheetah": Problem(
        "SAC on halfcheetah", "sac_halfcheetah", (74, 74), 1_000_000
    ),
    "ant": Problem("SAC on ant", "sac_ant", (74, 74), 1_000_000),
}

ARMS = {
    "dense": Arm("dense", "dense"),
    "small_dense": Arm("small dense", "dense", small=True),
    "static": Arm("static", "static"),
    "set": Arm("SET", "set"),
    "rigl": Arm("RigL", "rigl"),
    "magnitude": Arm("gradual pruning", "magnitude"),
}

#: Better, worse: the findings of Graesser et al. (2022).
EXPECTED = (
    ("dense", "static"),
    ("set", "static"),
    ("rigl", "static"),
    ("magnitude", "static"),
    ("magnitude", "set"),
    ("magnitude", "rigl"),
    ("static", "small_dense"),
    ("set", "small_dense"),
    ("rigl", "small_dense"),
    ("magnitude", "small_dense"),
)
