import numpy as np
import PIL.Image
import pytest

from sparsejax.data import objects
from sparsejax.data.objects import Objects


def some(*boxes):
    count = len(boxes)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Objects(boxes, np.arange(count, dtype=np.int32), np.zeros(count, bool))


def drawn(box, size=(120, 80)):
    """A black image whose box is white."""
    width, height = size
    top, left, bottom, right = box
    pixels = np.zeros((height, width), np.uint8)
    rows = slice(round(top * height), round(bottom * height))
    pixels[rows, round(left * width) : round(right * width)] = 255
    return PIL.Image.fromarray(pixels)


def test_objects_whose_centre_is_outside_are_dropped():
    one = some([0.2, 0.2, 0.6, 0.6], [0.0, 0.0, 0.2, 0.2])
    left = objects.in_window(one, (0.3, 0.3, 1.0, 1.0))
    assert left.labels.tolist() == [0]
    np.testing.assert_allclose(left.boxes, [[0, 0, 3 / 7, 3 / 7]], rtol=1e-6)


def test_a_window_beyond_the_image_makes_boxes_smaller():
    found = objects.in_window(some([0.0, 0.5, 1.0, 1.0]), (-1.0, 0.0, 1.0, 2.0))
    np.testing.assert_allclose(found.boxes, [[0.5, 0.25, 1.0, 0.5]])


def test_an_image_without_objects():
    none, rng = some(), np.random.default_rng(0)
    assert objects.crop(none, rng) == objects.WHOLE
    for _ in range(10):
        assert len(objects.in_window(none, objects.random_window(none, rng)).labels) < 1
    example = objects.example(
        np.zeros((4, 4, 1)), none, standardise=np.asarray, maximum=3
    )
    assert not example["valid"].any()
    assert example["boxes"].shape == (3, 4)


def test_boxes_stay_on_what_they_enclose():
    """What is drawn in an image and what its box says go through the same window."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        top, left = rng.integers(0, 6, size=2) / 10
        box = [top, left, top + 0.4, left + 0.3]
        image, one = drawn(box), some(box)
        window = objects.random_window(one, rng)
        pixels = np.asarray(objects.shown(image, window, size=200, fill=0))
        rows, columns = np.nonzero(pixels >= 128)
        ends = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        found = objects.in_window(one, window).boxes[0] * 200
        np.testing.assert_allclose(np.array(ends), found, atol=2)


def test_crops_have_the_sides_and_overlaps_of_the_paper():
    rng = np.random.default_rng(0)
    one = some([0.3, 0.3, 0.7, 0.6])
    windows = [objects.crop(one, rng) for _ in range(400)]
    assert 30 < sum(window == objects.WHOLE for window in windows) < 120
    windows = [window for window in windows if window != objects.WHOLE]
    top, left, bottom, right = np.array(windows).T
    height, width = bottom - top, right - left
    assert min(top.min(), left.min()) >= 0 and max(bottom.max(), right.max()) <= 1
    assert 0.3 <= min(height.min(), width.min()) < 0.32
    assert 0.5 <= (width / height).min() < 0.6 and 1.7 < (width / height).max() <= 2
    for window in windows:
        assert len(objects.in_window(one, window).labels) == 1


@pytest.mark.parametrize("least", [0.3, 0.7])
def test_crops_overlap_an_object_by_what_was_drawn(least, monkeypatch):
    monkeypatch.setattr(objects, "_LEAST_OVERLAPS", (least,))
    rng = np.random.default_rng(0)
    large, small = [0.2, 0.1, 0.9, 0.8], [0.4, 0.4, 0.5, 0.5]
    for _ in range(50):
        top, left, bottom, right = objects.crop(some(small, large), rng)
        height = min(bottom, large[2]) - max(top, large[0])
        width = min(right, large[3]) - max(left, large[1])
        union = (bottom - top) * (right - left) + 0.49 - height * width
        assert height * width >= (least - 1e-6) * union


def test_canvases_are_up_to_so_many_times_as_large():
    rng = np.random.default_rng(0)
    windows = np.array([objects.random_window(some(), rng) for _ in range(400)])
    sides = windows[:, 2] - windows[:, 0]
    np.testing.assert_allclose(sides, windows[:, 3] - windows[:, 1])
    assert 150 < (sides == 1).sum() < 250
    assert 3.9 < sides.max() <= 4
    assert (windows[:, :2] <= 0).all() and (windows[:, 2:] >= 1).all()


def test_mirrored_twice_is_the_same():
    one = some([0.1, 0.2, 0.5, 0.9])
    np.testing.assert_allclose(
        objects.mirrored(one).boxes, [[0.1, 0.1, 0.5, 0.8]], 1e-6
    )
    twice = objects.mirrored(objects.mirrored(one))
    np.testing.assert_allclose(twice.boxes, one.boxes, rtol=1e-6)


def test_ignored_objects_keep_their_mark():
    stored = {"bbox": [[0, 0, 1, 1]] * 2, "label": [4, 5], "is_crowd": [False, True]}
    found = objects.stored_objects(stored, ignored="is_crowd")
    example = objects.example(
        np.zeros((4, 4, 1)), found, standardise=np.asarray, maximum=3
    )
    assert example["labels"].tolist() == [4, 5, 0]
    assert example["valid"].tolist() == [True, True, False]
    assert example["ignored"].tolist() == [False, True, False]


def test_more_objects_than_room():
    two = some([0, 0, 1, 1], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="an image has 2, but there is room for 1"):
        objects.example(np.zeros((4, 4, 1)), two, standardise=np.asarray, maximum=1)
