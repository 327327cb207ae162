import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.detection.boxes import decode, encode, intersection_over_union

overlaps = jax.jit(intersection_over_union)


def random_boxes(rng, count):
    corners = rng.uniform(0, 1, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


def test_overlaps_are_those_of_cocos_evaluator():
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    first, second = random_boxes(rng, 20), random_boxes(rng, 30)

    def sized(boxes):
        top, left, bottom, right = boxes.astype(np.float64).T
        return np.stack([left, top, right - left, bottom - top], axis=1)

    expected = mask.iou(sized(first), sized(second), [0] * len(second))
    found = overlaps(jnp.asarray(first), jnp.asarray(second))
    assert (expected > 0.3).any() and (expected == 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 2, 2], 1),
        ([1, 1, 3, 3], 1 / 7),
        ([0, 0, 1, 1], 1 / 4),
        ([0, 2, 2, 4], 0),  # they touch
        ([1, 1, 1, 1], 0),  # a point
    ],
)
def test_overlaps_by_hand(other, expected):
    square, other = jnp.array([[0.0, 0, 2, 2]]), jnp.array([other], jnp.float32)
    assert overlaps(square, other)[0, 0] == pytest.approx(expected)
    assert overlaps(other, square)[0, 0] == pytest.approx(expected)


def test_padding_overlaps_nothing_not_even_itself():
    nothing = jnp.zeros((2, 4))
    np.testing.assert_array_equal(overlaps(nothing, nothing), 0)


def test_offsets_by_hand():
    # The box is half as high, twice as wide, and 0.1 further down and 0.05 to the left.
    anchor = jnp.array([[0.3, 0.3, 0.7, 0.5]])
    box = jnp.array([[0.5, 0.15, 0.7, 0.55]])
    expected = [0.1 / 0.4 / 0.1, -0.05 / 0.2 / 0.1, np.log(0.5) / 0.2, np.log(2) / 0.2]
    np.testing.assert_allclose(encode(box, anchor)[0], expected, rtol=1e-5)


def test_decoding_is_the_inverse():
    rng = np.random.default_rng(1)
    boxes, anchors = (jnp.asarray(random_boxes(rng, 50)) for _ in range(2))
    there_and_back = decode(encode(boxes, anchors), anchors)
    near = np.abs(np.log((boxes[:, 2:] - boxes[:, :2]) / _sizes(anchors))).max(1) < 4
    assert near.sum() > 40
    np.testing.assert_allclose(there_and_back[near], boxes[near], atol=1e-5)


def test_padding_has_finite_offsets_and_gradients():
    anchor = jnp.array([[0.3, 0.3, 0.7, 0.5]])

    def total(box):
        return encode(box, anchor).sum()

    value, gradient = jax.value_and_grad(total)(jnp.zeros((1, 4)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_wild_offsets_give_finite_boxes():
    anchor = jnp.array([[0.3, 0.3, 0.7, 0.5]])
    assert np.isfinite(decode(jnp.full((1, 4), 1e4), anchor)).all()


def _sizes(boxes):
    return boxes[:, 2:] - boxes[:, :2]
