"""A network of which blocks of 16x16 weights are left, found by RigL.

Once its topology is found it is trained on in compressed form: forward and backward
pass multiply the kept blocks alone, and the optimizer has no state for any other.
"""

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

images, labels = load_digits(return_X_y=True)
images = images.astype(np.float32) / 16
train_x, test_x, train_y, test_y = train_test_split(images, labels, random_state=0)
rng = np.random.default_rng(0)


@nnx.jit
def train_step(model, optimizer, x, y):
    """One step, of the masked model or of the compressed one."""

    def loss(model):
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(model, optimizer, steps):
    """Trains on random batches and prints the accuracy."""
    for _ in range(steps):
        batch = rng.choice(len(train_x), 128, replace=False)
        train_step(model, optimizer, train_x[batch], train_y[batch])
    print(f"test accuracy {(model(test_x).argmax(-1) == test_y).mean():.3f}")


rngs = nnx.Rngs(0)
hidden, middle = nnx.Linear(64, 512, rngs=rngs), nnx.Linear(512, 512, rngs=rngs)
model = nnx.Sequential(
    hidden, nnx.relu, middle, nnx.relu, nnx.Linear(512, 10, rngs=rngs)
)
tx = sj.rigl(
    optax.adam(1e-3),
    sparsity={"layers/[02]/kernel": 0.75},
    structure=sj.block(16, 16),
    every=20,
    stop=200,
)
masked = nnx.Optimizer(model, tx, wrt=nnx.Param)
nnx.update(model, sj.sparsify(nnx.state(model, nnx.Param), masked.opt_state))
train(model, masked, 200)

fast = sj.compress(model, masked.opt_state, trainable=True)
compressed = nnx.Optimizer(
    fast, optax.adam(optax.cosine_decay_schedule(1e-3, 300)), wrt=nnx.Param
)
train(fast, compressed, 300)
weight = fast.layers[2].weight
print(f"{weight.values.shape[0]} blocks of 16x16, {weight.nbytes:,} bytes")
