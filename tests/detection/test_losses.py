import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.detection.losses import detection_losses, hard_negatives
from sparsejax.detection.matching import Targets


def example(rng, anchors=40, objects=(4, 0)):
    labels = np.zeros((2, anchors), np.int32)
    for image, count in enumerate(objects):
        labels[image, rng.permutation(anchors)[:count]] = rng.integers(1, 4, count)
    logits = rng.normal(size=(2, anchors, 4)).astype(np.float32)
    offsets, true = rng.normal(size=(2, 2, anchors, 4)).astype(np.float32) * 2
    return logits, offsets, Targets(jnp.asarray(labels), jnp.asarray(true))


losses_of = jax.jit(detection_losses)


def by_hand(logits, offsets, truth, negatives):
    """SSD's equations, image by image and anchor by anchor."""
    terms = []
    for image in range(len(logits)):
        labels = np.asarray(truth.labels[image])
        entropy = [
            np.log(np.exp(z.astype(np.float64)).sum()) - z[label]
            for z, label in zip(logits[image], labels, strict=True)
        ]
        positive = np.flatnonzero(labels)
        hardest = sorted(
            (i for i in range(len(labels)) if labels[i] == 0),
            key=lambda i: -entropy[i],
        )[: round(negatives * len(positive))]
        distances = (offsets[image] - np.asarray(truth.offsets[image]))[positive]
        smooth = [d * d / 2 if abs(d) < 1 else abs(d) - 0.5 for d in distances.ravel()]
        terms.append((sum(entropy[i] for i in (*positive, *hardest)), sum(smooth)))
    return np.array(terms).T


@pytest.mark.parametrize("objects", [(4, 0), (1, 7), (30, 2)])
def test_losses_are_those_of_the_paper(objects):
    logits, offsets, truth = example(np.random.default_rng(0), objects=objects)
    classification, localisation = by_hand(logits, offsets, truth, 3)
    found = losses_of(logits, offsets, truth)
    np.testing.assert_allclose(found.classification, classification, rtol=1e-5)
    np.testing.assert_allclose(found.localisation, localisation, rtol=1e-5)
    assert found.objects.tolist() == list(objects)
    expected = (classification.sum() + localisation.sum()) / sum(objects)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_objects_has_no_loss_and_no_gradient():
    logits, offsets, truth = example(np.random.default_rng(0), objects=(0, 0))

    def loss(logits, offsets):
        return losses_of(logits, offsets, truth).mean()

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(
        jnp.asarray(logits), jnp.asarray(offsets)
    )
    assert value == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def test_background_anchors_do_not_move_their_boxes():
    logits, offsets, truth = example(np.random.default_rng(0))

    def loss(offsets):
        return losses_of(jnp.asarray(logits), offsets, truth).mean()

    moves = np.abs(jax.grad(loss)(jnp.asarray(offsets))).sum(-1) > 0
    np.testing.assert_array_equal(moves, np.asarray(truth.labels) > 0)


def test_of_equal_losses_exactly_as_many_are_chosen():
    is_object = jnp.arange(10)[None, :] < 2
    chosen = hard_negatives(jnp.ones((1, 10)), is_object)
    np.testing.assert_array_equal(np.flatnonzero(chosen[0]), [2, 3, 4, 5, 6, 7])


def test_no_more_negatives_than_there_are():
    is_object = jnp.arange(10)[None, :] < 8
    chosen = hard_negatives(jnp.ones((1, 10)), is_object)
    np.testing.assert_array_equal(chosen, ~is_object)
