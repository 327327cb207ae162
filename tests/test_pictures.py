import numpy as np
import pytest

pytest.importorskip("matplotlib")

from sparsejax.pictures import detections
from sparsejax.plot_style import DROPPED, EVALUATION, GROWN, save

BOXES = np.array([[0.1, 0.1, 0.5, 0.4], [0.5, 0.5, 0.9, 0.9]], np.float32)


def samples(*, channels=1, names=()):
    """Two images of two objects; three things found: right, wrong, and unsure."""
    found = np.stack([BOXES[0], BOXES[1], BOXES[1]])
    return {
        "kind": np.array("detections"),
        "image": np.random.default_rng(0).normal(size=(2, 32, 32, channels)),
        "boxes": np.stack([BOXES, BOXES]),
        "labels": np.array([[3, 4], [3, 4]]),
        "valid": np.array([[True, True], [True, False]]),
        "found_boxes": np.stack([found, found]),
        "found_labels": np.array([[3, 7, 4], [3, 7, 4]]),
        "scores": np.array([[0.9, 0.8, 0.4], [0.9, 0.1, 0.05]]),
        "class_names": np.array(names, str),
    }


def shown(axes):
    """Colour and text of every box in a picture, and its corners as fractions."""
    return [
        (
            tuple(patch.get_edgecolor()[:3]),
            text.get_text(),
            (np.array(patch.get_bbox().extents)[[1, 0, 3, 2]] + 0.5) / 32,
        )
        for patch, text in zip(axes.patches, axes.texts, strict=True)
    ]


def colour(name):
    return tuple(int(name[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_truth_above_and_what_was_found_below():
    above, _, below, other = detections(samples()).axes
    truth = shown(above)
    assert [(c, text) for c, text, _ in truth] == [
        (colour(EVALUATION), n) for n in "34"
    ]
    np.testing.assert_allclose([box for *_, box in truth], BOXES, atol=1e-6)
    assert [(c, text) for c, text, _ in shown(below)] == [
        (colour(GROWN), "3 0.90"),
        (colour(DROPPED), "7 0.80"),
    ]
    assert [text for _, text, _ in shown(other)] == ["3 0.90"]


def test_a_box_in_the_wrong_place_is_wrong():
    given = samples()
    given["found_boxes"][0, 0] = [0.1, 0.3, 0.5, 0.6]
    assert shown(detections(given).axes[2])[0][0] == colour(DROPPED)


def test_names_of_classes_and_colour_images(tmp_path):
    names = [f"class {i}" for i in range(10)]
    figure = detections(samples(channels=3, names=names))
    assert shown(figure.axes[0])[0][1] == "class 3"
    save(figure, tmp_path / "detections.png")
    assert (tmp_path / "detections.png").stat().st_size > 5000


def test_samples_of_another_kind():
    assert detections({}) is None
    assert detections({"kind": np.array("text")}) is None
