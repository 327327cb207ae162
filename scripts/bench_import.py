"""What `import sparsejax` adds to `import jax`, in fresh processes, in turn.

python scripts/bench_import.py
"""

import statistics
import subprocess
import sys

ROUNDS = 10


def main():
    seconds = {name: [] for name in ("jax", "optax", "sparsejax")}
    for _ in range(ROUNDS):
        for name, times in seconds.items():
            times.append(seconds_to_import(name))
    alone = statistics.median(seconds["jax"])
    print(f"import jax: {alone:.2f} s (median of {ROUNDS})")
    for name in ("optax", "sparsejax"):
        extra = statistics.median(seconds[name]) - alone
        print(f"import {name} adds {extra:.2f} s")


def seconds_to_import(name):
    script = (
        "import time; begin = time.perf_counter(); "
        f"import jax, {name}; print(time.perf_counter() - begin)"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


if __name__ == "__main__":
    main()
