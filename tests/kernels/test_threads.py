"""What the kernels on CPU do with XLA's threads."""

import os
import pathlib

import jax
import pytest
from sparsejax_kernels import FanIn, native, pointwise_convolution
from weights import layer


def processors_of_threads() -> set[str]:
    """Lists of the processors that the threads of this process may run on."""
    lists = set()
    for status in pathlib.Path("/proc/self/task").glob("*/status"):
        lines = status.read_text().splitlines()
        lists.update(line for line in lines if line.startswith("Cpus_allowed_list"))
    return lists


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities here")
def test_threads_may_run_where_they_could_before():
    if not native.available():
        pytest.skip("no kernels on CPU")
    before = processors_of_threads()
    weight = FanIn.fromdense(*layer(512, 256, density=0.1))
    x = jax.random.normal(jax.random.key(0), (1, 512, 28 * 28))
    run = jax.jit(lambda x: pointwise_convolution(x, weight))
    for _ in range(300):
        run(x).block_until_ready()
    assert processors_of_threads() == before
