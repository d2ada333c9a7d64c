"""One room with its solids, light and camera, drawn from a random generator.

World axes: x right, y DOWN, z forward, in metres. The floor is y = 0, the ceiling y = -height; the room spans
x = +-width / 2 and z = 0 .. length. The camera stands near z = 0 and looks towards the far wall.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perceptkit.data.scenes.textures import Material
from perceptkit.spec.scene_labels import SCENE_CLASSES, SCENE_TYPES

NOT_SPHERES = [kind for kind in SCENE_CLASSES[3:] if kind != "sphere"]
FEWEST, MOST = 2, 6
"""Solids in a room."""
SPHERES = 0.8
"""Share of the rooms that hold a sphere; never two, because its centre is a named keypoint."""
ATTEMPTS = 400
"""To place a solid; they get smaller as it goes on."""


@dataclass(frozen=True)
class RoomType:
    """Ranges that a type of room is drawn from, and what its surfaces are usually made of."""

    width: tuple[float, float]
    length: tuple[float, float]
    height: tuple[float, float]
    wall: str
    floor: str
    ceiling: str


ROOM_TYPES = dict(
    zip(
        SCENE_TYPES,
        (
            RoomType((3.6, 5.5), (4.5, 6.5), (2.5, 3.0), "plain", "noise", "tiles"),
            RoomType((2.0, 2.8), (7.0, 11.0), (2.4, 2.8), "bands", "checker", "plain"),
            RoomType((7.0, 10.0), (7.0, 11.0), (3.8, 5.5), "stripes", "planks", "plain"),
            RoomType((3.4, 5.0), (4.0, 6.5), (1.9, 2.2), "bricks", "tiles", "noise"),
        ),
        strict=True,
    )
)
USUAL = 0.75
"""Probability that a surface is made of what its type of room usually has."""
ANY_WALL = ("plain", "bands", "stripes", "bricks", "noise")
ANY_FLOOR = ("noise", "checker", "planks", "tiles")
ANY_CEILING = ("plain", "tiles", "noise")
ON_SOLIDS = ("plain", "plain", "stripes", "bands", "checker", "dots", "noise")


@dataclass(frozen=True)
class Solid:
    """A unit solid of solids.py, scaled by `half_3`, turned about the vertical and moved to `centre_3`."""

    kind: str
    centre_3: np.ndarray
    half_3: np.ndarray
    yaw: float
    """Radians; a positive yaw turns z towards x."""
    material: Material

    @property
    def radius(self) -> float:
        """Of the sphere around it."""
        a, b, c = self.half_3
        around = {"box": math.hypot(a, b, c), "sphere": a, "ellipsoid": max(a, b, c)}
        return float(around.get(self.kind, math.hypot(max(a, c), b)))

    def to_local(self, vector_R3: np.ndarray) -> np.ndarray:
        """World directions in the frame of the unit solid."""
        return vector_R3 @ about_y(self.yaw) / self.half_3

    def normal_to_world(self, normal_R3: np.ndarray) -> np.ndarray:
        """Unit normals in the world from normals of the unit solid."""
        turned = (normal_R3 / self.half_3) @ about_y(self.yaw).T
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Camera:
    """A pinhole."""

    position_3: np.ndarray
    to_world_33: np.ndarray
    """Columns: the camera's x (right), y (down) and z (forward) axes."""
    focal: float
    """In picture widths."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Where the optical axis meets the picture, right of and below its middle, in picture widths and heights."""
    stretch: float = 1.0
    """The vertical focal length in pixels over the horizontal one: not 1 where pixels are not square."""


@dataclass(frozen=True)
class Layout:
    """A whole scene, without any picture size."""

    room: int
    """Index into SCENE_TYPES."""
    size_3: np.ndarray
    """Width, height, length."""
    faces: tuple[Material, ...]
    """Of the six sides: -x, +x, ceiling, floor, behind the camera, far wall."""
    solids: tuple[Solid, ...]
    light_3: np.ndarray
    camera: Camera


def about_y(angle: float) -> np.ndarray:
    """(3, 3) rotation about the vertical; a positive angle turns z towards x."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def sample_layout(rng: np.random.Generator) -> Layout:
    """Draws a scene."""
    room = int(rng.integers(len(SCENE_TYPES)))
    kind = ROOM_TYPES[SCENE_TYPES[room]]
    width, height, length = (rng.uniform(*span) for span in (kind.width, kind.height, kind.length))
    size_3 = np.array([width, height, length])
    camera = _sample_camera(rng, size_3)
    solids = _sample_solids(rng, size_3, camera)
    reach = min(length, camera.position_3[2] + 6.0)
    light_3 = np.array(
        [
            rng.uniform(-0.35, 0.35) * width,
            -height + rng.uniform(0.12, 0.35),
            rng.uniform(camera.position_3[2] - 0.2, reach * 0.75),
        ]
    )
    return Layout(room, size_3, _sample_faces(rng, kind), solids, light_3, camera)


def _sample_camera(rng: np.random.Generator, size_3: np.ndarray) -> Camera:
    width, height, length = size_3
    position = np.array(
        [
            rng.uniform(-0.28, 0.28) * width,
            -min(rng.uniform(1.1, 1.75), height - 0.35),
            rng.uniform(0.04, 0.22) * length,
        ]
    )
    # towards a point of the far wall, then a little down: solids stand on the floor
    to_wall = math.atan2(rng.uniform(-0.33, 0.33) * width - position[0], length - position[2])
    yaw = float(np.clip(to_wall + rng.normal(0, 0.12), -0.6, 0.6))
    pitch, roll = rng.uniform(0.02, 0.24), rng.normal(0, 0.04)
    down = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    tilt = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    fov = math.radians(rng.uniform(58, 80))
    return Camera(position, about_y(yaw) @ down @ tilt, 0.5 / math.tan(fov / 2))


def _sample_solids(rng: np.random.Generator, size_3: np.ndarray, camera: Camera) -> tuple[Solid, ...]:
    """Solids on the floor, in front of the camera, that do not touch; at most one is a sphere."""
    width, height, length = size_3
    wanted = int(rng.integers(FEWEST, MOST + 1))
    largest = float(np.clip(0.16 * width, 0.34, 0.85))
    forward = camera.to_world_33[:, 2]
    aim = math.atan2(forward[0], forward[2])
    half_fov = math.atan(0.5 / camera.focal)
    reach = min(length - 0.3, camera.position_3[2] + 6.5)
    solids: list[Solid] = []
    sphere_first = rng.random() < SPHERES
    for attempt in range(ATTEMPTS):
        if len(solids) == wanted:
            break
        kind = "sphere" if sphere_first and not solids else _pick(rng, NOT_SPHERES)
        shrink = 0.85 ** (attempt // 40)  # narrow rooms fill up
        half_3 = _sample_size(rng, kind, largest * shrink, height)
        z = rng.uniform(camera.position_3[2] + 1.1, reach)
        x = camera.position_3[0] + (z - camera.position_3[2]) * math.tan(
            aim + rng.uniform(-0.9, 0.9) * half_fov
        )
        around = math.hypot(half_3[0], half_3[2])
        if abs(x) + around > width / 2 or z + around > length:
            continue
        if math.hypot(x - camera.position_3[0], z - camera.position_3[2]) < around + 0.6:
            continue
        far = [math.hypot(x - s.centre_3[0], z - s.centre_3[2]) for s in solids]
        if any(d < around + math.hypot(s.half_3[0], s.half_3[2]) for d, s in zip(far, solids, strict=True)):
            continue
        colours = _vivid(rng)
        material = Material(_pick(rng, ON_SOLIDS), *colours, rng.uniform(0.12, 0.35), rng.uniform(0.35, 1.0))
        centre = np.array([x, -half_3[1], z])
        solids.append(Solid(kind, centre, half_3, rng.uniform(-math.pi, math.pi), material))
    return tuple(solids)


def _sample_size(rng: np.random.Generator, kind: str, largest: float, height: float) -> np.ndarray:
    """(3,) half extents in metres."""
    r = rng.uniform(0.5, 1.0) * largest
    if kind == "sphere":
        half = np.array([r, r, r])
    elif kind == "ellipsoid":  # clearly no sphere: one axis is 1.6 to 2.4 times shorter than another
        ratio = rng.uniform(1.6, 2.4)
        flat, tall = (
            np.array([r, r / ratio, r * rng.uniform(0.6, 1.0)]),
            np.array([r / ratio, r, r / ratio]) * 1.2,
        )
        half = flat if rng.random() < 0.5 else tall
    elif kind == "box":
        half = np.array([r * rng.uniform(0.5, 1), r * rng.uniform(0.5, 1.5), r * rng.uniform(0.5, 1)])
    else:
        half = np.array([r * 0.75, r * rng.uniform(0.8, 1.5), r * 0.75])
    half[1] = min(half[1], 0.4 * height)
    return half


def _sample_faces(rng: np.random.Generator, kind: RoomType) -> tuple[Material, ...]:
    """Walls of one material, a floor and a ceiling."""

    def surface(
        usual: str, others: tuple[str, ...], light: tuple[float, float], period: tuple[float, float]
    ) -> Material:
        pattern = usual if rng.random() < USUAL else _pick(rng, others)
        colours = _muted(rng, light)
        return Material(pattern, *colours, rng.uniform(*period), rng.uniform(0.05, 0.35))

    wall = surface(kind.wall, ANY_WALL, (0.5, 0.95), (0.35, 0.7))
    floor = surface(kind.floor, ANY_FLOOR, (0.25, 0.7), (0.4, 0.8))
    ceiling = surface(kind.ceiling, ANY_CEILING, (0.65, 1.0), (0.6, 0.9))
    return wall, wall, ceiling, floor, wall, wall


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _vivid(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hue, saturation, value = rng.random(), rng.uniform(0.35, 0.85), rng.uniform(0.45, 0.95)
    second = _hsv(hue + rng.uniform(-0.15, 0.15), saturation * 0.7, value * rng.uniform(0.35, 0.75))
    return _hsv(hue, saturation, value), second


def _muted(rng: np.random.Generator, light: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    hue, saturation, value = rng.random(), rng.uniform(0.03, 0.3), rng.uniform(*light)
    return _hsv(hue, saturation, value), _hsv(hue, saturation * 1.2, value * rng.uniform(0.55, 0.85))


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) linear RGB."""
    channel = np.abs(((hue + np.array([0, 2 / 3, 1 / 3])) % 1) * 6 - 3) - 1
    rgb = value * (1 + saturation * (np.clip(channel, 0, 1) - 1))
    return np.asarray(rgb**2.2)
