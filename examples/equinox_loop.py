"""RigL in an Equinox training loop, on scikit-learn's digits."""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images / 16, labels, random_state=0)
rng = np.random.default_rng(0)

model = eqx.nn.MLP(64, 10, width_size=256, depth=1, key=jax.random.key(0))
tx = sj.rigl(optax.adam(3e-3), sparsity=0.9, every=20, stop=375)  # changed
state = tx.init(eqx.filter(model, eqx.is_array))
model = sj.sparsify(model, state)  # added


def loss(model, x, y):
    logits = jax.vmap(model)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@eqx.filter_jit
def train_step(model, state, x, y):
    gradients = eqx.filter_grad(loss)(model, x, y)
    updates, state = tx.update(gradients, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state


for _ in range(500):
    batch = rng.choice(len(train_x), 128, replace=False)
    model, state = train_step(model, state, train_x[batch], train_y[batch])

print(f"test accuracy {(jax.vmap(model)(test_x).argmax(-1) == test_y).mean():.3f}")
print(sj.summary(eqx.filter(model, eqx.is_array), state))
