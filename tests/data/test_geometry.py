"""Each rule of the geometry table by hand, and picture and labels moving together."""

import math
from dataclasses import replace

import numpy as np
import pytest

from perceptkit.data.geometry import Geometry, apply_geometry, move_target, sample_geometry
from perceptkit.data.sample import Sample
from perceptkit.spec.recipe import AugmentSpec
from perceptkit.spec.tasks_file import DepthSpec, KeypointsSpec
from perceptkit.tasks.depth import Depth
from perceptkit.tasks.keypoints import Keypoints

HFLIP, VFLIP = Geometry(hflip=True), Geometry(vflip=True)
QUARTER = Geometry(angle_deg=90)
"""Counter-clockwise as seen: what is on the right comes to the top."""

MAP_HW = np.array([[0, 1, 2], [3, 4, 5]])
MIRRORED = [[2, 1, 0], [5, 4, 3]]
UPSIDE_DOWN = [[3, 4, 5], [0, 1, 2]]

WIDE = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 1, 2], [3, 4, 5, 6, 7]])
# about the centre (2, 1): the middle 3x3, [[2, 3, 4], [7, 8, 1], [4, 5, 6]], is turned; -9 marks what is new
WIDE_TURNED = np.array([[-9, 4, 1, 6, -9], [-9, 3, 8, 5, -9], [-9, 2, 7, 4, -9]])


def same(array, expected):
    np.testing.assert_array_equal(array, expected)


def move(task, target, geometry, size_HW=None):
    target = np.asarray(target)
    return move_target(target, task, geometry, size_HW or target.shape[-2:])


def picture(grey_HW):
    return Sample("a", np.repeat(np.asarray(grey_HW, np.uint8)[..., None], 3, axis=2), {})


def grey(sample):
    return sample.image[..., 0]


# pictures


def test_hflip_of_a_picture():
    same(grey(apply_geometry(picture(MAP_HW), HFLIP, {})), MIRRORED)


def test_vflip_of_a_picture():
    same(grey(apply_geometry(picture(MAP_HW), VFLIP, {})), UPSIDE_DOWN)


def test_rotation_of_a_picture_fills_black():
    same(grey(apply_geometry(picture(WIDE), QUARTER, {})), np.where(WIDE_TURNED == -9, 0, WIDE_TURNED))


def test_zoom_of_a_picture_is_bilinear():
    # centre 1.5: new x comes from (x + 1.5) / 2 = .75, 1.25, 1.75, 2.25
    zoomed = grey(apply_geometry(picture([[0, 40, 80, 120]] * 4), Geometry(zoom=2), {}))
    same(zoomed, [[30, 50, 70, 90]] * 4)


# maps of class ids and of edges


@pytest.mark.parametrize("geometry, expected", [(HFLIP, MIRRORED), (VFLIP, UPSIDE_DOWN)])
def test_flips_of_maps(tasks, geometry, expected):
    same(move(tasks["seg"], MAP_HW, geometry), expected)
    same(move(tasks["edges"], MAP_HW[None] / 5, geometry), np.array([expected]) / 5)


def test_rotation_fills_class_maps_and_edges_with_ignored(tasks):
    expected = np.where(WIDE_TURNED == -9, -1, WIDE_TURNED)
    turned = move(tasks["seg"], WIDE, QUARTER)
    same(turned, expected)
    assert turned.dtype == WIDE.dtype
    same(move(tasks["edges"], WIDE[None].astype(np.float32), QUARTER), expected[None])


def test_zoom_of_maps_is_nearest(tasks):
    quarters = np.array([[9, 9, 9, 9], [9, 1, 2, 9], [9, 3, 4, 9], [9, 9, 9, 9]])
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    same(move(tasks["seg"], quarters, Geometry(zoom=2)), expected)
    same(move(tasks["edges"], quarters[None].astype(np.float32), Geometry(zoom=2)), [expected])


def test_zooming_out_pads_with_ignored(tasks):
    # centre 2: new pixels 1, 2, 3 come from 0, 2, 4
    rows = np.arange(25).reshape(5, 5) % 9
    shrunk = move(tasks["seg"], rows, Geometry(zoom=0.5))
    same(shrunk[1:4, 1:4], rows[::2, ::2])
    shrunk[1:4, 1:4] = -1
    assert (shrunk == -1).all()


# depth


@pytest.mark.parametrize("geometry, expected", [(HFLIP, MIRRORED), (VFLIP, UPSIDE_DOWN)])
def test_flips_of_depth(tasks, geometry, expected):
    same(move(tasks["depth"], MAP_HW[None].astype(np.float32), geometry), [expected])


def test_rotation_fills_depth_with_invalid(tasks):
    turned = move(tasks["depth"], WIDE[None].astype(np.float32), QUARTER)
    same(turned, np.where(WIDE_TURNED == -9, 0, WIDE_TURNED)[None])


def near(value, zoom=2.0, **keys):
    """A label of that value after the camera came nearer; one that is invalid stays so."""
    task = Depth("depth", DepthSpec(type="depth", **keys), [])
    depth = np.array([[[0, 0, 0], [value] * 3, [0, 0, 0]]], np.float32)
    moved = move(task, depth, Geometry(zoom=zoom, divide_depth=True))
    assert moved.dtype == np.float32 and (moved >= 0).all() and (moved == 0).any()
    return float(moved[0, 1, 1])


def test_inverse_depth_is_multiplied():
    assert near(8.0) == 4 and near(1 / 8, kind="inverse") == 1 / 4
    assert near(1 / 8, zoom=0.5, kind="inverse") == 1 / 16
    assert near(0.5, kind="metric", log=True) == 0.25  # the loss is on logarithms, the label is not


def test_depth_under_a_logarithm_is_divided_there():
    # 0.5 is log(1 + 255) / log(65536), and half of 255 is 127.5
    assert near(0.5, kind="log16") == pytest.approx(math.log(128.5) / math.log(65536), abs=1e-6)
    # far away 1 does not count: less log(2) / log(65536) = 1/16
    assert near(15 / 16, kind="log16") == pytest.approx(14 / 16, abs=1e-5)
    assert near(14 / 16, zoom=0.5, kind="log16") == pytest.approx(15 / 16, abs=1e-5)
    assert near(15 / 64, kind="log16", scale=4) == pytest.approx(14 / 64, abs=1e-5)  # stored times 4


@pytest.mark.parametrize("divide, expected", [(False, 6.0), (True, 3.0)])
def test_zoom_divides_depth_only_if_asked(tasks, divide, expected):
    depth = np.full((1, 4, 4), 6, np.float32)
    zoomed = move(tasks["depth"], depth, Geometry(zoom=2, divide_depth=divide))
    assert zoomed.dtype == np.float32
    same(zoomed, np.full((1, 4, 4), expected))


def test_invalid_depth_stays_invalid(tasks):
    same(move(tasks["depth"], np.zeros((1, 4, 4), np.float32), Geometry(True, True, 30, 0.5, True)), 0)


# normals


def vectors(*rows):
    """(3, 1, n): one pixel per vector."""
    return np.array(rows, np.float32).T[:, None]


def test_hflip_of_normals_negates_x(tasks):
    moved = move(tasks["normals"], vectors((0.6, 0, -0.8), (0, 0.6, -0.8)), HFLIP)
    same(moved, vectors((0, 0.6, -0.8), (-0.6, 0, -0.8)))


def test_vflip_of_normals_negates_y(tasks):
    moved = move(tasks["normals"], vectors((0.6, 0, -0.8), (0, 0.6, -0.8)), VFLIP)
    same(moved, vectors((0.6, 0, -0.8), (0, -0.6, -0.8)))


def constant(vector, size=5):
    return np.broadcast_to(np.array(vector, np.float32)[:, None, None], (3, size, size)).copy()


def test_rotation_turns_normals(tasks):
    # to the right becomes up (y points down), up becomes to the left
    right_to_up = move(tasks["normals"], constant((0.6, 0, -0.8)), QUARTER)
    np.testing.assert_allclose(right_to_up, constant((0, -0.6, -0.8)), atol=1e-7)
    up_to_left = move(tasks["normals"], constant((0, -1, 0)), QUARTER)
    np.testing.assert_allclose(up_to_left, constant((-1, 0, 0)), atol=1e-7)


def test_rotation_by_thirty_degrees(tasks):
    turned = move(tasks["normals"], constant((0, -1, 0)), Geometry(angle_deg=30))[:, 2, 2]
    np.testing.assert_allclose(turned, (-0.5, -math.sqrt(3) / 2, 0), atol=1e-6)


def test_rotation_fills_normals_with_invalid_and_keeps_length_one(tasks):
    turned = move(tasks["normals"], constant((0.6, 0, -0.8), size=16), Geometry(angle_deg=45))
    length = np.linalg.norm(turned, axis=0)
    same(turned[:, 0, 0], 0)
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-6)


def test_zoom_leaves_normals_unless_depth_is_divided(tasks):
    normals = constant((0.6, 0, -0.8))
    np.testing.assert_allclose(move(tasks["normals"], normals, Geometry(zoom=2)), normals, atol=1e-7)
    moved = move(tasks["normals"], normals, Geometry(zoom=2, divide_depth=True))
    # (.6, 0, -1.6) has the length sqrt(.36 + 2.56)
    np.testing.assert_allclose(moved, constant((0.3511234, 0, -0.9363292)), atol=1e-6)


def test_invalid_normals_stay_invalid(tasks):
    same(move(tasks["normals"], np.zeros((3, 4, 4), np.float32), Geometry(True, True, 30, 2, True)), 0)


# points


def points(*rows):
    return np.array(rows, np.float32)


LEFT_RIGHT_NOSE = points((1, 2, 2), (4, 0, 1), (0, 0, 0))


def test_hflip_of_names_swaps_pairs_and_keeps_visibility(tasks):
    # width 6: x -> 5 - x; the point called left was right before
    moved = move(tasks["points"], LEFT_RIGHT_NOSE, HFLIP, (4, 6))
    same(moved, points((1, 0, 1), (4, 2, 2), (0, 0, 0)))


def test_hflip_of_kinds_swaps_pairs():
    spec = KeypointsSpec(type="keypoints", kinds=["nose", "left", "right"], flip_pairs=[("left", "right")])
    task = Keypoints("a", spec, ["nose", "left", "right"])
    points = np.array([[1, 2, 0], [3, 0, 1], [4, 4, 2], [0, 0, -1]], np.float32)
    same(move(task, points, HFLIP, (6, 8)), [[6, 2, 0], [4, 0, 2], [3, 4, 1], [0, 0, -1]])
    same(move(task, points, VFLIP, (6, 8)), [[1, 3, 0], [3, 5, 1], [4, 1, 2], [0, 0, -1]])
    missing = task.missing((6, 8))
    same(move(task, missing, HFLIP, (6, 8)), missing)


def test_vflip_of_names_swaps_nothing(tasks):
    moved = move(tasks["points"], LEFT_RIGHT_NOSE, VFLIP, (4, 6))
    same(moved, points((1, 1, 2), (4, 3, 1), (0, 0, 0)))


def test_rotation_of_names(tasks):
    # 5x5, centre (2, 2): (4, 2) on the right comes to the top, (2, 0) on the top to the left
    moved = move(tasks["points"], points((4, 2, 2), (2, 0, 1), (0, 0, 0)), QUARTER, (5, 5))
    np.testing.assert_allclose(moved, points((2, 0, 2), (0, 2, 1), (0, 0, 0)), atol=1e-6)


def test_names_outside_are_no_longer_visible(tasks):
    # zoom 2 about (2, 2): (1, 2) -> (0, 2) stays inside, (0, 2) -> (-2, 2) does not
    moved = move(tasks["points"], points((1, 2, 2), (0, 2, 2), (0, 1, 1)), Geometry(zoom=2), (5, 5))
    np.testing.assert_allclose(moved, points((0, 2, 2), (-2, 2, 1), (-2, 0, 1)), atol=1e-6)


def test_kinds_move_and_leave_where_they_are_outside(tasks):
    before = points((1, 2, 1), (0, 2, 0), (0, 0, -1))
    moved = move(tasks["kinds"], before, Geometry(zoom=2), (5, 5))
    np.testing.assert_allclose(moved, points((0, 2, 1), (0, 0, -1), (0, 0, -1)), atol=1e-6)
    same(move(tasks["kinds"], before, HFLIP, (5, 5)), points((3, 2, 1), (4, 2, 0), (0, 0, -1)))


def test_missing_points_stay_missing(tasks):
    for name in ("points", "kinds"):
        missing = tasks[name].missing((8, 8))
        same(move(tasks[name], missing, Geometry(True, True, 30, 1.5), (8, 8)), missing)


def test_a_label_of_the_whole_picture_does_not_move(tasks):
    assert move_target(np.array(2), tasks["room"], Geometry(True, True, 30, 2), (8, 8)) == 2


# crop

WINDOW = Geometry(crop_HW=(2, 3), crop_at=(0.5, 0.4))
"""Of 4x6 pixels: 3 places down, 4 to the right, of which the second each: top 1, left 1."""


def test_crop_of_a_picture_and_of_maps(tasks):
    rows = np.arange(24).reshape(4, 6) % 9
    expected = rows[1:3, 1:4]
    same(grey(apply_geometry(picture(rows), WINDOW, {})), expected)
    same(move(tasks["seg"], rows, WINDOW), expected)
    same(move(tasks["edges"], rows[None] / 9, WINDOW), expected[None] / 9)
    depth = move(tasks["depth"], rows[None].astype(np.float32), WINDOW)
    same(depth, expected[None])
    assert depth.flags.c_contiguous


def test_crop_of_normals_does_not_turn_them(tasks):
    normals = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=0)
    np.testing.assert_allclose(move(tasks["normals"], normals, WINDOW), normals[:, 1:3, 1:4], atol=1e-6)


def test_crop_of_points_hides_what_is_outside(tasks):
    named = move(tasks["points"], points((1, 1, 2), (3, 2, 1), (4, 1, 2)), WINDOW, (4, 6))
    same(named, points((0, 0, 2), (2, 1, 1), (3, 0, 1)))
    kinds = move(tasks["kinds"], points((3, 2, 1), (0, 1, 0), (0, 0, -1)), WINDOW, (4, 6))
    same(kinds, points((2, 1, 1), (0, 0, -1), (0, 0, -1)))
    assert move_target(np.array(2), tasks["room"], WINDOW, (4, 6)) == 2


def test_crop_comes_after_a_flip(tasks):
    mirrored = Geometry(hflip=True, crop_HW=(2, 3), crop_at=(0.0, 0.0))
    same(move(tasks["seg"], MAP_HW, mirrored), MIRRORED)
    narrow = Geometry(hflip=True, crop_HW=(2, 2))
    same(move(tasks["seg"], MAP_HW, narrow), [[2, 1], [5, 4]])
    same(move(tasks["points"], points((2, 1, 2), (0, 0, 0), (0, 0, 0)), narrow, (2, 3))[1], (0, 1, 2))


def test_a_crop_of_the_whole_picture_changes_nothing(tasks):
    same(move(tasks["seg"], WIDE, Geometry(crop_HW=(3, 5), crop_at=(0.99, 0.99))), WIDE)


# pad and resize

PADDED = Geometry(pad=2)


def test_pad_adds_black_and_no_labels(tasks):
    rows = np.arange(1, 7).reshape(2, 3)
    moved = apply_geometry(picture(rows), PADDED, {})
    assert moved.image.shape == (6, 7, 3)
    same(grey(moved)[2:4, 2:5], rows)
    assert grey(moved).sum() == rows.sum()
    same(move(tasks["seg"], rows, PADDED), np.pad(rows, 2, constant_values=-1))
    same(move(tasks["edges"], rows[None] / 6, PADDED), np.pad(rows / 6, 2, constant_values=-1)[None])
    same(move(tasks["depth"], rows[None].astype(np.float32), PADDED), np.pad(rows, 2)[None])
    around = move(tasks["normals"], constant((0.6, 0, -0.8), size=2), PADDED)
    assert around.shape == (3, 6, 6) and np.count_nonzero(around) == 2 * 4


def test_pad_shifts_points_and_hides_none(tasks):
    moved = move(tasks["points"], points((0, 1, 2), (2, 0, 1), (0, 0, 0)), PADDED, (2, 3))
    same(moved, points((2, 3, 2), (4, 2, 1), (0, 0, 0)))
    same(
        move(tasks["kinds"], points((1, 0, 1), (0, 0, -1)), PADDED, (2, 3)),
        points((3, 2, 1), (0, 0, -1)),
    )


def test_a_crop_is_cut_out_of_the_padded_picture(tasks):
    # 6x7 padded; 4x5 places for 3x3: crop_at .5, .2 are rows from 2, columns from 1
    geometry = Geometry(pad=2, crop_HW=(3, 3), crop_at=(0.5, 0.2))
    same(move(tasks["seg"], MAP_HW, geometry), [[-1, 0, 1], [-1, 3, 4], [-1, -1, -1]])
    moved = move(tasks["points"], points((1, 1, 2), (2, 1, 2), (0, 0, 0)), geometry, (2, 3))
    same(moved, points((2, 1, 2), (3, 1, 1), (0, 0, 0)))


def test_resize_is_that_of_the_data_at_the_end(tasks):
    # the window is columns 1 to 3; twice as wide and high
    geometry = Geometry(crop_HW=(3, 2), crop_at=(0.0, 0.4), resize_HW=(6, 4))
    twice = [[2, 2, 3, 3]] * 2 + [[7, 7, 8, 8]] * 2 + [[4, 4, 5, 5]] * 2
    same(move(tasks["seg"], WIDE, geometry), twice)
    same(move(tasks["depth"], WIDE[None].astype(np.float32), geometry), [twice])
    moved = move(tasks["points"], points((1, 0, 2), (2, 1, 2), (3, 0, 2)), geometry, (3, 5))
    same(moved, points((0.5, 0.5, 2), (2.5, 2.5, 2), (4.5, 0.5, 1)))
    assert apply_geometry(picture(WIDE), geometry, {}).image.shape == (6, 4, 3)
    assert move_target(np.array(2), tasks["room"], geometry, (3, 5)) == 2


def test_resize_keeps_thin_edges_and_unit_normals(tasks):
    thin = np.zeros((1, 8, 8), np.float32)
    thin[0, :, 3] = 1
    same(move(tasks["edges"], thin, Geometry(resize_HW=(8, 2))), np.array([[[1, 0]] * 8]))
    normals = move(tasks["normals"], constant((0.6, 0, -0.8), size=4), Geometry(resize_HW=(2, 8)))
    np.testing.assert_allclose(normals, np.broadcast_to([[[0.6]], [[0]], [[-0.8]]], (3, 2, 8)), atol=1e-7)


@pytest.mark.parametrize("line", range(9))
def test_zooming_out_keeps_thin_edges(tasks, line):
    edges = np.zeros((1, 9, 9), np.float32)
    edges[0, line] = 0.5
    shrunk = move(tasks["edges"], edges, Geometry(zoom=0.5))[0]
    # centre 4: row y comes to rint(2 + y / 2), halves to the even one, and the same for columns 0..8
    row = round(2 + line / 2)
    same(shrunk[row, 2:7], 0.5)
    assert (shrunk == 0.5).sum() == 5 and (shrunk[[0, 1, 7, 8]] == -1).all()


# all together


def marked(x, y, size=65):
    """Black but for a disc, which every label marks too."""
    ys, xs = np.mgrid[:size, :size]
    blob = ((xs - x) ** 2 + (ys - y) ** 2 <= 8**2).astype(np.float32)
    normals = np.stack([0 * blob, 0 * blob, -blob])
    named = np.zeros((3, 3), np.float32)
    named[2] = x, y, 2
    kinds = np.tile(np.array([0, 0, -1], np.float32), (4, 1))
    kinds[1] = x, y, 0
    targets = {
        "seg": blob.astype(np.int64),
        "edges": blob[None],
        "depth": blob[None] * 3,
        "normals": normals,
        "points": named,
        "kinds": kinds,
        "room": np.array(1),
    }
    return Sample("a", np.repeat((blob * 200).astype(np.uint8)[..., None], 3, axis=2), targets)


def centroid(weight_HW):
    ys, xs = np.mgrid[: weight_HW.shape[0], : weight_HW.shape[1]]
    return (xs * weight_HW).sum() / weight_HW.sum(), (ys * weight_HW).sum() / weight_HW.sum()


@pytest.mark.parametrize(
    "geometry",
    [
        HFLIP,
        VFLIP,
        Geometry(angle_deg=37),
        Geometry(angle_deg=-120),
        Geometry(zoom=1.4),
        Geometry(zoom=0.7),
        Geometry(True, False, 25, 1.3, True),
        Geometry(False, True, -50, 0.8, True),
        Geometry(crop_HW=(48, 40), crop_at=(0.6, 0.8)),
        Geometry(True, False, 25, 1.1, True, (60, 50), (0.5, 0.4)),
        Geometry(pad=9),
        Geometry(resize_HW=(80, 48)),
        Geometry(True, False, 25, 1.1, True, (70, 60), (0.5, 0.4), 6, (84, 72)),
    ],
    ids=str,
)
def test_picture_and_labels_move_together(tasks, geometry):
    sample = marked(42, 25)
    moved = apply_geometry(sample, geometry, tasks)
    x, y, visible = moved.targets["points"][2]
    assert visible == 2
    assert math.dist((x, y), (42, 25)) > 3  # else nothing is shown
    same(moved.targets["kinds"][1], (x, y, 0))
    maps = {
        "image": grey(moved).astype(float),
        "seg": moved.targets["seg"].clip(0),
        "edges": moved.targets["edges"][0].clip(0),
        "depth": moved.targets["depth"][0],
        "normals": -moved.targets["normals"][2],
    }
    for name, weight in maps.items():
        assert math.dist(centroid(weight), (x, y)) < 0.15, name


def test_the_given_sample_is_not_changed(tasks):
    sample, again = marked(25, 30), marked(25, 30)
    apply_geometry(sample, Geometry(True, True, 20, 1.5, True), tasks)
    same(sample.image, again.image)
    for name in tasks:
        same(sample.targets[name], again.targets[name])


@pytest.mark.parametrize("geometry, times", [(HFLIP, 2), (VFLIP, 2), (QUARTER, 4), (Geometry(), 1)])
def test_round_trips(tasks, geometry, times):
    sample = marked(42, 25)
    sample.targets["points"][:2] = (3, 50, 2), (60, 7, 1)
    moved = sample
    for _ in range(times):
        moved = apply_geometry(moved, geometry, tasks)
    same(moved.image, sample.image)
    for name in tasks:
        np.testing.assert_allclose(moved.targets[name], sample.targets[name], atol=1e-4)


def test_there_and_back_again(tasks):
    there, back = Geometry(angle_deg=33, zoom=1.25), Geometry(angle_deg=-33, zoom=0.8)
    before = points((30, 40, 2), (20, 25, 1), (32, 32, 2))
    after = move(tasks["points"], move(tasks["points"], before, there, (65, 65)), back, (65, 65))
    np.testing.assert_allclose(after, before, atol=1e-4)


# sampling


def draw(seed=0, **augment):
    return sample_geometry(AugmentSpec(**augment), np.random.default_rng(seed))


def test_nothing_is_moved_by_default():
    assert draw() == Geometry()
    assert not draw().is_affine


def test_draws_follow_from_the_seed_and_stay_in_range():
    augment = {"hflip": 0.5, "vflip": 0.5, "rotate": 10, "zoom": (0.5, 2.0)}
    drawn = [draw(seed, **augment) for seed in range(200)]
    assert drawn == [draw(seed, **augment) for seed in range(200)]
    angles, zooms = [g.angle_deg for g in drawn], [g.zoom for g in drawn]
    assert -10 <= min(angles) < -9 and 9 < max(angles) <= 10
    assert 0.5 <= min(zooms) < 0.53 and 1.9 < max(zooms) <= 2.0
    assert 70 < sum(z > 1 for z in zooms) < 130  # as often larger as smaller
    assert 70 < sum(g.hflip for g in drawn) < 130
    assert any(g.hflip != g.vflip for g in drawn)


def test_keys_do_not_shift_each_others_luck():
    for seed in range(20):
        both = draw(seed, hflip=0.5, rotate=30, zoom=(0.5, 2.0), zoom_depth="divide")
        assert both.hflip == draw(seed, hflip=0.5).hflip
        assert both.angle_deg == draw(seed, rotate=30).angle_deg
        assert both.zoom == draw(seed, zoom=(0.5, 2.0)).zoom
        assert both.divide_depth


def test_every_place_of_a_crop_is_as_likely_and_shifts_no_luck():
    drawn = [draw(seed, crop=(32, 33)) for seed in range(400)]
    assert draw(0, crop=(32, 33), pad=4, resize=(48, 48), zoom=(0.5, 2.0)) == replace(
        drawn[0], zoom=draw(0, zoom=(0.5, 2.0)).zoom, pad=4, resize_HW=(48, 48)
    )
    places = [g.window((34, 35))[:2] for g in drawn]
    counts = [places.count((top, left)) for top in range(3) for left in range(3)]
    assert sum(counts) == 400 and min(counts) > 20  # 44 expected, standard deviation 6.3
    rng, plain = np.random.default_rng(0), np.random.default_rng(0)
    sample_geometry(AugmentSpec(crop=(32, 32)), rng)
    sample_geometry(AugmentSpec(), plain)
    assert rng.random() == plain.random()  # what follows, the photometric transforms, is drawn alike
