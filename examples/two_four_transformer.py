"""A transformer whose MLPs are 2:4 sparse, trained by SR-STE and then run compressed.

The rows of scikit-learn's digits are the tokens. All of it is Flax NNX.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparsejax as sj

TOKENS, WIDTH, HIDDEN = 8, 64, 256


class Block(nnx.Module):
    """Attention and an MLP, each behind a norm and beside a residual path."""

    def __init__(self, rngs):
        self.norms = nnx.List([nnx.RMSNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, WIDTH, decode=False, rngs=rngs)
        self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
    """Two blocks over the rows of an image, and the mean over them."""

    def __init__(self, rngs):
        self.embed = nnx.Linear(8, WIDTH, rngs=rngs)
        self.position = nnx.Param(
            0.1 * jax.random.normal(rngs.params(), (TOKENS, WIDTH))
        )
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, images):
        x = self.embed(images) + self.position.get_value()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=1))


images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, TOKENS, 8).astype(np.float32) / 16
train_x, test_x, train_y, test_y = train_test_split(images, labels, random_state=0)
rng = np.random.default_rng(0)

model = Transformer(nnx.Rngs(0))
tx = sj.sr_ste(
    optax.adam(3e-3),
    sparsity={"blocks/.*/(up|down)/kernel": 0.5},
    structure=sj.n_m(2, 4),
)
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
nnx.update(model, sj.sparsify(nnx.state(model, nnx.Param), optimizer.opt_state))


@nnx.jit
def train_step(model, optimizer, x, y):
    """One step of the optimizer; the model holds the sparse weights at all times."""

    def loss(model):
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


for _ in range(150):
    batch = rng.choice(len(train_x), 128, replace=False)
    train_step(model, optimizer, train_x[batch], train_y[batch])

fast = sj.compress(model, optimizer.opt_state)
logits, compressed = model(test_x), fast(test_x)
print(f"test accuracy {(logits.argmax(-1) == test_y).mean():.3f}")
print(f"compressed    {(compressed.argmax(-1) == test_y).mean():.3f}")
print(f"largest difference of logits {jnp.abs(logits - compressed).max():.1e}")
print(sj.explain(fast.blocks[0].up.weight, batch=1))
