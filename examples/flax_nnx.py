"""RigL in a Flax NNX training loop, on scikit-learn's digits."""

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images / 16, labels, random_state=0)
rng = np.random.default_rng(0)

rngs = nnx.Rngs(0)
hidden, output = nnx.Linear(64, 256, rngs=rngs), nnx.Linear(256, 10, rngs=rngs)
model = nnx.Sequential(hidden, nnx.relu, output)
tx = sj.rigl(optax.adam(3e-3), sparsity=0.9, every=20, stop=375)  # changed
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
params = nnx.state(model, nnx.Param)
nnx.update(model, sj.sparsify(params, optimizer.opt_state))  # added


@nnx.jit
def train_step(model, optimizer, x, y):
    def loss(model):
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


for _ in range(500):
    batch = rng.choice(len(train_x), 128, replace=False)
    train_step(model, optimizer, train_x[batch], train_y[batch])

print(f"test accuracy {(model(test_x).argmax(-1) == test_y).mean():.3f}")
print(sj.summary(nnx.state(model, nnx.Param), optimizer.opt_state))
