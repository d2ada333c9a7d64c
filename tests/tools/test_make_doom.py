"""tools/make_doom.py and tools/doom_geometry.py: labels of rooms that fit on a napkin, refusals, a real run."""

import json
import math
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import doom_geometry as geometry
import make_doom

from perceptkit.cli import main as perceptkit

ROOT = Path(__file__).parents[2]
ID = geometry.CLASS_ID
SIZE_HW = (96, 128)
EYE = 41.0
SQUARE = [
    (-128, -128),
    (-128, 128),
    (128, 128),
    (128, -128),
]  # clockwise: the inside is on the right of each line


def camera(angle_deg: float = 0.0, at: tuple[float, float] = (0.0, 0.0)) -> geometry.Camera:
    return geometry.Camera((*at, EYE), math.radians(angle_deg), SIZE_HW, fx=64.0, fy=76.8)


def level(lines, back=None, heights=((0, 128),), sky=(), liquid=(), door=(), switch=()) -> geometry.Level:
    """Lines as ((x, y), (x, y)) in front of sector 0 unless `back` says {line: (front, back)}."""
    sides = [(back or {}).get(index, (0, geometry.NO_SECTOR)) for index in range(len(lines))]
    sectors = range(len(heights))
    return geometry.Level(
        start_L2=np.array([start for start, _ in lines], float),
        end_L2=np.array([end for _, end in lines], float),
        front_L=np.array([front for front, _ in sides]),
        back_L=np.array([behind for _, behind in sides]),
        is_door_L=np.array([index in door for index in range(len(lines))]),
        is_switch_L=np.array([index in switch for index in range(len(lines))]),
        floor_S=np.array([low for low, _ in heights], float),
        ceiling_S=np.array([high for _, high in heights], float),
        is_liquid_S=np.array([sector in liquid for sector in sectors]),
        is_sky_S=np.array([sector in sky for sector in sectors]),
        things_T2=np.zeros((1, 2)),
    )


def closed(points) -> list:
    return list(zip(points, [*points[1:], points[0]], strict=True))


def room(**options) -> geometry.Level:
    return level(closed(SQUARE), **options)


def two_rooms(floor=0.0, ceiling=128.0, **options) -> geometry.Level:
    """The square, cut at x = 64 by line 4; sector 1 is east of it, with the heights given."""
    lines = [*closed(SQUARE), ((64, -128), (64, 128))]  # northwards: its right, the front, is the east
    sides = {1: (0, -1), 2: (1, -1), 4: (1, 0)}
    return level(lines, sides, ((0, 128), (floor, ceiling)), **options)


def see(rooms: geometry.Level, eye: geometry.Camera) -> geometry.Labels:
    return geometry.raycast(rooms, rooms.floor_S, rooms.ceiling_S, eye)


def find_corners(rooms: geometry.Level, eye: geometry.Camera) -> list:
    return geometry.corners(rooms, rooms.floor_S, rooms.ceiling_S, eye, see(rooms, eye).depth_HW)


def unproject(depth_HW: np.ndarray, eye: geometry.Camera) -> np.ndarray:
    """(H, W, 3) points in camera axes: the inverse of a pinhole, written out."""
    rows, columns = np.indices(depth_HW.shape)
    return np.stack(
        [(columns - 63.5) / eye.fx * depth_HW, (rows - 47.5) / eye.fy * depth_HW, depth_HW], axis=-1
    )


# --- geometry by hand


def test_project_by_hand():
    # 100 ahead, 10 to the left (north), 10 above the eye
    x, y, depth = camera().project(np.array([[100.0, 10.0, EYE + 10]]))
    assert depth == pytest.approx(100)
    assert (x[0], y[0]) == pytest.approx((63.5 - 6.4, 47.5 - 7.68))


def test_unprojected_pixels_lie_on_the_room():
    eye = camera(angle_deg=17)
    labels = see(room(), eye)
    right, down, ahead = np.moveaxis(unproject(labels.depth_HW, eye), -1, 0)
    x, y = (ahead[..., None] * eye.forward_2 + right[..., None] * eye.right_2).transpose(2, 0, 1)
    on_wall = np.abs(np.maximum(np.abs(x), np.abs(y)) - 128) < 1e-9
    assert not labels.open_HW.any()
    assert on_wall[labels.class_HW == ID["wall"]].all()
    assert np.allclose((EYE - down)[labels.class_HW == ID["floor"]], 0)
    assert np.allclose((EYE - down)[labels.class_HW == ID["ceiling"]], 128)
    assert set(np.unique(labels.class_HW)) == {ID["wall"], ID["floor"], ID["ceiling"]}


def test_normal_of_a_slanted_wall():
    # the east wall seen 30 degrees to the left of straight on: its normal is (-1, 0) on the map
    eye = camera(angle_deg=30)
    labels = see(room(), eye)
    patch = np.s_[40:56, 70:100]
    assert np.allclose(labels.normal_HW3[patch], [-0.5, 0, -math.sqrt(0.75)])
    points = unproject(labels.depth_HW, eye)[patch]
    from_depth = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    from_depth /= np.linalg.norm(from_depth, axis=-1, keepdims=True)
    assert np.allclose(from_depth[1:-1, 1:-1], labels.normal_HW3[patch][1:-1, 1:-1], atol=1e-6)


def test_normals_are_unit_vectors_towards_the_camera():
    eye = camera(angle_deg=50)
    labels = see(room(), eye)
    assert np.allclose(np.linalg.norm(labels.normal_HW3, axis=-1), 1)
    assert ((labels.normal_HW3 * unproject(labels.depth_HW, eye)).sum(-1) < 0).all()


def test_floor_and_ceiling_depth_by_hand():
    labels = see(room(), camera())
    assert labels.depth_HW[95, 64] == pytest.approx(EYE / (47.5 / 76.8))  # bottom row, slope 47.5 / 76.8
    assert labels.depth_HW[48, 64] == pytest.approx(128)
    assert see(room(heights=((0, 60),)), camera()).depth_HW[0, 64] == pytest.approx(19 / (47.5 / 76.8))


@pytest.mark.parametrize(
    ("floor", "ceiling", "name"),
    [(24, 128, "step"), (25, 128, "wall"), (24, 24 + 55, "wall"), (0, 128, "floor")],
)
def test_a_step_is_low_and_leads_somewhere(floor, ceiling, name):
    # row 68 meets the line at x = 64 at 20.5 / 76.8 * 124 = 33 below the eye, 8 above the near floor
    labels = see(two_rooms(floor, ceiling), camera(at=(-60.0, 0.0)))
    assert labels.class_HW[68, 64] == ID[name]


def test_a_moved_door_is_where_it_is_now():
    rooms = two_rooms(door=(4,))
    shut_S = np.array([128.0, 0.0])  # a door is a sector whose ceiling comes down
    assert see(rooms, camera()).class_HW[48, 64] == ID["wall"]
    labels = geometry.raycast(rooms, rooms.floor_S, shut_S, camera())
    assert labels.class_HW[48, 64] == ID["door"]
    assert labels.depth_HW[48, 64] == pytest.approx(64)


def test_liquids_switches_and_sky():
    labels = see(room(liquid=(0,), switch=(2,), sky=(0,)), camera())
    assert labels.class_HW[95, 64] == ID["liquid"]
    assert labels.class_HW[48, 64] == ID["switch"]
    low = see(room(sky=(0,), heights=((0, 60),)), camera())
    assert (low.class_HW[0, 64], low.depth_HW[0, 64]) == (ID["sky"], 0)
    assert not low.normal_HW3[0, 64].any()


def test_between_two_skies_there_is_no_wall():
    labels = see(two_rooms(ceiling=60.0, sky=(0, 1)), camera(at=(-60.0, 0.0)))
    assert labels.class_HW[20, 64] == ID["sky"]
    assert see(two_rooms(ceiling=60.0, sky=(0,)), camera(at=(-60.0, 0.0))).class_HW[20, 64] == ID["wall"]


def test_outside_of_the_level_is_void():
    labels = see(room(), camera(at=(500.0, 0.0)))
    assert (labels.class_HW == ID["void"]).all()


# --- corners


def test_corners_of_a_square_room():
    # the north-east corner is straight ahead at sqrt(2) * 128 = 181.02; the others are out of view
    found = find_corners(room(), camera(angle_deg=45))
    scale = 76.8 / (128 * math.sqrt(2))
    assert sorted(found, key=lambda point: point[2]) == [
        (63.5, pytest.approx(47.5 + EYE * scale, abs=0.01), geometry.FLOOR_CORNER),
        (63.5, pytest.approx(47.5 - (128 - EYE) * scale, abs=0.01), geometry.CEILING_CORNER),
    ]


def test_a_vertex_in_a_straight_wall_is_no_corner():
    split = level(closed([*SQUARE[:3], (128, 0), SQUARE[3]]))
    points_P3, kind_P = geometry.corner_points(split, split.floor_S, split.ceiling_S)
    expected = {(x, y, z) for x, y in SQUARE for z in (0, 128)}
    assert {tuple(point) for point in points_P3} == expected
    assert sorted(kind_P) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_border_between_equal_floors_is_no_corner():
    flat = two_rooms()
    assert len(geometry.corner_points(flat, flat.floor_S, flat.ceiling_S)[0]) == 8
    raised = two_rooms(floor=24.0)
    points_P3, _ = geometry.corner_points(raised, raised.floor_S, raised.ceiling_S)
    assert {(64, 128, 0), (64, 128, 24)} <= {tuple(point) for point in points_P3}


def test_the_sky_has_no_corners():
    under_sky = room(sky=(0,))
    assert [kind for _, _, kind in find_corners(under_sky, camera(angle_deg=45))] == [geometry.FLOOR_CORNER]


def test_a_thing_hides_the_corner_behind_it():
    eye = camera(angle_deg=45)
    labels = see(room(), eye)
    lower_half = np.indices(SIZE_HW)[0] >= 48
    labels.paint_board(lower_half, 50.0, ID["monster"])
    found = geometry.corners(room(), room().floor_S, room().ceiling_S, eye, labels.depth_HW)
    assert [kind for _, _, kind in found] == [geometry.CEILING_CORNER]
    assert (labels.depth_HW[60, 3], labels.class_HW[60, 3]) == (50.0, ID["monster"])


def test_of_crowded_corners_the_nearest_is_listed():
    thin = [(-128, -128), (-128, 128), (99, 128), (100, 127), (128, 99), (128, -128)]
    found = find_corners(level(closed(thin)), camera(angle_deg=45))
    gaps = [math.dist(a[:2], b[:2]) for i, a in enumerate(found) for b in found[:i]]
    assert len(found) == 4 and min(gaps) >= geometry.CORNER_SPACING_PX


# --- files


def test_depth_survives_its_encoding():
    depth = np.array([0.0, 8.0, 32.0, 1000.0, 1e6])
    stored = geometry.encode_depth(depth)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [0, 64, 256, 8000, 65535]  # 32 units are a metre, a metre is 256


def test_normals_survive_their_encoding():
    towards = np.random.default_rng(0).normal(size=(1000, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    decoded = 2 * (geometry.encode_normal(towards) / 255) - 1
    assert np.abs(decoded - towards).max() <= 1 / 255 + 1e-9
    assert np.linalg.norm(2 * (geometry.encode_normal(np.zeros(3)) / 255) - 1) < 0.01


def test_the_tool_writes_what_the_task_file_declares():
    declared = yaml.safe_load((ROOT / "tasks/doom.yaml").read_text())
    tasks = declared["tasks"]
    assert tasks["seg"]["classes"] == geometry.CLASSES
    assert tasks["depth"]["scale"] == geometry.DEPTH_SCALE
    assert [kind.split()[0] for kind in tasks["corners"]["kinds"]] == ["floor", "ceiling"]
    assert tuple(declared["data"]["size"]) == make_doom.SIZE_HW


def test_a_wad_is_read(tmp_path):
    def name(value: str) -> bytes:
        return value.encode().ljust(8, b"\0")

    lumps = {
        "MAP01": b"",
        "THINGS": struct.pack("<5h", 10, -20, 90, 1, 7),
        "LINEDEFS": struct.pack("<7H", 0, 1, 0, 1, 0, 0, 0xFFFF) + struct.pack("<7H", 1, 2, 0, 0, 0, 0, 1),
        "SIDEDEFS": struct.pack("<hh8s8s8sH", 0, 0, name("-"), name("-"), name("SW1BRN1"), 1)
        + struct.pack("<hh8s8s8sH", 0, 0, name("-"), name("BIGDOOR2"), name("-"), 0),
        "VERTEXES": struct.pack("<6h", -1, -2, 3, 4, 5, 6),
        "SEGS": b"",
        "SSECTORS": b"",
        "NODES": b"",
        "SECTORS": struct.pack("<hh8s8shhH", -8, 120, name("NUKAGE1"), name("F_SKY1"), 160, 0, 0)
        + struct.pack("<hh8s8shhH", 0, 64, name("FLOOR0_1"), name("CEIL1_1"), 160, 0, 0),
        "REJECT": b"",
        "BLOCKMAP": b"",
    }
    body, directory = b"", b""
    for lump, content in lumps.items():
        directory += struct.pack("<II8s", 12 + len(body), len(content), name(lump))
        body += content
    path = tmp_path / "tiny.wad"
    path.write_bytes(b"PWAD" + struct.pack("<II", len(lumps), 12 + len(body)) + body + directory)

    tiny = geometry.Wad(path).level("map01")
    assert tiny.start_L2.tolist() == [[-1, -2], [3, 4]] and tiny.end_L2.tolist() == [[3, 4], [5, 6]]
    assert tiny.front_L.tolist() == [1, 1] and tiny.back_L.tolist() == [geometry.NO_SECTOR, 0]
    assert tiny.is_door_L.tolist() == [True, True]  # by its action, and by its texture
    assert tiny.is_switch_L.tolist() == [True, True]
    assert tiny.floor_S.tolist() == [-8, 0] and tiny.ceiling_S.tolist() == [120, 64]
    assert tiny.is_liquid_S.tolist() == [True, False] and tiny.is_sky_S.tolist() == [True, False]
    assert tiny.things_T2.tolist() == [[10, -20]]
    with pytest.raises(ValueError):
        geometry.Wad(path).level("map02")


# --- frames


def engine_state(eye: geometry.Camera, brightness: int = 100) -> SimpleNamespace:
    """What the engine hands over for the square room with a monster in columns 60 to 69."""
    zoom = make_doom.SUPERSAMPLING
    depth = np.clip(see(room(), eye).depth_HW, 0, 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    labels = np.zeros_like(depth)
    labels[:, 60 * zoom : 70 * zoom] = 7
    monster = SimpleNamespace(
        value=7,
        object_name="Zombieman",
        object_category="Monster",
        object_position_x=30.0,
        object_position_y=30.0,
    )
    return SimpleNamespace(
        game_variables=np.array([*eye.position_3, math.degrees(eye.angle), 90.0]),
        sectors=[SimpleNamespace(floor_height=0.0, ceiling_height=128.0)],
        screen_buffer=np.full((*depth.shape, 3), brightness, np.uint8),
        depth_buffer=depth,
        labels_buffer=labels,
        labels=[monster],
    )


def test_a_frame_of_the_engine_is_labelled():
    eye = camera(angle_deg=45)
    frame = make_doom.label_frame(engine_state(eye), room())
    assert frame is not None
    assert frame.image_HW3.shape == (*SIZE_HW, 3)
    assert (frame.camera.fx, frame.camera.fy) == pytest.approx((64.0, 76.8))  # 90 degrees; pixels 1 : 1.2
    assert (frame.labels.class_HW[:, 60:70] == ID["monster"]).all()
    assert frame.labels.depth_HW[5, 65] == pytest.approx(30 * math.sqrt(2))
    assert frame.points == []  # the monster stands before the only corner in view


def test_bad_frames_are_dropped():
    eye = camera(angle_deg=45)
    assert make_doom.label_frame(engine_state(eye, brightness=10), room()) is None
    upside_down = engine_state(eye)
    upside_down.depth_buffer = 255 - upside_down.depth_buffer
    assert make_doom.label_frame(upside_down, room()) is None
    outside = engine_state(eye)
    outside.game_variables[0] = 1000
    assert make_doom.label_frame(outside, room()) is None
    assert make_doom.label_frame(engine_state(camera()), room()) is None  # the farthest wall is 4 m away


@pytest.mark.parametrize(
    ("name", "category", "expected"),
    [
        ("DoomImp", "Monster", "monster"),
        ("Clip", "Ammo", "item"),
        ("RedSkull", "Key", "item"),
        ("BlueCard", "", "item"),
        ("TorchTree", "Obstacle", "decoration"),
    ],
)
def test_thing_class(name, category, expected):
    assert make_doom.thing_class(name, category) == ID[expected]


def test_rank_correlation_by_hand():
    a = np.arange(60.0)
    assert make_doom.rank_correlation(a, a**3) == pytest.approx(1)
    assert make_doom.rank_correlation(a, -a) == pytest.approx(-1)
    assert make_doom.rank_correlation(a, np.zeros(60)) == 0
    assert make_doom.rank_correlation(a[:10], a[:10]) == 0


# --- the command


@pytest.fixture
def no_engine(monkeypatch):
    """The square room stands for every map, with as many frames as asked for."""

    def frames(wad, map_name, count, seed):
        for _ in range(count):
            yield make_doom.label_frame(engine_state(camera(angle_deg=45)), room())

    monkeypatch.setitem(sys.modules, "vizdoom", ModuleType("vizdoom"))
    monkeypatch.setattr(make_doom, "frames_of_map", frames)


def counts(train: int, val: int, test: int) -> list[str]:
    return ["--train", str(train), "--val", str(val), "--test", str(test)]


def check(root: Path) -> int:
    return perceptkit(["check", str(ROOT / "tasks/doom.yaml"), "--set", f"data.root={root}"])


@pytest.mark.slow
def test_the_set_is_complete_and_passes_check(tmp_path, no_engine):
    out = tmp_path / "new" / "doom"
    assert make_doom.main([str(out), *counts(60, 5, 3)]) == 0
    assert check(out) == 0
    index = {
        split: json.loads((out / split / "index.json").read_text())["frames"]
        for split in make_doom.SPLIT_MAPS["both"]
    }
    assert {split: len(frames) for split, frames in index.items()} == {"train": 60, "val": 5, "test": 3}
    assert {frame["map"] for frame in index["val"]} == {"map21", "map22", "map23", "map24"}
    assert list(out.parent.iterdir()) == [out]


def test_an_empty_folder_is_filled(tmp_path, no_engine):
    assert make_doom.main([str(tmp_path), *counts(1, 1, 1)]) == 0
    assert check(tmp_path) == 0


def test_a_folder_that_holds_something_is_refused(tmp_path, no_engine, capsys):
    (tmp_path / "mine.txt").touch()
    assert make_doom.main([str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert make_doom.main([str(tmp_path / "mine.txt")]) == 2


def test_counts_must_be_positive(tmp_path, no_engine, capsys):
    assert make_doom.main([str(tmp_path / "doom"), "--val", "0"]) == 2
    assert capsys.readouterr().err == "--val 0: every split needs at least one frame\n"


def test_without_vizdoom_the_command_says_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert make_doom.main([str(tmp_path / "doom")]) == 2
    assert "pip install vizdoom" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_too_few_frames_leave_nothing_behind(tmp_path, no_engine, monkeypatch, capsys):
    monkeypatch.setattr(make_doom, "frames_of_map", lambda *_: iter(()))
    assert make_doom.main([str(tmp_path / "doom")]) == 2
    assert "give only 0 of 1800 frames" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_map_is_in_two_splits():
    for maps in make_doom.SPLIT_MAPS.values():
        places = [place for of_split in maps.values() for place in of_split]
        assert len(places) == len(set(places))
    wads = {
        levels: {wad for of in maps.values() for wad, _ in of}
        for levels, maps in make_doom.SPLIT_MAPS.items()
    }
    assert wads["freedoom1"] == {"freedoom1.wad"} and wads["freedoom2"] == {"freedoom2.wad"}


# --- with the engine


def test_no_drawing_is_in_two_splits():
    vizdoom = pytest.importorskip("vizdoom", reason="pip install vizdoom")
    folder = Path(vizdoom.__file__).parent
    wads = {name: geometry.Wad(folder / name) for name in ("freedoom1.wad", "freedoom2.wad")}
    seen: dict[bytes, tuple[str, str]] = {}
    for place in (place for maps in make_doom.SPLIT_MAPS["both"].values() for place in maps):
        wad, map_name = wads[place[0]], place[1]
        vertices = wad.lump(wad.names.index(map_name.upper()) + 4)
        assert len(vertices) > 100
        assert vertices not in seen, f"{place} is drawn like {seen[vertices]}"
        seen[vertices] = place


@pytest.mark.slow
def test_real_frames_pass_check_and_repeat(tmp_path):
    pytest.importorskip("vizdoom", reason="pip install vizdoom")
    for name in ("one", "two"):
        assert make_doom.main([str(tmp_path / name), *counts(3, 2, 2), "--seed", "5"]) == 0
    assert check(tmp_path / "one") == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 7 * 4 + 3 * 2
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_the_fixture_passes_check():
    fixture = ROOT / "tests/fixtures/doom"
    assert check(fixture) == 0
    assert sum(path.stat().st_size for path in fixture.rglob("*.*")) < 1e6
    assert "Freedoom project" in (fixture / "LICENSE").read_text()
