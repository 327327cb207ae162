"""MEST on fewer examples: those that are never forgotten leave the training data."""

import jax
import optax
from flax import nnx

import sparsejax as sj
from sparsejax.data import forgetting
from sparsejax.data.digits import digits
from sparsejax.data.pipeline import evaluation_batches, train_iterator

BATCH, EPOCHS, COUNTED, REMOVED = 128, 60, 20, 400

dataset = forgetting.with_indices(digits())
steps_per_epoch = len(dataset.train) // BATCH

rngs = nnx.Rngs(0)
hidden, output = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)
model = nnx.Sequential(lambda x: x.reshape(len(x), -1), hidden, nnx.relu, output)
stop = EPOCHS * steps_per_epoch * 3 // 4
tx = sj.mest(optax.adam(3e-3), sparsity=0.9, every=20, stop=stop)
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
nnx.update(model, sj.sparsify(nnx.state(model, nnx.Param), optimizer.opt_state))


@nnx.jit
def train_step(model, optimizer, image, label):
    """Trains on a batch; whether each of its examples was classified rightly."""

    def loss(model):
        logits = model(image)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return losses.mean(), logits.argmax(-1) == label

    gradients, correct = nnx.grad(loss, has_aux=True)(model)
    optimizer.update(model, gradients)
    return correct


def train(iterator, epochs, seen):
    """Trains for some epochs of a source, and records what was forgotten."""
    for _ in range(epochs * steps_per_epoch):
        batch = next(iterator)
        correct = train_step(model, optimizer, batch["image"], batch["label"])
        seen = forgetting.record(seen, batch["index"], jax.device_get(correct))
    return seen


seen = forgetting.begin(len(dataset.train))
iterator = train_iterator(dataset, batch_size=BATCH, seed=0)
seen = train(iterator, COUNTED, seen)

counts = forgetting.forgetting_counts(seen)
kept = forgetting.most_forgotten(counts, remove=REMOVED)
print(f"{(counts == 0).sum()} examples were never forgotten, {REMOVED} of them go")
fewer = dataset._replace(train=forgetting.Remaining(dataset.train, kept))
steps_per_epoch = len(fewer.train) // BATCH
train(train_iterator(fewer, batch_size=BATCH, seed=1), EPOCHS - COUNTED, seen)

right = total = 0
for batch in evaluation_batches(dataset, batch_size=BATCH):
    correct = (model(batch["image"]).argmax(-1) == batch["label"]) * batch["weight"]
    right, total = right + correct.sum(), total + batch["weight"].sum()
print(f"test accuracy {right / total:.3f}")
print(sj.summary(nnx.state(model, nnx.Param), optimizer.opt_state))
