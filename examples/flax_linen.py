"""RigL in a Flax Linen training loop, on scikit-learn's digits."""

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images / 16, labels, random_state=0)
rng = np.random.default_rng(0)

model = nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(10)])
params = model.init(jax.random.key(0), train_x[:1])["params"]
tx = sj.rigl(optax.adam(3e-3), sparsity=0.9, every=20, stop=375)  # changed
state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
state = state.replace(params=sj.sparsify(params, state.opt_state))  # added


@jax.jit
def train_step(state, x, y):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


for _ in range(500):
    batch = rng.choice(len(train_x), 128, replace=False)
    state = train_step(state, train_x[batch], train_y[batch])

predictions = model.apply({"params": state.params}, test_x).argmax(-1)
print(f"test accuracy {(predictions == test_y).mean():.3f}")
print(sj.summary(state.params, state.opt_state))
