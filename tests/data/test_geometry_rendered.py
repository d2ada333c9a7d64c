"""Augmenting a scene equals rendering it anew, operation by operation and target by target.

The comparison is that of tools/check_geometry.py, which says what is left out. Tolerances: where no pixel is
interpolated all targets are equal up to rounding. Where one is, the nearest old pixel is up to half of its width away,
which at this size costs up to 8 % of depth on floors seen at a flat angle and 12 degrees on small round solids, but
never another class; halving the pixels halves it.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import check_geometry as checks

from perceptkit.data.geometry import Geometry, apply_geometry
from perceptkit.data.scenes.layout import Camera, Layout, Solid, sample_layout
from perceptkit.data.scenes.render import axis_px, focal_px, render_layout
from perceptkit.data.scenes.textures import Material
from perceptkit.spec.scene_labels import SCENE_CLASSES

SCENES = 3
OPERATIONS = {operation.name: operation for operation in checks.operations()}
EXACT = [name for name, operation in OPERATIONS.items() if operation.near_px == 0]
INTERPOLATED = [name for name, operation in OPERATIONS.items() if operation.near_px > 0]
FACING, BALL = SCENE_CLASSES.index("wall"), SCENE_CLASSES.index("sphere")


def test_both_sorts_of_operations_are_tried():
    assert EXACT == ["h-flip", "v-flip", "rotate 90", "pad 8", "crop 72x80"]
    assert len(INTERPOLATED) == 7


@pytest.fixture(scope="module", params=EXACT)
def exact(request):
    return checks.check(OPERATIONS[request.param], SCENES)


@pytest.fixture(scope="module", params=INTERPOLATED)
def interpolated(request):
    return checks.check(OPERATIONS[request.param], SCENES)


def test_exact_depth(exact):
    assert exact.depth < 1e-6  # of float32


@pytest.mark.parametrize("frame", checks.FRAMES)
def test_exact_normals(exact, frame):
    assert exact.normals_deg[frame] < 1e-4


def test_exact_classes_and_edges(exact):
    assert exact.near == 0  # no pixel is left out
    assert exact.classes == 0 and exact.edges_px == 0


def test_exact_points(exact):
    assert exact.points > 2 * SCENES and exact.points_px < 1e-3 and exact.visibility == 0


def test_exact_picture(exact):
    assert exact.picture < 0.001  # some pixel may be rounded to the next grey level


def test_interpolated_depth(interpolated):
    assert 0 < interpolated.depth < 0.08


@pytest.mark.parametrize("frame", checks.FRAMES)
def test_interpolated_normals(interpolated, frame):
    assert interpolated.normals_deg[frame] < 12


def test_interpolated_classes(interpolated):
    assert interpolated.classes == 0
    assert interpolated.near < 0.4 * interpolated.pixels  # what is left out
    assert interpolated.classes_near < 0.08 * interpolated.near  # and even there most are right


def test_interpolated_edges(interpolated):
    assert interpolated.edges_px <= 3.5


def test_interpolated_points(interpolated):
    assert interpolated.points > 2 * SCENES and interpolated.points_px < 1e-3
    assert interpolated.visibility == 0


def test_interpolated_picture(interpolated):
    assert interpolated.picture < 8  # of 255, at edges and on textures


def test_the_error_of_interpolation_is_that_of_pixels():
    """With pixels of a quarter, and the same part of the picture left out."""
    operation = OPERATIONS["rotate 15"]
    coarse = checks.check(operation, 2, (48, 64))
    fine = checks.check(replace(operation, near_px=4 * operation.near_px), 2, (192, 256))
    assert fine.depth < coarse.depth / 3
    assert fine.normals_deg["camera"] < coarse.normals_deg["camera"] / 3
    assert fine.classes_near / fine.pixels < coarse.classes_near / coarse.pixels / 3


def test_the_check_finds_a_turn_to_the_wrong_side():
    errors = checks.check(replace(OPERATIONS["rotate 15"], geometry=Geometry(angle_deg=-15)), 1)
    assert errors.depth > 0.2 and errors.normals_deg["camera"] > 25
    assert errors.classes > 100 and errors.points_px > 10 and errors.edges_px > 5


def test_the_check_finds_normals_that_are_mirrored_as_pictures(monkeypatch):
    """As AdaShare's loader does with NYUv2: x is not negated."""
    monkeypatch.setattr("perceptkit.data.geometry._turn_normals", lambda normals, geometry: normals)
    errors = checks.check(OPERATIONS["h-flip"], 1)
    assert errors.normals_deg["camera"] > 60 and errors.normals_deg["opengl"] > 60
    assert errors.depth < 1e-6


def test_the_check_finds_points_whose_names_are_not_swapped(monkeypatch):
    tasks = checks.make_tasks()
    monkeypatch.setattr(type(tasks["points"]), "flip_index", property(lambda self: [0, 1, 2, 3, 4]))
    errors = checks.check(OPERATIONS["h-flip"], 1)
    assert errors.points_px > 10 and errors.classes == 0


@pytest.mark.parametrize("name", ["rotate 15", "zoom 0.7", "pad 8"])
def test_what_has_no_label_was_outside_the_old_picture(name):
    """By the rays of the new camera in the old one."""
    layout, operation, tasks = sample_layout(np.random.default_rng(1)), OPERATIONS[name], checks.make_tasks()
    before = render_layout(layout, checks.SIZE_HW, "studio", np.random.default_rng(0))
    moved = apply_geometry(checks.as_sample(before, tasks), operation.geometry, tasks)
    (move,) = operation.moves
    camera, size_HW = move((layout, checks.SIZE_HW))[0].camera, moved.image.shape[:2]
    ys, xs = np.mgrid[: size_HW[0], : size_HW[1]]
    x, y = (np.stack([xs, ys], -1).reshape(-1, 2) - axis_px(camera, size_HW)).T / focal_px(camera, size_HW)[
        :, None
    ]
    old = (camera.to_world_33 @ np.stack([x, y, np.ones_like(x)])).T @ layout.camera.to_world_33
    at = old[:, :2] / old[:, 2:] * focal_px(layout.camera, checks.SIZE_HW)
    at += axis_px(layout.camera, checks.SIZE_HW)
    height, width = checks.SIZE_HW
    beyond = np.maximum(
        np.abs(at[:, 0] - (width - 1) / 2) - width / 2, np.abs(at[:, 1] - (height - 1) / 2) - height / 2
    )
    empty = moved.targets["seg"].ravel() == -1
    assert empty.any()
    on_border = np.abs(beyond) < 1e-6
    assert np.array_equal(empty[~on_border], beyond[~on_border] > 0)
    for target, fill in (("edges", -1), ("depth", 0)):
        assert np.array_equal(moved.targets[target].ravel() == fill, empty)
    for frame in checks.FRAMES:
        assert np.array_equal((moved.targets[frame] == 0).all(0).ravel(), empty)


# zoom_depth: a camera that comes nearer to a wall 5 m away, with a ball before it

GREY = Material("plain", np.full(3, 0.5), np.full(3, 0.2), 1.0, 0.5)
NEARER = 5.0 * (1 - 1 / 1.25)
"""Metres that enlarge the wall by 1.25."""


def room(ahead_m: float = 0.0) -> Layout:
    camera = Camera(np.array([0.0, -1.5, 1.0 + ahead_m]), np.eye(3), focal=0.8)
    solid = Solid("sphere", np.array([0.4, -1.2, 5.0]), np.full(3, 0.5), 0.0, GREY)
    return Layout(0, np.array([8.0, 6.0, 6.0]), (GREY,) * 6, (solid,), np.array([0.0, -2.9, 3.0]), camera)


def zoomed(divide):
    tasks = checks.make_tasks()
    sample = checks.as_sample(render_layout(room(), (96, 128), "studio", np.random.default_rng(0)), tasks)
    return apply_geometry(sample, Geometry(zoom=1.25, divide_depth=divide), tasks).targets


def test_divide_is_a_nearer_camera_where_a_flat_surface_faces_it():
    nearer = render_layout(room(NEARER), (96, 128), "studio", np.random.default_rng(0))
    moved = zoomed(divide=True)
    wall = (moved["seg"] == FACING) & (nearer.segmentation == FACING)
    wall &= (np.abs(nearer.depth_m - 4.0) < 1e-4) & (moved["depth"][0] < 4.2)  # no side wall
    assert wall.sum() > 5000
    assert np.abs(moved["depth"][0] - nearer.depth_m)[wall].max() < 1e-5
    assert np.abs(moved["camera"] - nearer.normals)[:, wall].max() < 1e-5


def test_divide_flattens_what_stands_before_it():
    """The ball's centre is 1 m before the wall: the nearer camera sees it there, `divide` 1 / 1.25 m before it."""
    nearer = render_layout(room(NEARER), (96, 128), "studio", np.random.default_rng(0))
    relief = zoomed(divide=True)["depth"][0][zoomed(divide=True)["seg"] == BALL].min()
    assert nearer.depth_m[nearer.segmentation == BALL].min() == pytest.approx(4.0 - 1.5, abs=0.005)
    assert relief == pytest.approx(4.0 - 1.5 / 1.25, abs=0.005)


def test_none_is_a_longer_lens_and_divide_is_not():
    longer, _ = checks.longer_lens(1.25)((room(), (96, 128)))
    true = render_layout(longer, (96, 128), "studio", np.random.default_rng(0))
    for divide, ratio in ((False, 1.0), (True, 1 / 1.25)):
        moved = zoomed(divide)
        same = moved["seg"] == true.segmentation
        assert np.median((moved["depth"][0] / true.depth_m)[same]) == pytest.approx(ratio, rel=1e-4)


def test_divided_depth_and_normals_are_of_one_surface_for_the_old_lens():
    """Normals from differences of points that divided depth and the lens that was not changed give."""
    moved = zoomed(divide=True)
    depth, normals = moved["depth"][0].astype(float), moved["camera"]
    ys, xs = np.mgrid[:96, :128]
    point = depth * np.stack([(xs - 63.5) / (0.8 * 128), (ys - 47.5) / (0.8 * 128), np.ones_like(depth)])
    step = 10  # pixels, far more than the half that the nearest one may be off
    across = point[:, step:-step, 2 * step :] - point[:, step:-step, : -2 * step]
    down = point[:, 2 * step :, step:-step] - point[:, : -2 * step, step:-step]
    found = np.cross(down, across, axis=0)
    found /= np.linalg.norm(found, axis=0)
    seg = moved["seg"]
    flat = np.isin(seg, [SCENE_CLASSES.index(n) for n in ("wall", "floor", "ceiling")])
    plane = flat[step:-step, step:-step]
    for y, x in ((0, step), (2 * step, step), (step, 0), (step, 2 * step)):
        there = normals[:, y : y + plane.shape[0], x : x + plane.shape[1]]
        plane &= np.abs(there - normals[:, step:-step, step:-step]).max(0) < 1e-6  # one and the same plane
    angle = checks._angle_deg(found, normals[:, step:-step, step:-step])
    assert plane.sum() > 1000
    assert angle[plane].max() < 5 and np.median(angle[plane]) < 1
