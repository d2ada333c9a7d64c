"""Masks of COCO, by hand; texts of run lengths are compared with those of other implementations."""

import numpy as np
import pytest

from perceptkit.spec.coco_masks import counts_of_text, polygon_mask, runs_mask


def drawn(mask):
    return ["".join(".#"[int(pixel)] for pixel in row) for row in mask]


def polygon(*corners, size_HW=(4, 6)):
    return drawn(polygon_mask(np.array(corners), size_HW))


def test_a_rectangle_holds_the_pixels_between_its_edges():
    assert polygon((1, 1), (4, 1), (4, 3), (1, 3)) == ["......", ".###..", ".###..", "......"]


def test_a_pixel_is_inside_where_its_centre_is():
    assert polygon((0.6, 0), (2.4, 0), (2.4, 1), (0.6, 1), size_HW=(1, 4)) == [".#.."]
    assert polygon((0.4, 0), (2.6, 0), (2.6, 1), (0.4, 1), size_HW=(1, 4)) == ["###."]
    # the left and upper outline belongs to it, the right and lower one does not: neighbours share no pixel
    assert polygon((0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)) == ["##....", "##....", "......", "......"]


def test_a_triangle():
    # right of the diagonal x = y; at the centre of row y it is at y + 1/2, which belongs to it
    assert polygon((0, 0), (4, 0), (4, 4)) == ["####..", ".###..", "..##..", "...#.."]


def test_direction_and_overlap_by_the_even_odd_rule():
    square = [(1, 1), (4, 1), (4, 3), (1, 3)]
    assert polygon(*square[::-1]) == polygon(*square)
    assert polygon(*square, *square) == ["......"] * 4


def test_what_lies_outside_is_cut_off():
    assert polygon((-5, -5), (2, -5), (2, 2), (-5, 2)) == ["##....", "##....", "......", "......"]
    assert polygon((3, 2), (90, 2), (90, 90), (3, 90)) == ["......", "......", "...###", "...###"]
    assert polygon((10, 10), (20, 10), (20, 20)) == ["......"] * 4


def test_random_polygons_against_a_ray_for_each_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(-3, 15, (int(rng.integers(3, 9)), 2))
        expected = np.zeros((10, 12), bool)
        for row in range(10):
            for column in range(12):
                x, y = column + 0.5, row + 0.5
                for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                    if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
                        expected[row, column] ^= True
        assert (polygon_mask(corners, (10, 12)) == expected).all()


def test_run_lengths_go_down_the_columns():
    assert drawn(runs_mask([2, 3, 1], (3, 2))) == [".#", ".#", "#."]
    assert drawn(runs_mask([0, 4], (2, 2))) == ["##", "##"]
    assert drawn(runs_mask([4], (2, 2))) == ["..", ".."]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("061M", [0, 6, 1, 3]),
        ("061", [0, 6, 1]),
        ("061K", [0, 6, 1, 1]),
        ("061O", [0, 6, 1, 5]),
        ("0610", [0, 6, 1, 6]),
        ("011101010", [0, 1, 1, 2, 1, 3, 1, 4, 1]),
        ("0PP1", [0, 1024]),
        ("", []),
    ],
)
def test_run_lengths_as_text(text, counts):
    assert counts_of_text(text) == counts


@pytest.mark.parametrize(
    ("text", "message"), [("0P", "cut off"), ("0" + "P" * 20, "cut off"), ("0 1", "the character ' '")]
)
def test_texts_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        counts_of_text(text)


def test_run_lengths_of_another_size():
    with pytest.raises(ValueError, match="add up to 5, not to 2 x 2 pixels"):
        runs_mask([2, 3], (2, 2))
    with pytest.raises(ValueError, match="negative"):
        runs_mask([5, -1], (2, 2))
