"""Targets at the network's size: nearest pixels, the strongest edge, scaled points."""

import numpy as np

from perceptkit.data.resize import resize_target


def same(array, expected):
    np.testing.assert_array_equal(array, expected)


def test_class_ids_take_the_nearest_pixel(tasks):
    ids = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    same(resize_target(tasks["seg"], ids, (2, 4), (4, 8)), np.repeat(np.repeat(ids, 2, 0), 2, 1))
    # half as wide: new centres .5, 2.5 in old edges' coordinates 1, 3 -> pixels 1 and 3
    same(resize_target(tasks["seg"], ids, (2, 4), (2, 2)), [[1, 3], [5, 7]])
    thirds = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8]])
    same(resize_target(tasks["seg"], thirds, (1, 9), (1, 3)), [[1, 4, 7]])


def test_depth_is_never_a_mean(tasks):
    depth = np.array([[[1, 1, 9, 9], [1, 1, 9, 9], [0, 0, 4, 4], [0, 0, 4, 4]]], np.float32)
    small = resize_target(tasks["depth"], depth, (4, 4), (2, 2))
    same(small, [[[1, 9], [0, 4]]])
    large = resize_target(tasks["depth"], depth, (4, 4), (7, 7))
    assert set(np.unique(large)) == {0, 1, 4, 9} and large.dtype == np.float32


def test_normals_keep_their_length(tasks):
    normals = np.zeros((3, 2, 2), np.float32)
    normals[0, 0, 0] = normals[1, 0, 1] = normals[2, 1, 0] = 1
    large = resize_target(tasks["normals"], normals, (2, 2), (5, 5))
    assert set(np.unique(np.linalg.norm(large, axis=0))) == {0, 1}
    same(large[:, 0, 0], (1, 0, 0))
    same(large[:, 0, 4], (0, 1, 0))


def test_thin_edges_survive(tasks):
    edge = np.zeros((1, 9, 9), np.float32)
    edge[0, :, 3] = 1
    edge[0, 0, 8] = 0.5
    small = resize_target(tasks["edges"], edge, (9, 9), (3, 3))
    same(small, [[[0, 1, 0.5], [0, 1, 0], [0, 1, 0]]])


def test_ignored_pixels_stay_ignored_where_nothing_is_known(tasks):
    edge = np.array([[[-1, -1, -1, 0], [-1, -1, 1, -1]]], np.float32)
    same(resize_target(tasks["edges"], edge, (2, 4), (1, 2)), [[[-1, 1]]])


def test_edges_that_grow_in_one_direction_only_have_no_gaps(tasks):
    edge = np.ones((1, 2, 8), np.float32)
    same(resize_target(tasks["edges"], edge, (2, 8), (6, 4)), np.ones((1, 6, 4)))


def test_points_scale_about_pixel_corners(tasks):
    # twice the size: the centre of the first pixel moves from 0 to .5
    points = np.array([[0, 0, 2], [3, 1, 1], [0, 0, 0]], np.float32)
    same(resize_target(tasks["points"], points, (2, 4), (4, 8)), [[0.5, 0.5, 2], [6.5, 2.5, 1], [0, 0, 0]])
    kinds = np.array([[3, 1, 1], [0, 0, -1]], np.float32)
    same(resize_target(tasks["kinds"], kinds, (2, 4), (1, 2)), [[1.25, 0.25, 1], [0, 0, -1]])


def test_missing_points_stay_missing(tasks):
    for name in ("points", "kinds"):
        missing = tasks[name].missing((8, 8))
        same(resize_target(tasks[name], missing, (8, 8), (4, 12)), missing)


def test_a_label_and_a_point_in_it_stay_together(tasks):
    ids = np.zeros((60, 100), np.int64)
    ids[12:18, 70:80] = 1
    points = np.array([[74.5, 14.5, 2], [0, 0, 0], [0, 0, 0]], np.float32)
    for size_HW in ((30, 50), (64, 64), (120, 333)):
        small = resize_target(tasks["seg"], ids, (60, 100), size_HW)
        x, y, _ = resize_target(tasks["points"], points, (60, 100), size_HW)[0]
        ys, xs = np.nonzero(small)
        assert abs(xs.mean() - x) <= 0.5 and abs(ys.mean() - y) <= 0.5


def test_the_same_size_is_the_same_target(tasks):
    ids = np.arange(6).reshape(2, 3)
    same(resize_target(tasks["seg"], ids, (2, 3), (2, 3)), ids)
    assert resize_target(tasks["room"], np.array(2), (9, 9), (2, 3)) == 2


def test_points_are_pixels_of_the_picture_not_of_any_label(tasks):
    points = np.array([[10, 10, 2], [0, 0, 0], [0, 0, 0]], np.float32)
    same(resize_target(tasks["points"], points, (40, 20), (20, 40))[0], [20.5, 4.75, 2])
