import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.detection.suppression import best_detections, suppress


def detections(probabilities, boxes, **options):
    run = jax.jit(functools.partial(best_detections, **options))
    return run(jnp.asarray(probabilities, jnp.float32), jnp.asarray(boxes, jnp.float32))


def random_boxes(rng, count):
    corners = rng.uniform(0, 0.7, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(0.1, 0.3, (count, 2))], 1)


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.maximum(sides, 0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def brute_force(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if scores[i] > 0 and all(
            overlap(boxes[i], boxes[j]) <= threshold for j in kept
        ):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6])
def test_suppression_is_the_greedy_one(threshold):
    rng = np.random.default_rng(0)
    run = jax.jit(lambda b, s: suppress(b, s, threshold=threshold))
    for _ in range(5):
        boxes, scores = random_boxes(rng, 60), rng.uniform(-0.2, 1, 60)
        kept = brute_force(boxes, scores, threshold)
        assert 1 < len(kept) < (scores > 0).sum()
        found = run(boxes.astype(np.float32), scores.astype(np.float32))
        assert set(np.flatnonzero(found)) == set(kept)


def test_a_suppressed_box_suppresses_nothing():
    # Each overlaps the next by 0.6, the first and the last hardly at all.
    boxes = jnp.array([[0, left, 1, left + 1] for left in (0.0, 0.25, 0.5)])
    kept = suppress(boxes, jnp.array([0.9, 0.8, 0.7]), threshold=0.5)
    assert kept.tolist() == [True, False, True]


def test_of_equal_scores_the_first_box_is_kept():
    boxes = jnp.array([[0.0, 0.0, 1.0, 1.0]] * 3)
    assert suppress(boxes, jnp.full(3, 0.5)).tolist() == [True, False, False]


def expected_detections(probabilities, boxes, least, threshold, maximum):
    found = []
    for label in range(probabilities.shape[1]):
        scores = np.where(probabilities[:, label] >= least, probabilities[:, label], 0)
        found += [(scores[i], label, i) for i in brute_force(boxes, scores, threshold)]
    return sorted(found, reverse=True)[:maximum]


@pytest.mark.parametrize("maximum", [10, 300])
def test_detections_are_suppressed_class_by_class(maximum):
    rng = np.random.default_rng(1)
    boxes, probabilities = random_boxes(rng, 50), rng.uniform(0, 1, (50, 3)) ** 2
    expected = expected_detections(probabilities, boxes, 0.05, 0.4, maximum)
    found = detections(
        probabilities,
        boxes,
        least_score=0.05,
        threshold=0.4,
        per_class=50,
        maximum=maximum,
    )
    assert found.boxes.shape == (maximum, 4)
    count = len(expected)
    assert (found.scores[:count] > 0).all() and (found.scores[count:] == 0).all()
    scores, labels, which = zip(*expected, strict=True)
    np.testing.assert_allclose(found.scores[:count], scores, rtol=1e-5)
    np.testing.assert_array_equal(found.labels[:count], labels)
    np.testing.assert_allclose(found.boxes[:count], boxes[list(which)], atol=1e-6)


def test_nothing_is_found_below_the_least_score():
    found = detections(
        np.full((5, 2), 0.009), np.ones((5, 4)), least_score=0.01, maximum=4
    )
    np.testing.assert_array_equal(found.scores, 0)
    np.testing.assert_array_equal(found.boxes, 0)


def test_boxes_are_cut_to_the_image():
    boxes = jnp.array([[-0.5, 0.2, 0.4, 1.5]])
    found = detections(np.ones((1, 1)), boxes, maximum=1)
    np.testing.assert_allclose(found.boxes, [[0, 0.2, 0.4, 1]], rtol=1e-6)
