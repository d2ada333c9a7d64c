"""Pictures and labels: exact, alike in every style, and following from (seed, index) alone."""

import math
from dataclasses import replace

import numpy as np
import pytest

from perceptkit.data.scenes.layout import FEWEST, MOST, Camera, Layout, Solid, about_y, sample_layout
from perceptkit.data.scenes.render import VISIBLE, keypoints, render_scene, surface_edges, world_rays
from perceptkit.data.scenes.styles import STYLES
from perceptkit.data.scenes.textures import PATTERNS, Material, albedo
from perceptkit.data.scenes.trace import ROOM, in_light, trace
from perceptkit.spec.scene_labels import SCENE_CLASSES, SCENE_KEYPOINTS, SCENE_TYPES

SIZE = (48, 64)
GREY = Material("plain", np.full(3, 0.5), np.full(3, 0.2), 1.0, 0.5)


def plain_room(*solids: Solid) -> Layout:
    """4 m wide, 3 m high, 6 m long; camera 1.5 m above the floor at z = 1, looking straight ahead."""
    camera = Camera(np.array([0.0, -1.5, 1.0]), np.eye(3), focal=0.5)
    return Layout(0, np.array([4.0, 3.0, 6.0]), (GREY,) * 6, solids, np.array([0.0, -2.9, 3.0]), camera)


def ball(x=0.0, z=4.0, radius=0.5):
    return Solid("sphere", np.array([x, -radius, z]), np.full(3, radius), 0.0, GREY)


def test_rays_by_hand():
    camera = plain_room().camera
    rays = world_rays(camera, np.array([[31.5, 23.5], [63.5, 23.5], [31.5, 55.5]]), SIZE)
    # focal 0.5 of 64 px: 32 px beside the centre are 45 degrees
    assert rays == pytest.approx(np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1]]))


def test_a_shifted_axis_and_pixels_that_are_not_square():
    camera = Camera(np.zeros(3), np.eye(3), focal=0.5, shift=(0.25, -0.5), stretch=2.0)
    # the axis moves 16 px right and 24 up; 32 px are 45 degrees across, 64 px down
    rays = world_rays(camera, np.array([[47.5, -0.5], [79.5, -0.5], [47.5, 63.5]]), SIZE)
    assert rays == pytest.approx(np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1]]))
    layout = replace(plain_room(ball()), camera=replace(plain_room().camera, shift=(0.1, 0.0), stretch=0.5))
    corner = keypoints(layout, (64, 64))[SCENE_KEYPOINTS.index("left_floor")]
    assert corner == pytest.approx([31.5 + 6.4 - 12.8, 31.5 + 4.8, VISIBLE], abs=1e-5)


def test_turning_is_towards_x():
    assert about_y(math.pi / 2) @ [0, 0, 1] == pytest.approx([1, 0, 0])


def test_what_rays_hit_by_hand():
    layout = plain_room(ball())
    rays = np.array([[0, 0, 1], [1, 0, 1], [-1, 0, 0.5], [0, 1, 0], [0, -1, 0], [0, 1, 3]], dtype=float)
    hits = trace(layout, layout.camera.position_3, rays)
    # far wall 5 m ahead; right wall 2 m aside; left; floor 1.5 m down; ceiling 1.5 m up; the ball
    assert hits.distance_R[:5] == pytest.approx([5, 2, 2, 1.5, 1.5])
    assert hits.solid_R.tolist() == [ROOM] * 5 + [0]
    assert hits.face_R[:5].tolist() == [5, 1, 0, 3, 2]
    assert hits.normal_R3[:5] == pytest.approx(
        np.array([[0, 0, -1], [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]])
    )
    # straight at its centre (0, 1, 3 from the camera): the radius short of it
    assert hits.distance_R[5] * math.sqrt(10) == pytest.approx(math.sqrt(10) - 0.5)


def test_shadow_lies_on_the_far_side_of_the_light():
    layout = plain_room(ball(z=4.0))  # the light hangs at z = 3
    floor = np.array([[0, 0, 4.6], [0, 0, 3.2], [1.5, 0, 4.0]])
    assert in_light(layout, floor).tolist() == [False, True, True]


def test_keypoints_by_hand():
    points = keypoints(plain_room(ball()), (64, 64))
    by_name = dict(zip(SCENE_KEYPOINTS, points, strict=True))
    # the far corners are 2 m aside, 1.5 m up or down and 5 m away; focal 32 px, centre 31.5
    assert by_name["left_floor"] == pytest.approx([31.5 - 12.8, 31.5 + 9.6, VISIBLE], abs=1e-5)
    assert by_name["right_ceiling"] == pytest.approx([31.5 + 12.8, 31.5 - 9.6, VISIBLE], abs=1e-5)
    assert by_name["ball"] == pytest.approx([31.5, 31.5 + 32 / 3, VISIBLE], abs=1e-5)


def test_hidden_points_are_not_visible():
    before_corner = ball(x=-1.2, z=4.0, radius=0.75)  # on the line from the camera to the left corner
    far = np.array([-2.0, 0.0, 6.0]) - [0, -1.5, 1]
    assert trace(plain_room(before_corner), np.array([0, -1.5, 1.0]), far[None]).solid_R[0] == 0
    points = keypoints(plain_room(before_corner), (64, 64))
    assert points[SCENE_KEYPOINTS.index("left_floor"), 2] == 1
    assert points[SCENE_KEYPOINTS.index("right_floor"), 2] == VISIBLE
    no_ball = keypoints(plain_room(), (64, 64))[SCENE_KEYPOINTS.index("ball")]
    assert no_ball.tolist() == [0, 0, 1]


def test_edges_lie_on_the_nearer_side():
    surface = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert (
        surface_edges(surface, np.array([[5.0, 5, 3, 3]] * 2)).tolist() == [[False, False, True, False]] * 2
    )
    assert (
        surface_edges(surface, np.array([[3.0, 3, 5, 5]] * 2)).tolist() == [[False, True, False, False]] * 2
    )
    rows = np.array([[1, 1], [4, 4]])
    assert surface_edges(rows, np.ones((2, 2))).tolist() == [[True, True], [False, False]]


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(5, index, SIZE) for index in range(40)]


def test_labels_are_consistent_with_each_other(scenes):
    for scene in scenes:
        norm = np.linalg.norm(scene.normals, axis=0)
        assert np.abs(norm - 1).max() < 1e-6
        assert 0.3 < scene.depth_m.min() and scene.depth_m.max() < 15
        assert scene.segmentation.max() < len(SCENE_CLASSES) and 0 <= scene.room < len(SCENE_TYPES)
        assert 0.01 < scene.edges.mean() < 0.25


def test_depth_and_normals_are_of_the_same_planes():
    """On floor, ceiling and box faces, n . p is one number per surface: depth and normals are exact together."""
    for index in range(12):
        layout = sample_layout(np.random.default_rng([5, index]))
        scene = render_scene(5, index, SIZE)
        pixels = np.stack(np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), axis=-1).reshape(-1, 2)
        rays = world_rays(layout.camera, pixels, SIZE) @ layout.camera.to_world_33  # camera axes
        offset = (scene.normals.reshape(3, -1).T * rays * scene.depth_m.reshape(-1, 1)).sum(1)
        assert (offset < 0).all()  # every normal looks at the camera
        for name in ("floor", "ceiling"):
            on = scene.segmentation.ravel() == SCENE_CLASSES.index(name)
            if on.sum() > 10:
                assert np.ptp(offset[on]) < 1e-5
                assert np.ptp(scene.normals.reshape(3, -1)[:, on], axis=1).max() < 1e-6


def test_seen_keypoints_lie_where_the_picture_has_them(scenes):
    centre = SCENE_KEYPOINTS.index("ball")
    seen = 0
    for scene in scenes:
        x, y, visible = scene.keypoints[centre]
        if visible == VISIBLE:
            seen += 1
            assert scene.segmentation[round(y), round(x)] == SCENE_CLASSES.index("sphere")
    assert seen > 10


def test_same_scene_same_bits_and_same_labels_in_every_style(scenes):
    again = render_scene(5, 3, SIZE)
    assert np.array_equal(again.image, scenes[3].image)
    pictures = set()
    for style in STYLES:
        scene = render_scene(5, 3, SIZE, style)
        pictures.add(scene.image.tobytes())
        for label in ("segmentation", "depth_m", "normals", "edges", "keypoints", "room"):
            assert np.array_equal(getattr(scene, label), getattr(again, label))
    assert len(pictures) == len(STYLES)
    assert not np.array_equal(render_scene(6, 3, SIZE).image, again.image)
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_rooms_hold_two_to_six_solids_of_five_classes_that_do_not_touch():
    kinds, rooms, counts = set(), set(), []
    for index in range(150):
        layout = sample_layout(np.random.default_rng([0, index]))
        counts.append(len(layout.solids))
        rooms.add(layout.room)
        kinds |= {solid.kind for solid in layout.solids}
        assert sum(solid.kind == "sphere" for solid in layout.solids) <= 1
        for i, one in enumerate(layout.solids):
            assert one.centre_3[1] == -one.half_3[1]  # stands on the floor
            for other in layout.solids[:i]:
                apart = math.hypot(*(one.centre_3 - other.centre_3)[[0, 2]])
                assert apart >= math.hypot(*one.half_3[[0, 2]]) + math.hypot(*other.half_3[[0, 2]])
    assert kinds == set(SCENE_CLASSES[3:]) and len(kinds) == 5
    assert rooms == set(range(len(SCENE_TYPES)))
    assert max(counts) == MOST and min(counts) == FEWEST


def test_a_larger_picture_shows_the_same_room():
    small, large = render_scene(5, 1, (32, 32)), render_scene(5, 1, (96, 96))
    same = large.segmentation[1::3, 1::3] == small.segmentation  # pixel centres coincide
    assert same.all()
    assert np.abs(large.depth_m[1::3, 1::3] - small.depth_m).max() < 1e-5


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_patterns_have_their_mean_and_fade_to_it(name):
    draw, mean = PATTERNS[name]
    uv = np.random.default_rng(0).uniform(-30, 30, (20000, 2))
    share = draw(uv)
    assert share.min() >= 0 and share.max() <= 1 and share.std() > 0.05
    assert share.mean() == pytest.approx(mean, abs=0.06)
    material = Material(name, np.zeros(3), np.ones(3), 0.2, 0.0)
    far = albedo(material, uv[:50], np.full(50, 1.0))
    assert far == pytest.approx(np.full((3, 50), mean))
