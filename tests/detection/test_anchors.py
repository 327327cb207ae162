import numpy as np
import pytest

from sparsejax.detection.anchors import anchor_boxes, anchors_per_cell

SSD300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
RATIOS = [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)]


def test_as_many_as_published():
    """8,732 of SSD300 (Liu et al., 2016); 3,234 of torchvision's SSDLite at 320."""
    assert len(anchor_boxes(SSD300, ratios=RATIOS)) == 8732
    grids = [(n, n) for n in (20, 10, 5, 3, 2, 1)]
    assert len(anchor_boxes(grids, ratios=[(2, 3)] * 6)) == 3234
    assert [anchors_per_cell(r) for r in RATIOS] == [4, 6, 6, 6, 4, 4]


def test_the_boxes_of_a_cell_by_hand():
    found = anchor_boxes([(2, 2), (1, 1)], ratios=[(4,), ()], scales=(0.2, 0.8))
    assert found.dtype == np.float32
    # The second cell of the first row of the first map: its centre is (0.25, 0.75).
    cell = found[4:8].astype(np.float64)
    centres, sizes = (cell[:, :2] + cell[:, 2:]) / 2, cell[:, 2:] - cell[:, :2]
    np.testing.assert_allclose(centres, [[0.25, 0.75]] * 4, atol=1e-6)
    expected = [[0.2, 0.2], [0.4, 0.4], [0.1, 0.4], [0.4, 0.1]]
    np.testing.assert_allclose(sizes, expected, atol=1e-6)
    # The last map: scales 0.8 and sqrt(0.8 * 1).
    last = found[16:].astype(np.float64)
    sides = (last[:, 2:] - last[:, :2])[:, 0]
    np.testing.assert_allclose(sides, [0.8, np.sqrt(0.8)], rtol=1e-6)


def test_scales_are_those_of_the_paper():
    """s_k = 0.2, 0.34, 0.48, 0.62, 0.76, 0.9 for six maps."""
    found = anchor_boxes([(1, 1)] * 6, ratios=[()] * 6, scales=(0.2, 0.9))
    sides = (found[:, 2] - found[:, 0])[::2]
    np.testing.assert_allclose(sides, [0.2, 0.34, 0.48, 0.62, 0.76, 0.9], rtol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="for 1 feature maps, but there are 2"):
        anchor_boxes([(1, 1), (1, 1)], ratios=[(2,)])
    with pytest.raises(ValueError, match=r"scales = \(0.9, 0.2\)"):
        anchor_boxes([(1, 1)], ratios=[(2,)], scales=(0.9, 0.2))
