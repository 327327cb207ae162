"""RigL in a training loop on a plain dict, on scikit-learn's digits."""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images / 16, labels, random_state=0)
rng = np.random.default_rng(0)

params = {
    "hidden": {"kernel": rng.normal(size=(64, 256)) / 8, "bias": np.zeros(256)},
    "output": {"kernel": rng.normal(size=(256, 10)) / 16, "bias": np.zeros(10)},
}
params = jax.tree.map(jax.numpy.float32, params)
tx = sj.rigl(optax.adam(3e-3), sparsity=0.9, every=20, stop=375)  # changed
state = tx.init(params)
params = sj.sparsify(params, state)  # added


def forward(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


def loss(params, x, y):
    logits = forward(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def train_step(params, state, x, y):
    updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
    return optax.apply_updates(params, updates), state


for _ in range(500):
    batch = rng.choice(len(train_x), 128, replace=False)
    params, state = train_step(params, state, train_x[batch], train_y[batch])

print(f"test accuracy {(forward(params, test_x).argmax(-1) == test_y).mean():.3f}")
print(sj.summary(params, state))
