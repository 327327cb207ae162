import functools

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.detection.boxes import decode
from sparsejax.detection.matching import match, targets

# Four quarters of the image, and a square over the middle of them.
QUARTERS = [[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]]
ANCHORS = jnp.array([*QUARTERS, [0.25, 0.25, 0.75, 0.75]])


@functools.cache
def compiled(threshold):
    return jax.jit(functools.partial(match, threshold=threshold))


def matched(boxes, count=None, anchors=ANCHORS, threshold=0.5):
    """The matches of the first boxes; padded, so that one program serves all."""
    valid = jnp.arange(3) < (len(boxes) if count is None else count)
    boxes = jnp.zeros((3, 4)).at[: len(boxes)].set(jnp.array(boxes, jnp.float32))
    padded = jnp.zeros((5, 4)).at[: len(anchors)].set(anchors)
    return compiled(threshold)(boxes, valid, padded).tolist()[: len(anchors)]


def test_an_image_without_objects_is_all_background():
    assert matched([[0, 0, 0.5, 0.5]], count=0) == [-1] * 5
    labels, valid = jnp.zeros(3, jnp.int32), jnp.zeros(3, bool)
    found = jax.jit(targets)(jnp.zeros((3, 4)), labels, valid, ANCHORS)
    assert found.labels.tolist() == [0] * 5
    assert np.isfinite(found.offsets).all()


def test_every_box_gets_its_best_anchor_however_small_it_is():
    assert matched([[0.8, 0.1, 0.82, 0.12]]) == [-1, -1, 0, -1, -1]


def test_two_boxes_of_one_anchor_both_get_one():
    # Both overlap the first quarter most: the second box more, the first box with 0.64
    # there and, of the others, most with the middle.
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 0.5, 0.45]]
    assert matched(boxes) == [1, -1, -1, -1, 0]


def test_two_equal_boxes_get_two_anchors():
    box = [0.0, 0.0, 0.5, 0.5]
    assert sorted(matched([box, box])) == [-1, -1, -1, 0, 1]


def test_more_boxes_than_anchors():
    anchors = ANCHORS[:1]
    assert matched([[0, 0, 0.2, 0.2], [0, 0, 0.4, 0.4]], anchors=anchors) == [1]


def test_anchors_take_the_box_that_they_overlap_most():
    # IoU with the first quarter 0.8 and with the second 0: then both of 0.5 and more.
    wide = [0.0, 0.0, 0.5, 1.0]
    assert matched([wide]) == [0, 0, -1, -1, -1]
    assert matched([wide], threshold=0.51) == [0, -1, -1, -1, -1]
    # Where two boxes overlap an anchor by the threshold, the closer one is taken.
    assert matched([wide, [0.0, 0.0, 0.5, 0.45]])[:2] == [1, 0]


def test_a_box_that_overlaps_nothing_has_no_anchor():
    assert matched([[0, 0.5, 0.5, 1]], anchors=ANCHORS[2:3]) == [-1]


def test_targets_are_classes_after_the_background_and_the_way_to_the_box():
    boxes = jnp.zeros((3, 4)).at[0].set(jnp.array([0.05, 0.0, 0.5, 0.5]))
    labels, valid = jnp.array([7, 0, 0]), jnp.array([True, False, False])
    found = jax.jit(targets)(boxes, labels, valid, ANCHORS)
    assert found.labels.tolist() == [8, 0, 0, 0, 0]
    back = decode(found.offsets, ANCHORS)[0]
    np.testing.assert_allclose(back, boxes[0], atol=1e-6)
