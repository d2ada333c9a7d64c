"""tools/make_toys.py and the toy_*.py beside it: geometry by hand, refusals, a real run."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import make_toys
import toy_geometry as geometry
import toy_surfaces
import toy_world

from perceptkit.cli import main as perceptkit

ROOT = Path(__file__).parents[2]
SIZE_HW = (96, 128)
FOCAL = 100.0
RAYS = geometry.RAYS
ID = toy_world.CLASS_ID


def ahead() -> geometry.Camera:
    """At the origin of a world that has its own axes: x right, y down, z forward."""
    return geometry.Camera(np.zeros(3), np.eye(3), SIZE_HW, FOCAL)


def fine_rays(camera: geometry.Camera) -> tuple[np.ndarray, np.ndarray]:
    """X (1, V) and Y (U, 1) of the rendered rays, written out: a third of a pixel apart."""
    height, width = camera.size_HW
    x = np.arange(-1, RAYS * width - 1) / RAYS - (width - 1) / 2
    y = np.arange(-1, RAYS * height - 1) / RAYS - (height - 1) / 2
    return x[None, :] / camera.focal_px, y[:, None] / camera.focal_px


def plane(normal_3, distance: float, camera: geometry.Camera) -> np.ndarray:
    """1/z of every ray that meets the plane of points p with normal_3 . p = distance."""
    x_1V, y_U1 = fine_rays(camera)
    return (normal_3[0] * x_1V + normal_3[1] * y_U1 + normal_3[2]) / distance


def ball(radius: float, distance: float, camera: geometry.Camera) -> np.ndarray:
    """1/z of rays that meet a ball straight ahead: the smaller t of |t (X, Y, 1) - (0, 0, d)| = r."""
    x_1V, y_U1 = fine_rays(camera)
    a_UV = x_1V**2 + y_U1**2 + 1
    root_UV = distance**2 - a_UV * (distance**2 - radius**2)
    depth_UV = (distance - np.sqrt(np.maximum(root_UV, 0))) / a_UV
    return np.where(root_UV > 0, 1 / depth_UV, 0.0)


# --- depth


def test_inverse_depth_at_the_planes_and_between():
    near, far = geometry.NEAR_M, geometry.FAR_M
    assert geometry.inverse_depth(np.array([0.0, 1.0])) == pytest.approx([1 / near, 1 / far])
    for depth in (0.3, 1.0, 2.5):  # through OpenGL's matrix: clip z and w of a point at eye z = -depth
        clip_z = (far + near) / (far - near) * depth - 2 * far * near / (far - near)
        assert geometry.inverse_depth(np.array((clip_z / depth + 1) / 2)) == pytest.approx(1 / depth)


def test_depth_survives_its_encoding():
    stored = geometry.encode_depth(np.array([0.0, 0.5, 1.0, 255.0, 1000.0]))
    assert stored.dtype == np.uint16
    assert stored.tolist() == [0, 128, 256, 65280, 65535]


def test_the_middle_of_three_rays_is_the_pixel():
    assert geometry.middle(np.arange(36).reshape(6, 6)).tolist() == [[7, 10], [25, 28]]
    for fine, kept in zip(fine_rays(ahead()), ahead().rays(), strict=True):
        assert np.allclose(fine.ravel()[1::RAYS], kept.ravel())


# --- normals


def test_normal_of_a_wall_straight_ahead():
    inverse_UV = plane((0, 0, 1), 2.0, ahead())
    found = geometry.normals(inverse_UV, np.zeros(inverse_UV.shape, int), ahead())
    assert found.shape == (*SIZE_HW, 3)
    assert np.allclose(found, [0, 0, -1])


def test_normal_of_a_slanted_plane():
    normal_3 = np.array([0.6, 0.0, 0.8])  # it recedes to the left
    inverse_UV = plane(normal_3, 2.0, ahead())
    found = geometry.normals(inverse_UV, np.zeros(inverse_UV.shape, int), ahead())
    assert np.allclose(found, -normal_3, atol=1e-9)


def test_normals_are_the_cross_products_of_unprojected_depth():
    inverse_UV = plane((0.3, 0.5, 0.81), 1.5, ahead())
    x_1V, y_U1 = fine_rays(ahead())
    points = np.stack(np.broadcast_arrays(x_1V, y_U1, np.ones_like(inverse_UV)), -1) / inverse_UV[..., None]
    across = points[1::RAYS, 2::RAYS] - points[1::RAYS, ::RAYS]
    down = points[2::RAYS, 1::RAYS] - points[::RAYS, 1::RAYS]
    by_hand = np.cross(down, across)
    by_hand /= np.linalg.norm(by_hand, axis=-1, keepdims=True)
    found = geometry.normals(inverse_UV, np.zeros(inverse_UV.shape, int), ahead())
    assert np.allclose(found, by_hand, atol=1e-9)


def test_normals_of_a_ball():
    inverse_UV = ball(0.1, 1.0, ahead())
    found = geometry.normals(inverse_UV, (inverse_UV > 0).astype(int), ahead())
    x_1W, y_H1 = ahead().rays()
    depth_HW = 1 / np.maximum(geometry.middle(inverse_UV), 1e-9)
    outward = (np.stack([x_1W * depth_HW, y_H1 * depth_HW, depth_HW - 1.0], -1)) / 0.1
    has = found.any(axis=-1)
    assert 0.7 < has.sum() / (geometry.middle(inverse_UV) > 0).sum() < 1  # the rim is too slanted
    assert (found[has] * outward[has]).sum(-1).min() > math.cos(math.radians(2))
    assert not found[0, 0].any()


def test_borders_creases_and_nothing_have_no_normal():
    near, far = plane((0, 0, 1), 1.0, ahead()), plane((0, 0, 1), 1.1, ahead())
    left_UV = np.broadcast_to(np.arange(near.shape[1]) < 3 * 64 + 1, near.shape)  # cuts pixel column 64
    jump = np.where(left_UV, near, far)
    one_part = np.zeros(near.shape, int)
    without = ~geometry.normals(jump, one_part, ahead()).any(axis=-1)
    assert without[:, 64].all() and without.sum() == SIZE_HW[0]
    of_other_body = ~geometry.normals(near, left_UV.astype(int), ahead()).any(axis=-1)
    assert (of_other_body == without).all()
    roof = np.minimum(plane((0.6, 0, 0.8), 1.0, ahead()), plane((-0.6, 0, 0.8), 1.0, ahead()))
    ridge = ~geometry.normals(np.roll(roof, 1, axis=1), one_part, ahead()).any(axis=-1)
    assert ridge[:, 63:65].any(axis=1).all() and not ridge[:, 2:60].any() and not ridge[:, 70:].any()
    assert not geometry.normals(np.zeros(near.shape), one_part - 1, ahead()).any()


# --- camera


def test_look_at_by_hand():
    camera = geometry.look_at(np.array([2.0, 0, 1]), np.array([0.0, 0, 1]), 0.0, SIZE_HW, FOCAL)
    assert np.allclose(camera.axes_33, [[0, 1, 0], [0, 0, -1], [-1, 0, 0]])  # north is on the right
    points_P3 = np.array([[0.0, 0, 1], [0, 0.2, 1], [0, 0, 1.3]])
    x, y, depth = camera.project(points_P3)
    assert np.allclose(depth, 2)
    assert np.allclose(x, [63.5, 73.5, 63.5]) and np.allclose(y, [47.5, 47.5, 32.5])


def test_roll_turns_the_picture():
    rolled = geometry.look_at(np.array([2.0, 0, 1]), np.array([0.0, 0, 1]), 0.3, SIZE_HW, FOCAL)
    assert np.allclose(rolled.axes_33 @ rolled.axes_33.T, np.eye(3))
    assert np.linalg.det(rolled.axes_33) == pytest.approx(1)
    x, y, _ = rolled.project(np.array([[0.0, 0.2, 1]]))
    assert (x[0], y[0]) == pytest.approx((63.5 + 10 * math.cos(0.3), 47.5 - 10 * math.sin(0.3)))


def test_the_matrices_agree_with_the_pinhole():
    camera = geometry.look_at(np.array([1.0, -2, 1.5]), np.array([0.2, 0, 0.4]), 0.1, SIZE_HW, FOCAL)
    view_44 = np.reshape(geometry.opengl_view(camera), (4, 4)).T
    projection_44 = np.reshape(geometry.tinyrenderer_projection(camera), (4, 4)).T
    point_3 = np.array([0.3, 0.1, 0.5])
    clip_4 = projection_44 @ view_44 @ [*point_3, 1]
    x, y, depth = (float(value[0]) for value in camera.project(point_3[None]))
    # ray (i, j) of the renderer is at (2 i / V - 1, 1 - 2 (j + 1) / U); pixel x has its centre on ray 3 x + 1
    height, width = (RAYS * side for side in SIZE_HW)
    assert clip_4[0] / clip_4[3] == pytest.approx(2 * (RAYS * x + 1) / width - 1)
    assert clip_4[1] / clip_4[3] == pytest.approx(1 - 2 * (RAYS * y + 2) / height)
    assert 1 / geometry.inverse_depth(np.array((clip_4[2] / clip_4[3] + 1) / 2)) == pytest.approx(depth)


# --- corners


def cube_ahead(kind: int = 0) -> geometry.Box:
    return geometry.Box(np.array([0.0, 0, 1]), np.eye(3), np.full(3, 0.1), body=5, kind=kind)


def test_of_a_cube_seen_straight_on_four_corners_are_turned_to_the_eye():
    points_P3 = cube_ahead().corners_towards(np.zeros(3))
    assert sorted(map(tuple, np.round(points_P3, 9))) == [
        (-0.1, -0.1, 0.9), (-0.1, 0.1, 0.9), (0.1, -0.1, 0.9), (0.1, 0.1, 0.9),
    ]  # fmt: skip


def test_of_a_cube_seen_from_above_one_corner_is_hidden():
    assert len(cube_ahead().corners_towards(np.array([-1.0, -1.0, 0.0]))) == 7


def cube_picture() -> tuple[np.ndarray, np.ndarray]:
    """1/z and bodies of the face of cube_ahead before a wall."""
    x_1V, y_U1 = fine_rays(ahead())
    on_face_UV = (np.abs(x_1V) <= 0.1 / 0.9) & (np.abs(y_U1) <= 0.1 / 0.9)
    return np.where(on_face_UV, 1 / 0.9, 1 / 3), np.where(on_face_UV, 5, 2)


def test_visible_corners_by_hand():
    inverse_UV, body_UV = cube_picture()
    found = geometry.visible_corners([cube_ahead(kind=1)], inverse_UV, body_UV, ahead())
    off = round(FOCAL * 0.1 / 0.9, 2)
    assert sorted(found) == [
        (pytest.approx(63.5 + sx * off), pytest.approx(47.5 + sy * off), 1)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def test_what_stands_before_a_corner_hides_it():
    inverse_UV, body_UV = cube_picture()
    inverse_UV[:, : 3 * 64], body_UV[:, : 3 * 64] = 1 / 0.5, 7
    found = geometry.visible_corners([cube_ahead()], inverse_UV, body_UV, ahead())
    assert len(found) == 2 and all(x > 64 for x, _, _ in found)


def test_of_crowded_corners_the_nearest_is_listed():
    inverse_UV, body_UV = cube_picture()
    thin = geometry.Box(np.array([0.0, 0, 0.905]), np.eye(3), np.array([0.1, 0.1, 0.005]), 5, 0)
    turned = geometry.Camera(np.array([0.0, 0.0, 0.0]), np.eye(3), SIZE_HW, FOCAL)
    assert len(geometry.visible_corners([thin, cube_ahead()], inverse_UV, body_UV, turned)) == 4


def test_corners_outside_the_picture_or_behind_are_not_listed():
    behind = geometry.Box(np.array([0.0, 0, -1]), np.eye(3), np.full(3, 0.1), 5, 0)
    beside = geometry.Box(np.array([5.0, 0, 1]), np.eye(3), np.full(3, 0.1), 5, 0)
    assert geometry.visible_corners([behind, beside], *cube_picture(), ahead()) == []


# --- surfaces


def test_a_sheet_is_a_square_that_faces_up(tmp_path):
    lines = toy_surfaces.write_sheet(tmp_path / "sheet.obj").read_text().splitlines()
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = [[int(part.split("/")[0]) - 1 for part in line.split()[1:]] for line in lines if line[0] == "f"]
    assert points.min(0).tolist() == [-1, -1, 0] and points.max(0).tolist() == [1, 1, 0]
    doubled = [np.cross(points[b] - points[a], points[c] - points[a])[2] for a, b, c in faces]
    assert min(doubled) > 0 and sum(doubled) / 2 == pytest.approx(4)


def test_surfaces_differ_and_repeat():
    one, other = (toy_surfaces.surface(np.random.default_rng(seed)) for seed in (1, 2))
    assert one.shape == (toy_surfaces.SURFACE_PX, toy_surfaces.SURFACE_PX, 3) and one.dtype == np.uint8
    assert not np.array_equal(one, other)
    assert np.array_equal(one, toy_surfaces.surface(np.random.default_rng(1)))


# --- the world, without the engine


def test_free_spots_do_not_overlap():
    rng = np.random.default_rng(0)
    circles = []
    for _ in range(6):
        spot = toy_world.free_spot(circles, 0.1, np.array([0.6, 0.4]), rng)
        assert spot is not None and abs(spot[0]) <= 0.55 and abs(spot[1]) <= 0.35
        circles.append((*spot, 0.1))
    gaps = [math.dist(a[:2], b[:2]) for i, a in enumerate(circles) for b in circles[:i]]
    assert min(gaps) >= 0.2
    assert toy_world.free_spot([(0, 0, 5.0)], 0.1, np.array([0.6, 0.4]), rng) is None


def test_robots_stand_and_loose_toys_may_lie():
    rng = np.random.default_rng(0)
    toys = {toy.name: toy for toy in toy_world.TOYS}
    assert all(toy_world.posture(toys["droid"], rng)[:2] == (0, 0) for _ in range(20))
    tilted = [toy_world.posture(toys["duck"], rng)[:2] != (0, 0) for _ in range(200)]
    assert 70 < sum(tilted) < 130


def test_class_names_are_unique_and_fit_the_tasks_file():
    declared = yaml.safe_load((ROOT / "tasks/toys.yaml").read_text())
    tasks = declared["tasks"]
    assert len(set(toy_world.CLASSES)) == len(toy_world.CLASSES) == 25
    assert tasks["seg"]["classes"] == toy_world.CLASSES
    assert tasks["depth"]["scale"] == geometry.DEPTH_SCALE
    kinds = tasks["corners"]["kinds"]
    assert (kinds[toy_world.TOY_CORNER], kinds[toy_world.TABLE_CORNER]) == ("toy corner", "table corner")
    assert tuple(declared["data"]["size"]) == make_toys.SIZE_HW


# --- frames


BODIES = {1: ID["floor"], 5: ID["cube"], 6: ID["duck"]}


def rays_of_two_toys(depth: float = 1.0, brightness: float = 100.0) -> make_toys.Rays:
    """Nothing above, floor below, a cube on the left and a duck on the right, on one wall of depth."""
    body_UV = np.full([RAYS * side for side in SIZE_HW], 1)
    body_UV[: 3 * 10] = -1
    body_UV[3 * 40 : 3 * 60, 3 * 20 : 3 * 40] = 5
    body_UV[3 * 40 : 3 * 60, 3 * 80 : 3 * 90] = 6
    inverse_UV = np.where(body_UV < 0, 0.0, 1 / depth)
    return make_toys.Rays(np.full((*body_UV.shape, 3), brightness), inverse_UV, body_UV, body_UV)


def test_a_frame_is_labelled():
    frame = make_toys.label_frame(rays_of_two_toys(2.0), BODIES, ahead(), [(1.0, 2.0, 0)])
    assert frame is not None
    counts = np.bincount(frame.class_HW.ravel(), minlength=25)
    assert {toy_world.CLASSES[c]: int(counts[c]) for c in np.flatnonzero(counts)} == {
        "void": 10 * 128, "floor": 86 * 128 - 600, "cube": 400, "duck": 200,
    }  # fmt: skip
    assert (frame.depth_HW[:10] == 0).all() and np.allclose(frame.depth_HW[10:], 2)
    assert not frame.normal_HW3[:10].any() and np.allclose(frame.normal_HW3[20, 5], [0, 0, -1])
    assert (frame.image_HW3 == 100).all() and frame.image_HW3.shape == (*SIZE_HW, 3)
    assert frame.points == [(1.0, 2.0, 0)]


def test_bad_frames_are_dropped():
    def kept(rays: make_toys.Rays, bodies: dict[int, int] = BODIES) -> bool:
        return make_toys.label_frame(rays, bodies, ahead(), []) is not None

    assert kept(rays_of_two_toys())
    assert not kept(rays_of_two_toys(depth=0.2))  # too near
    assert not kept(rays_of_two_toys(brightness=10))
    assert not kept(rays_of_two_toys(), {1: ID["floor"], 5: ID["cube"], 6: ID["wall"]})  # one toy only
    few = rays_of_two_toys()
    few.body_UV[few.body_UV == 6] = 1
    few.body_UV[3 * 40 : 3 * 44, 3 * 80 : 3 * 86] = 6  # 24 pixels of duck
    assert not kept(few)
    few.body_UV[3 * 44 + 1, 3 * 80 : 3 * 81] = 6
    assert kept(few)  # and 25
    empty = rays_of_two_toys()
    empty.body_UV[: 3 * 35] = -1
    assert not kept(empty)


# --- the command


@pytest.fixture
def no_engine(monkeypatch):
    """One frame stands for all of a split."""

    def frames(split, count, seed):
        for number in range(count):
            frame = make_toys.label_frame(rays_of_two_toys(), BODIES, ahead(), [(1.0, 2.0, 0), (9.5, 4.0, 1)])
            yield number // 2, frame

    for name in ("pybullet", "pybullet_data"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(make_toys, "frames_of_split", frames)


def counts(train: int, val: int, test: int) -> list[str]:
    return ["--train", str(train), "--val", str(val), "--test", str(test)]


def check(root: Path) -> int:
    return perceptkit(["check", str(ROOT / "tasks/toys.yaml"), "--set", f"data.root={root}"])


def test_the_set_is_complete_and_passes_check(tmp_path, no_engine):
    out = tmp_path / "new" / "toys"
    assert make_toys.main([str(out), *counts(5, 3, 2)]) == 0
    assert check(out) == 0
    index = {
        split: json.loads((out / split / "index.json").read_text())["frames"] for split in make_toys.SPLITS
    }
    assert {split: len(frames) for split, frames in index.items()} == {"train": 5, "val": 3, "test": 2}
    assert index["train"][4] == {
        "id": "00004", "room": 2, "camera": [0, 0, 0], "axes": np.eye(3).tolist(), "f": 100.0,
    }  # fmt: skip
    assert list(out.parent.iterdir()) == [out]
    stored = Image.open(out / "val" / "depth" / "00002.png")
    assert np.asarray(stored)[50, 64] == 256


def test_a_folder_that_holds_something_is_refused(tmp_path, no_engine, capsys):
    (tmp_path / "mine.txt").touch()
    assert make_toys.main([str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--val", "0", "--val 0: every split needs at least one frame\n"),
        ("--seed", "-1", "--seed -1: expected 0 or more\n"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, no_engine, capsys, option, value, message):
    assert make_toys.main([str(tmp_path / "toys"), option, value]) == 2
    assert capsys.readouterr().err == message


def test_without_pybullet_the_command_says_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    assert make_toys.main([str(tmp_path / "toys")]) == 2
    assert "pip install pybullet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_too_few_frames_leave_nothing_behind(tmp_path, no_engine, monkeypatch, capsys):
    monkeypatch.setattr(make_toys, "frames_of_split", lambda *_: iter(()))
    assert make_toys.main([str(tmp_path / "toys")]) == 2
    assert "train has only 0 of 1000 frames" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- with the engine


@pytest.fixture
def world(tmp_path):
    pytest.importorskip("pybullet", reason="pip install pybullet")
    world = toy_world.World(tmp_path, seed=0)
    yield world
    world.close()


def body_of(world: toy_world.World, at: list[float], **shape) -> int:
    engine = world.engine
    return engine.createMultiBody(0, -1, engine.createVisualShape(**shape), at)


def test_a_box_and_a_ball_are_rendered_where_they_are(world):
    engine = world.engine
    mesh = str(world.meshes / "sphere_smooth.obj")  # of radius 1; GEOM_SPHERE is drawn with 5 % dents
    ball = body_of(world, [0.25, 0.1, 0.4], shapeType=engine.GEOM_MESH, fileName=mesh, meshScale=[0.15] * 3)
    box = body_of(world, [0, 0, -0.05], shapeType=engine.GEOM_BOX, halfExtents=[1, 1, 0.05])
    camera = geometry.look_at(np.array([1.0, -0.6, 0.9]), np.array([0.0, 0, 0.2]), 0.05, SIZE_HW, 110.0)
    rays = make_toys.render(engine, camera, np.random.default_rng(0))
    body_HW = geometry.middle(rays.body_UV)
    depth_HW = 1 / np.where(body_HW < 0, np.inf, geometry.middle(rays.inverse_UV))
    x_1W, y_H1 = camera.rays()
    points = np.stack([x_1W * depth_HW, y_H1 * depth_HW, depth_HW], -1) @ camera.axes_33 + camera.position_3
    normal_HW3 = geometry.normals(rays.inverse_UV, rays.part_UV, camera) @ camera.axes_33
    has_HW = normal_HW3.any(axis=-1)
    top = points[body_HW == box][:, 2]
    assert len(top) > 2000 and (np.abs(top) < 1e-4).mean() > 0.9  # the rest is the box's sides
    on_top_HW = (body_HW == box) & has_HW & (np.abs(points[..., 2]) < 1e-4)
    assert np.allclose(normal_HW3[on_top_HW], [0, 0, 1], atol=2e-3)
    out = (points[body_HW == ball] - [0.25, 0.1, 0.4]) / 0.15
    assert len(out) > 300
    assert np.allclose(np.linalg.norm(out, axis=1), 1, atol=0.01)
    on_ball_HW = (body_HW == ball) & has_HW
    towards = ((points[on_ball_HW] - [0.25, 0.1, 0.4]) / 0.15 * normal_HW3[on_ball_HW]).sum(-1)
    assert towards.min() > math.cos(math.radians(8))


def test_every_toy_stands_on_what_carries_it(world):
    engine = world.engine
    for toy in toy_world.TOYS:
        engine.resetSimulation()
        engine.setGravity(0, 0, -9.81)
        rng = np.random.default_rng(1)
        world.room = world.lay_sheets(rng)
        thing = world.load(toy, rng)
        if toy.fixed:
            world.stand(thing, (0.0, 0.0), [0, 0, 0, 1], next(iter(world.room)), 0.0)
        else:
            engine.resetBasePositionAndOrientation(thing.body, [0, 0, world.radius(thing.body)], [0, 0, 0, 1])
        for _ in range(toy_world.SETTLE_STEPS):
            engine.stepSimulation()
        for sheet in world.room:  # its floor would hide what is below
            engine.removeBody(sheet)
        middle_3 = np.array([*world.centre(thing)[:2], 0.05])
        camera = geometry.look_at(middle_3 + [1.2, 0.1, 0.0], middle_3, 0.0, SIZE_HW, 120.0)
        rays = make_toys.render(engine, camera, rng)
        x_1V, y_U1 = fine_rays(camera)
        found_UV = rays.body_UV == thing.body
        assert found_UV.any(), toy.name
        depth_UV = 1 / np.where(found_UV, rays.inverse_UV, 1)
        rays_UV3 = np.stack(np.broadcast_arrays(x_1V, y_U1, np.ones(found_UV.shape)), -1)
        height_UV = (rays_UV3 * depth_UV[..., None]) @ camera.axes_33[:, 2] + camera.position_3[2]
        assert -0.005 < height_UV[found_UV].min() < 0.01, toy.name


@pytest.mark.slow
def test_real_frames_pass_check_and_repeat(tmp_path):
    pytest.importorskip("pybullet", reason="pip install pybullet")
    for name, train in (("one", 3), ("two", 2)):
        assert make_toys.main([str(tmp_path / name), *counts(train, 1, 1), "--seed", "5"]) == 0
    assert check(tmp_path / "one") == 0
    files = sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.png"))
    assert len(files) == 4 * 4
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    first = [(tmp_path / "one" / split / "rgb" / "00000.png").read_bytes() for split in make_toys.SPLITS]
    assert len(set(first)) == 3
