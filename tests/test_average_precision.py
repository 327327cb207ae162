import numpy as np
import pytest

pytest.importorskip("pycocotools")

from sparsejax.average_precision import EvaluatedImage, average_precision

SQUARE = [0.0, 0.0, 1.0, 1.0]


def image(truth, found, *, ignored=()):
    """``truth`` is (box, label) pairs, ``found`` (box, label, score) triples."""
    boxes, labels = zip(*truth, strict=True) if truth else ((), ())
    others, classes, scores = zip(*found, strict=True) if found else ((), (), ())
    return EvaluatedImage(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int32),
        np.isin(np.arange(len(labels)), ignored),
        np.array(others, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.array(scores, np.float32),
    )


def values(*images, **options):
    return tuple(average_precision(images, **options).values())


def shifted(by):
    return [0.0, by, 1.0, 1 + by]


def test_perfect_detections_have_a_precision_of_1():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(6):
        corners = rng.uniform(0, 0.5, (3, 2))
        boxes = np.concatenate([corners, corners + 0.3], axis=1)
        labels = rng.integers(0, 4, 3)
        truth = list(zip(boxes, labels, strict=True))
        images.append(image(truth, [(*pair, 0.9) for pair in truth]))
    assert values(*images) == (1.0, 1.0)


def test_nothing_found():
    assert values(image([(SQUARE, 0)], [])) == (0.0, 0.0)


def test_thresholds_by_hand():
    # An overlap of 2/3 is enough at 0.5, 0.55, 0.6 and 0.65: 4 of 10 thresholds.
    found = [(shifted(0.2), 0, 0.9)]
    assert values(image([(SQUARE, 0)], found)) == pytest.approx((0.4, 1.0))


def test_the_surer_detection_comes_first_and_the_second_of_an_object_is_wrong():
    # A wrong one that is surer: precision 1/2 at every recall.
    found = [(SQUARE, 0, 0.5), (shifted(3), 0, 0.9)]
    assert values(image([(SQUARE, 0)], found)) == pytest.approx((0.5, 0.5))
    # A wrong one that is less sure costs nothing, even in the same place.
    found = [(SQUARE, 0, 0.9), (SQUARE, 0, 0.5)]
    assert values(image([(SQUARE, 0)], found)) == pytest.approx((1, 1))


def test_half_of_the_objects_are_half_of_the_recall():
    # Precision 1 up to recall 0.5: 51 of the 101 levels.
    truth = [(SQUARE, 0), (shifted(3), 0)]
    expected = 51 / 101
    assert values(image(truth, [(SQUARE, 0, 0.9)])) == pytest.approx((expected,) * 2)


def test_classes_are_averaged_and_those_never_shown_do_not_count():
    truth = [(SQUARE, 0), (SQUARE, 7)]
    found = [(SQUARE, 0, 0.9), (SQUARE, 3, 0.9)]
    assert values(image(truth, found)) == pytest.approx((0.5, 0.5))


def test_ignored_objects_are_neither_asked_for_nor_held_against_anybody():
    truth = [(SQUARE, 0), (shifted(3), 0)]
    right, within = (SQUARE, 0, 0.5), (shifted(3), 0, 0.9)
    assert values(image(truth, [right], ignored=[1])) == pytest.approx((1, 1))
    assert values(image(truth, [right, within], ignored=[1])) == pytest.approx((1, 1))


def test_only_the_surest_count():
    found = [(shifted(3), 0, 0.9), (SQUARE, 0, 0.5)]
    assert values(image([(SQUARE, 0)], found), maximum=1) == (0.0, 0.0)


def test_boxes_belong_to_their_image():
    first, second = image([(SQUARE, 0)], []), image([], [(SQUARE, 0, 0.9)])
    assert values(first, second) == (0.0, 0.0)


def test_the_unit_does_not_matter():
    found = [(np.array(shifted(0.2)) * 500, 0, 0.9)]
    large = image([(np.array(SQUARE) * 500, 0)], found)
    assert values(large) == pytest.approx((0.4, 1.0))


def test_without_any_object():
    with pytest.raises(ValueError, match="none has an object"):
        average_precision([image([], [(SQUARE, 0, 0.9)])])
