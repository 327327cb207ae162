"""Two processes that train together see the very batches that one sees alone."""

import socket
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sparsejax.data.digits import digits
from sparsejax.data.pipeline import train_batches

address, index, data_dir = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, 2, index)
split = NamedSharding(Mesh(np.array(jax.devices()), "data"), PartitionSpec("data"))
dataset = digits(data_dir=data_dir, shift=1)
one = train_batches(dataset, batch_size=16, seed=0)
mine = train_batches(
    dataset, batch_size=16, seed=0,
    process_index=jax.process_index(), process_count=jax.process_count())
assert jax.process_count() == 2 and jax.device_count() == 4
for step in (0, 1, 200):
    expected = one[step]
    batch = jax.make_array_from_process_local_data(split, mine[step])
    for name, array in batch.items():
        assert array.shape == expected[name].shape
        assert len(array.addressable_shards) == 2
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, expected[name][shard.index])
print("the same")
"""


@pytest.mark.slow
def test_a_global_batch_is_that_of_one_process(data_dir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, address, str(index), str(data_dir)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output == "the same\n"
