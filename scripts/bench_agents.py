"""Environment and learning steps per second of our agents against others'.

DQN on CartPole-v1 against purejaxrl's, SAC on a robot of brax against brax's own: dense
networks, and the same widths, batches, copies of the environment, and updates per step
in both. They take turns, so that a noisy machine slows both; compiling is not timed.
Printed are the median of the ratio of their speeds and its 10th to 90th percentile over
the rounds, and the returns of what was trained on the way.

    git clone https://github.com/luchris429/purejaxrl
    python scripts/bench_agents.py --purejaxrl purejaxrl   # some minutes on two cores
    python scripts/bench_agents.py --agents sac --robot fast

purejaxrl's program runs as it is; what jax, gymnax and wandb have changed or taken away
since is put back around it, and around brax's: `jax.tree_map`,
`jax.device_put_replicated`, and five values from an environment's step, not six.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import sys
import time
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import configuration
from sparsejax.building import build

ENVIRONMENTS = {"dqn": 10, "sac": 8}
BATCH = {"dqn": 128, "sac": 256}
REPLAY = {"dqn": 10_000, "sac": 100_000}
EPISODE = 200


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", nargs="+", default=["dqn", "sac"], choices=BATCH)
    parser.add_argument(
        "--purejaxrl", type=pathlib.Path, help="a checkout of purejaxrl, for DQN"
    )
    parser.add_argument(
        "--robot", default="inverted_pendulum", help="of brax, for SAC; fast is none"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dqn-updates", type=int, default=5_000, help="in a round")
    parser.add_argument("--sac-updates", type=int, default=200, help="in a round")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all times")
    options = parser.parse_args()
    check(parser, options)
    warnings.simplefilter("ignore")
    restore_names()
    cores = len(os.sched_getaffinity(0))
    print(f"{jax.devices()[0].device_kind}, {cores} cores, jax {jax.__version__}")
    rows = [
        {"dqn": compare_dqn, "sac": compare_sac}[a](options) for a in options.agents
    ]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def check(parser, options):
    """Ends with one line where the options cannot be run."""
    if "dqn" in options.agents:
        if options.purejaxrl is None:
            parser.error(
                "--purejaxrl is missing: give a checkout of it (git clone "
                "https://github.com/luchris429/purejaxrl), or choose --agents sac"
            )
        if not program(options.purejaxrl).is_file():
            parser.error(f"--purejaxrl {options.purejaxrl}: no purejaxrl/dqn.py there")
    if options.rounds < 1 or options.dqn_updates < 1:
        parser.error("--rounds and --dqn-updates have to be at least 1")
    if options.sac_updates < 1 or options.sac_updates % ENVIRONMENTS["sac"]:
        parser.error(
            f"--sac-updates {options.sac_updates}: give a multiple of "
            f"{ENVIRONMENTS['sac']}, the updates after each step of the environments"
        )


def compare_dqn(options):
    """Prints how fast DQN is: of a whole training from a key, its start included."""
    updates, copies = options.dqn_updates, ENVIRONMENTS["dqn"]
    ours = our_agent(
        "dense_dqn_cartpole",
        updates,
        task={
            "double": False,
            "target_every": 50,
            "huber_delta": None,
            "n_steps": 1,
        },
        model={"hidden": (120, 84), "layer_norm": False},
        data={
            "batch_size": BATCH["dqn"],
            "environments": copies,
            "replay_size": REPLAY["dqn"],
            "learning_starts": BATCH["dqn"],
        },
        optimizer={"learning_rate": 2.5e-4},
        learning_rate_schedule={"name": "constant"},
    )

    @jax.jit
    def train_ours(key):
        state, metrics = ours.train_step(ours.initialise(key), None)
        return state, metrics["training_return"]

    theirs = jax.jit(purejaxrl_training(options.purejaxrl, updates * copies))

    def train_theirs(key):
        found = theirs(key)
        return found, found["metrics"]["returns"][-1]

    # What is to take turns are trainings of many updates: one each to compile.
    runs = {"sparsejax": train_ours, "purejaxrl": train_theirs}
    seconds = {name: [] for name in runs}
    returns = {name: [] for name in runs}
    for round_ in range(-1, options.rounds):
        keys = {"sparsejax": jax.random.key(round_ + 1)}
        keys["purejaxrl"] = jax.random.PRNGKey(round_ + 1)
        for name in sorted(runs, reverse=round_ % 2 == 1):
            begin = time.perf_counter()
            _, found = jax.block_until_ready(runs[name](keys[name]))
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - begin)
                returns[name].append(float(found))
        progress(round_, options.rounds)
    print(f"DQN, CartPole-v1, 120-84, batch {BATCH['dqn']}, {copies} environments")
    return said("dqn", seconds, updates * copies, returns)


def compare_sac(options):
    """Prints how fast SAC is: ours takes its turn after each of brax's epochs."""
    from brax import envs
    from brax.training.agents.sac import train as sac

    updates, copies, batch = options.sac_updates, ENVIRONMENTS["sac"], BATCH["sac"]
    config = {
        "batch_size": batch,
        "environments": copies,
        "replay_size": REPLAY["sac"],
        "learning_starts": 1_000,
        "updates_per_step": copies,
        "episode_limit": EPISODE,
    }
    ours = our_agent(
        "dense_sac_pendulum",
        updates,
        model={"layer_norm": False},
        data={"name": f"brax:{options.robot}", **config},
        optimizer={"learning_rate": 3e-4},
        learning_rate_schedule={"name": "constant"},
    )
    state = jax.jit(ours.initialise)(jax.random.key(0))
    step = jax.jit(ours.train_step, donate_argnums=0)
    seconds = {"sparsejax": [], "brax": []}
    returns = {"sparsejax": [], "brax": []}

    def turn(_, metrics):
        nonlocal state
        if "training/sps" not in metrics:
            return
        begin = time.perf_counter()
        state, found = jax.block_until_ready(step(state, None))
        seconds["sparsejax"].append(time.perf_counter() - begin)
        seconds["brax"].append(updates / float(metrics["training/sps"]))
        returns["sparsejax"].append(float(found["training_return"]))
        returns["brax"].append(float(metrics["eval/episode_reward"]))
        progress(len(seconds["brax"]) - 1 - WARM, options.rounds)

    sac.train(
        environment=envs.get_environment(options.robot),
        num_timesteps=1_000 + (WARM + options.rounds) * updates,
        num_evals=WARM + options.rounds + 1,
        episode_length=EPISODE,
        num_envs=copies,
        num_eval_envs=1,
        learning_rate=3e-4,
        discounting=0.99,
        batch_size=batch,
        normalize_observations=True,
        min_replay_size=1_000,
        max_replay_size=REPLAY["sac"],
        grad_updates_per_step=copies,
        max_devices_per_host=1,
        progress_fn=turn,
    )
    seconds = {name: found[WARM:] for name, found in seconds.items()}
    print(f"SAC, brax's {options.robot}, 256-256, batch {batch}, {copies} environments")
    return said("sac", seconds, updates, returns)


# Epochs that compile, of brax and of ours.
WARM = 2


def our_agent(name, updates, **fields):
    """The task of a config with other fields."""
    config = configuration.load(name)
    with config.unlocked():
        for field, values in fields.items():
            config[field].update(values)
        config.seeds = 1
        config.steps = config.updates_per_call = updates
        config.log_every = config.evaluate_every = config.checkpoint_every = updates
    return build("task", config.task, "sparsejax.tasks", config)


def purejaxrl_training(checkout, steps):
    """Their function from a key to a trained agent, with settings as ours."""
    wandb = types.ModuleType("wandb")
    if importlib.util.find_spec("wandb") is None:
        sys.modules["wandb"] = wandb
    spec = importlib.util.spec_from_file_location("purejaxrl_dqn", program(checkout))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class FiveValues(module.LogWrapper):
        def step(self, key, state, action, params=None):
            found = super().step(key, state, action, params)
            observation, state, reward, terminated, truncated, info = found
            return observation, state, reward, terminated | truncated, info

    module.LogWrapper = FiveValues
    return module.make_train(
        {
            "ENV_NAME": "CartPole-v1",
            "NUM_ENVS": ENVIRONMENTS["dqn"],
            "BUFFER_SIZE": REPLAY["dqn"],
            "BUFFER_BATCH_SIZE": BATCH["dqn"],
            "TOTAL_TIMESTEPS": steps,
            "EPSILON_START": 1.0,
            "EPSILON_FINISH": 0.05,
            "EPSILON_ANNEAL_TIME": steps // 4,
            "TARGET_UPDATE_INTERVAL": 50 * ENVIRONMENTS["dqn"],
            "LR": 2.5e-4,
            "LEARNING_STARTS": 0,
            "TRAINING_INTERVAL": ENVIRONMENTS["dqn"],
            "GAMMA": 0.99,
            "TAU": 1.0,
        }
    )


def program(checkout):
    return checkout / "purejaxrl" / "dqn.py"


def restore_names():
    """Names of jax that the others still call."""
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree.map
    if not hasattr(jax, "device_put_replicated"):
        jax.device_put_replicated = lambda tree, devices: jax.tree.map(
            lambda leaf: jnp.stack([jnp.asarray(leaf)] * len(devices)), tree
        )


def said(agent, seconds, steps, returns):
    """Prints speeds and their ratio; returns them for the file.

    A return is of training where it is ours or purejaxrl's, and of an episode of
    evaluation where it is brax's.
    """
    ours, theirs = (np.array(found) for found in seconds.values())
    ratio = theirs / ours
    low, median, high = np.percentile(ratio, [10, 50, 90])
    for name, found in seconds.items():
        last = [value for value in returns[name] if np.isfinite(value)][-5:]
        ended = f"mean return of the last {np.mean(last):.0f}" if last else "no return"
        speed = steps / np.median(found)
        print(f"  {name}: {speed:,.0f} environment steps/s with learning, {ended}")
    other = list(seconds)[1]
    print(f"  {median:.2f}x ({low:.2f} to {high:.2f}) as fast as {other}", flush=True)
    return {"agent": agent, "steps": steps, "seconds": seconds, "ratio": median}


def progress(done, rounds):
    if done >= 0 and (sys.stderr.isatty() or (done + 1) % 5 == 0):
        print(f"round {done + 1} of {rounds}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
