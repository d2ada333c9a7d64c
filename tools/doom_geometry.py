"""Exact labels of a Doom level, ray-cast from its map: depth, normals, classes and wall corners.

A level is a drawing on paper: lines ("linedefs") cut the plane into sectors, and each sector has one floor
height and one ceiling height. So what a camera that is held level sees can be computed without the engine.
A ray of one picture column crosses lines from near to far. Between two crossings it sees the floor or the
ceiling of the sector it is in; at a crossing, wall above the next sector's ceiling and below its floor.

Axes: the map has x east, y north, z up, angles counter-clockwise from east; a camera has x right, y down,
z forward. Units: map units, 32 to a metre. A pixel's centre has whole-number coordinates, as everywhere in
perceptkit. Depth is the distance along the camera's z axis, not along the ray.

Shapes: H W pixels, L lines, S sectors, T things, V vertices, P points, E ends of edges, N crossings of all
columns, 2 = (x, y) of the map, 3 = (x, y, z). Needs numpy only.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

CLASSES = [
    "void",
    "wall",
    "floor",
    "ceiling",
    "sky",
    "door",
    "liquid",
    "step",
    "switch",
    "monster",
    "item",
    "decoration",
]
CLASS_ID = {name: index for index, name in enumerate(CLASSES)}

UNITS_PER_METRE = 32
DEPTH_SCALE = 256  # stored value of one metre, in 16 bits
MAX_STEP_UNITS = 24  # what a player climbs without jumping; a higher rise is a wall,
STEP_HEADROOM_UNITS = 56  # and so is one below an opening that a player does not fit through
NO_SECTOR = -1

FLOOR_CORNER, CEILING_CORNER = 0, 1
CORNER_SPACING_PX = 2.0
CORNER_MIN_DEPTH_UNITS = 16

LIQUID_FLATS = ("NUKAGE", "FWATER", "SWATER", "LAVA", "BLOOD", "SLIME0", "SLIME10", "SLIME11", "SLIME12")
SKY_FLAT = "F_SKY1"
SWITCH_TEXTURES = ("SW1", "SW2")
# Line actions of the original game that open, close or raise a door, and Boom's generalised doors.
DOOR_ACTIONS = frozenset(
    [1, 2, 3, 4, 16, 26, 27, 28, 29, 31, 32, 33, 34, 42, 46, 50, 61, 63, 75, 76, 86, 90, 99, 103]
    + [*range(105, 119), *range(133, 138), *range(0x3C00, 0x4000)]
)


class Wad:
    """The lumps of a WAD file: named byte strings, in which a map is a marker and the ten lumps after it."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        count, offset = struct.unpack_from("<II", self.content, 4)
        self.entries = [struct.unpack_from("<II8s", self.content, offset + 16 * i) for i in range(count)]
        self.names = [text(name) for _, _, name in self.entries]

    def lump(self, index: int) -> bytes:
        start, size, _ = self.entries[index]
        return self.content[start : start + size]

    def level(self, map_name: str) -> "Level":
        """The map called `map_name`, in any case. Raises ValueError where the file has none of this name."""
        marker = self.names.index(map_name.upper())
        return read_level({self.names[i]: self.lump(i) for i in range(marker + 1, marker + 11)})


def text(padded: bytes) -> str:
    """Names are 8 bytes, filled up with zeros."""
    return padded.split(b"\0")[0].decode("latin1").upper()


@dataclass(frozen=True)
class Level:
    """What the labels need of a map. Line l runs from start to end; its front sector is on its right."""

    start_L2: np.ndarray
    end_L2: np.ndarray
    front_L: np.ndarray  # sector index; NO_SECTOR behind a solid wall
    back_L: np.ndarray
    is_door_L: np.ndarray
    is_switch_L: np.ndarray
    floor_S: np.ndarray  # heights at the start of the game: doors and lifts move
    ceiling_S: np.ndarray
    is_liquid_S: np.ndarray
    is_sky_S: np.ndarray
    things_T2: np.ndarray  # where players, monsters and items start: places worth a picture

    @cached_property
    def front_normal_L2(self) -> np.ndarray:
        """Unit vectors that point from the line into its front sector."""
        along_L2 = self.end_L2 - self.start_L2
        normal_L2 = np.stack([along_L2[:, 1], -along_L2[:, 0]], axis=1)
        unit_L2: np.ndarray = normal_L2 / np.maximum(np.linalg.norm(normal_L2, axis=1, keepdims=True), 1e-9)
        return unit_L2


def read_level(lumps: dict[str, bytes]) -> Level:
    """Parses a map in the original game's binary format."""
    vertices_V2 = np.frombuffer(lumps["VERTEXES"], "<i2").reshape(-1, 2).astype(np.float64)
    lines_L7 = np.frombuffer(lumps["LINEDEFS"], "<u2").reshape(-1, 7)  # start end flags action tag right left
    sides = list(struct.iter_unpack("<hh8s8s8sH", lumps["SIDEDEFS"]))  # x y upper lower middle sector
    sectors = list(
        struct.iter_unpack("<hh8s8shhH", lumps["SECTORS"])
    )  # floor ceiling two flats light special tag
    things_T5 = np.frombuffer(lumps["THINGS"], "<i2").reshape(-1, 5)  # x y angle type flags

    def sector_of(side: int) -> int:
        return sides[side][5] if side != 0xFFFF else NO_SECTOR

    def textures_of(side: int) -> list[str]:
        return [text(name) for name in sides[side][2:5]] if side != 0xFFFF else []

    textures = [textures_of(right) + textures_of(left) for right, left in lines_L7[:, 5:7]]
    return Level(
        start_L2=vertices_V2[lines_L7[:, 0]],
        end_L2=vertices_V2[lines_L7[:, 1]],
        front_L=np.array([sector_of(side) for side in lines_L7[:, 5]]),
        back_L=np.array([sector_of(side) for side in lines_L7[:, 6]]),
        is_door_L=np.array(
            [
                int(action) in DOOR_ACTIONS or any("DOOR" in name for name in names)
                for action, names in zip(lines_L7[:, 3], textures, strict=True)
            ]
        ),
        is_switch_L=np.array([any(name.startswith(SWITCH_TEXTURES) for name in names) for names in textures]),
        floor_S=np.array([sector[0] for sector in sectors], float),
        ceiling_S=np.array([sector[1] for sector in sectors], float),
        is_liquid_S=np.array([text(sector[2]).startswith(LIQUID_FLATS) for sector in sectors]),
        is_sky_S=np.array([text(sector[3]) == SKY_FLAT for sector in sectors]),
        things_T2=things_T5[:, :2].astype(np.float64),
    )


@dataclass(frozen=True)
class Camera:
    """A level camera: position, heading, and intrinsics in pixels."""

    position_3: tuple[float, float, float]
    angle: float  # radians
    size_HW: tuple[int, int]
    fx: float
    fy: float

    @property
    def forward_2(self) -> np.ndarray:
        return np.array([math.cos(self.angle), math.sin(self.angle)])

    @property
    def right_2(self) -> np.ndarray:
        return np.array([math.sin(self.angle), -math.cos(self.angle)])

    @property
    def slope_x_W(self) -> np.ndarray:
        """Steps to the right per step forward, of each column."""
        width = self.size_HW[1]
        return (np.arange(width) - (width - 1) / 2) / self.fx

    @property
    def slope_y_H(self) -> np.ndarray:
        """Steps down per step forward, of each row."""
        height = self.size_HW[0]
        return (np.arange(height) - (height - 1) / 2) / self.fy

    def project(self, points_P3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x_P, y_P in pixels and depth_P of points of the map; pixels mean nothing where depth_P <= 0."""
        offset_P3 = points_P3 - np.array(self.position_3)
        depth_P = offset_P3[:, :2] @ self.forward_2
        safe_P = np.where(depth_P > 0, depth_P, 1.0)
        height, width = self.size_HW
        x_P = offset_P3[:, :2] @ self.right_2 / safe_P * self.fx + (width - 1) / 2
        y_P = -offset_P3[:, 2] / safe_P * self.fy + (height - 1) / 2
        return x_P, y_P, depth_P


@dataclass
class Labels:
    """What a camera sees, pixel by pixel. Depth 0 and normal 0 where there is nothing: sky and void."""

    depth_HW: np.ndarray  # map units
    class_HW: np.ndarray
    normal_HW3: np.ndarray  # camera axes, towards the camera
    open_HW: np.ndarray  # pixels whose ray has hit nothing yet

    @classmethod
    def blank(cls, size_HW: tuple[int, int]) -> "Labels":
        return cls(
            np.zeros(size_HW), np.zeros(size_HW, np.uint8), np.zeros((*size_HW, 3)), np.ones(size_HW, bool)
        )

    def paint(
        self, where_HW: np.ndarray, depth: np.ndarray, class_id: np.ndarray, normal: np.ndarray
    ) -> None:
        """Sets the pixels chosen; the values broadcast to the picture."""
        size_HW = where_HW.shape
        self.depth_HW[where_HW] = np.broadcast_to(depth, size_HW)[where_HW]
        self.class_HW[where_HW] = np.broadcast_to(class_id, size_HW)[where_HW]
        self.normal_HW3[where_HW] = np.broadcast_to(normal, (*size_HW, 3))[where_HW]
        self.open_HW &= ~where_HW

    def paint_sky(self, where_HW: np.ndarray) -> None:
        self.paint(where_HW, np.zeros(1), np.array([CLASS_ID["sky"]]), np.zeros(3))

    def paint_board(self, where_HW: np.ndarray, depth: float, class_id: int) -> None:
        """A thing of the game: a flat picture that always faces the camera."""
        self.paint(where_HW, np.array([depth]), np.array([class_id]), np.array([0.0, 0.0, -1.0]))


def raycast(level: Level, floor_S: np.ndarray, ceiling_S: np.ndarray, camera: Camera) -> Labels:
    """Labels of the level without its things, with floors and ceilings at the heights given."""
    labels = Labels.blank(camera.size_HW)
    for depth_W, line_W in crossings(level, camera):
        _paint_crossing(labels, level, floor_S, ceiling_S, camera, depth_W, line_W)
        if not labels.open_HW.any():
            break
    return labels


def crossings(level: Level, camera: Camera) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Depth and line of each column's nearest crossing, both (W,); then of the next; inf where there is none.

    Ray and line meet where position + depth * ray = start + share * along, with a share in [0, 1].
    """
    start_L2, end_L2 = level.start_L2 - camera.position_3[:2], level.end_L2 - camera.position_3[:2]
    lines = np.flatnonzero(np.maximum(start_L2 @ camera.forward_2, end_L2 @ camera.forward_2) > 0)
    start_L2, along_L2 = start_L2[lines], (end_L2 - start_L2)[lines]
    ray_W2 = camera.forward_2 + camera.slope_x_W[:, None] * camera.right_2
    with np.errstate(divide="ignore", invalid="ignore"):
        across_WL = cross(ray_W2[:, None], along_L2[None])
        depth_WL = cross(start_L2, along_L2)[None] / across_WL
        share_WL = cross(start_L2[None], ray_W2[:, None]) / across_WL
        hit_WL = (np.abs(across_WL) > 1e-9) & (depth_WL > 0.05) & (share_WL >= 0) & (share_WL <= 1)
    column_N, line_N = np.nonzero(hit_WL)
    order_N = np.lexsort((depth_WL[column_N, line_N], column_N))
    column_N, line_N = column_N[order_N], line_N[order_N]
    width = camera.size_HW[1]
    count_W = np.bincount(column_N, minlength=width)
    rank_N = np.arange(len(column_N)) - np.repeat(np.cumsum(count_W) - count_W, count_W)
    for rank in range(int(count_W.max(initial=0))):
        chosen = rank_N == rank
        depth_W, line_W = np.full(width, np.inf), np.zeros(width, int)
        depth_W[column_N[chosen]] = depth_WL[column_N[chosen], line_N[chosen]]
        line_W[column_N[chosen]] = lines[line_N[chosen]]
        yield depth_W, line_W


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The z of a x b; the last axis is x, y."""
    z: np.ndarray = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return z


def _paint_crossing(
    labels: Labels,
    level: Level,
    floor_S: np.ndarray,
    ceiling_S: np.ndarray,
    camera: Camera,
    depth_W: np.ndarray,
    line_W: np.ndarray,
) -> None:
    """Paints the floor and ceiling before one crossing per column, and the pieces of wall at it."""
    ray_W2 = camera.forward_2 + camera.slope_x_W[:, None] * camera.right_2
    from_front_W = (ray_W2 * level.front_normal_L2[line_W]).sum(1) < 0
    near_W = np.where(from_front_W, level.front_L[line_W], level.back_L[line_W])
    far_W = np.where(from_front_W, level.back_L[line_W], level.front_L[line_W])
    known_W = np.isfinite(depth_W) & (near_W != NO_SECTOR)
    depth_W = np.where(known_W, depth_W, 0.0)
    slope_H1 = camera.slope_y_H[:, None]
    eye = camera.position_3[2]

    # Floor and ceiling of the near sector: a ray that goes down meets the floor at (eye - floor) / slope.
    with np.errstate(divide="ignore", invalid="ignore"):
        floor_depth_HW = np.where(slope_H1 > 0, (eye - floor_S[near_W]) / slope_H1, np.inf)
        ceiling_depth_HW = np.where(slope_H1 < 0, (eye - ceiling_S[near_W]) / slope_H1, np.inf)
    on_floor_HW = labels.open_HW & known_W & (floor_depth_HW > 0) & (floor_depth_HW <= depth_W)
    above_HW = labels.open_HW & known_W & (ceiling_depth_HW > 0) & (ceiling_depth_HW <= depth_W)
    ground_W = np.where(level.is_liquid_S[near_W], CLASS_ID["liquid"], CLASS_ID["floor"])
    labels.paint(on_floor_HW, floor_depth_HW, ground_W, np.array([0.0, -1.0, 0.0]))
    near_sky_W = level.is_sky_S[near_W]
    labels.paint(
        above_HW & ~near_sky_W, ceiling_depth_HW, np.array([CLASS_ID["ceiling"]]), np.array([0.0, 1.0, 0.0])
    )
    labels.paint_sky(above_HW & near_sky_W)

    # The line itself: all of it where nothing is behind, else what the far floor and ceiling cover.
    height_HW = eye - depth_W * slope_H1
    solid_W = far_W == NO_SECTOR
    here_HW = labels.open_HW & known_W
    rise_HW = here_HW & ~solid_W & (height_HW < floor_S[far_W])
    lintel_HW = here_HW & ~solid_W & (height_HW > ceiling_S[far_W]) & ~rise_HW
    both_sky_W = near_sky_W & level.is_sky_S[far_W]  # the engine draws no wall between two skies
    labels.paint_sky(lintel_HW & both_sky_W)

    wall_W = np.where(level.is_switch_L[line_W], CLASS_ID["switch"], CLASS_ID["wall"])
    low_W = (floor_S[far_W] - floor_S[near_W] <= MAX_STEP_UNITS) & (
        ceiling_S[far_W] - floor_S[far_W] >= STEP_HEADROOM_UNITS
    )
    facing_W2 = level.front_normal_L2[line_W] * np.where(from_front_W, 1, -1)[:, None]
    normal_W3 = np.stack(
        [facing_W2 @ camera.right_2, np.zeros(len(line_W)), facing_W2 @ camera.forward_2], axis=1
    )
    labels.paint(here_HW & solid_W, depth_W, wall_W, normal_W3)
    labels.paint(rise_HW, depth_W, np.where(low_W, CLASS_ID["step"], wall_W), normal_W3)
    door_W = np.where(level.is_door_L[line_W], CLASS_ID["door"], wall_W)
    labels.paint(lintel_HW & ~both_sky_W, depth_W, door_W, normal_W3)


def corners(
    level: Level, floor_S: np.ndarray, ceiling_S: np.ndarray, camera: Camera, depth_HW: np.ndarray
) -> list[tuple[float, float, int]]:
    """Visible wall corners as (x, y, kind), the nearest first.

    Nearer things and walls hide a corner; of corners closer together than CORNER_SPACING_PX only the nearest
    is listed.
    """
    points_P3, kind_P = corner_points(level, floor_S, ceiling_S)
    x_P, y_P, depth_P = camera.project(points_P3)
    height, width = camera.size_HW
    inside_P = (x_P > 0) & (x_P < width - 1) & (y_P > 0) & (y_P < height - 1)
    listed: list[tuple[float, float, int]] = []
    candidates = np.flatnonzero(inside_P & (depth_P > CORNER_MIN_DEPTH_UNITS))
    for point in candidates[np.argsort(depth_P[candidates], kind="stable")]:
        x, y = float(x_P[point]), float(y_P[point])
        if not is_visible(x, y, float(depth_P[point]), depth_HW):
            continue
        if all((x - a) ** 2 + (y - b) ** 2 >= CORNER_SPACING_PX**2 for a, b, _ in listed):
            listed.append((round(x, 2), round(y, 2), int(kind_P[point])))
    return listed


def is_visible(x: float, y: float, depth: float, depth_HW: np.ndarray) -> bool:
    """A surface at this depth is within a pixel, and none of the 3 x 3 pixels is 10 % nearer."""
    column, row = round(x), round(y)
    around = depth_HW[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    around = around[around > 0]
    return bool((np.abs(around - depth) < 0.03 * depth + 2).any() and around.min() >= 0.9 * depth)


def corner_points(level: Level, floor_S: np.ndarray, ceiling_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) corners of the whole level and (P,) their kinds, seen or not.

    A vertex is a corner at some height unless exactly two edges end there and continue each other straight.
    """
    at, towards, kinds = zip(*_edge_ends(level, floor_S, ceiling_S), strict=True)
    at_E3, towards_E2, kind_E = np.concatenate(at), np.concatenate(towards), np.concatenate(kinds)
    length_E1 = np.linalg.norm(towards_E2, axis=1, keepdims=True)
    towards_E2 = np.round(towards_E2 / np.maximum(length_E1, 1e-9), 3) + 0.0  # no -0.0: rows are compared
    ends_E6 = np.unique(np.column_stack([at_E3, kind_E, towards_E2])[length_E1[:, 0] > 0], axis=0)
    points_P4, which_E, count_P = np.unique(ends_E6[:, :4], axis=0, return_inverse=True, return_counts=True)
    sum_P2 = np.zeros((len(points_P4), 2))
    np.add.at(sum_P2, which_E.reshape(-1), ends_E6[:, 4:])
    straight_P = (count_P == 2) & (np.abs(sum_P2).max(axis=1, initial=0.0) < 0.02)
    return points_P4[~straight_P, :3], points_P4[~straight_P, 3].astype(int)


def _edge_ends(
    level: Level, floor_S: np.ndarray, ceiling_S: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Both ends of the horizontal edges of all pieces of wall: position, direction along the edge, kind.

    A line with one sector has its floor edge and its ceiling edge; a line with two has both floor edges where
    the floors differ, and both ceiling edges likewise. A ceiling that is sky has no edge.
    """
    solid_L = (level.front_L == NO_SECTOR) | (level.back_L == NO_SECTOR)
    sky_L = [level.is_sky_S[side_L] & (side_L != NO_SECTOR) for side_L in (level.front_L, level.back_L)]
    for side_L, side_sky_L in zip((level.front_L, level.back_L), sky_L, strict=True):
        for kind, height_S in ((FLOOR_CORNER, floor_S), (CEILING_CORNER, ceiling_S)):
            drawn_L = solid_L | (height_S[level.front_L] != height_S[level.back_L])
            if kind == CEILING_CORNER:
                drawn_L = drawn_L & ~side_sky_L & ~(sky_L[0] & sky_L[1])
            drawn_L = drawn_L & (side_L != NO_SECTOR)
            height_L = height_S[side_L[drawn_L]]
            start_L2, end_L2 = level.start_L2[drawn_L], level.end_L2[drawn_L]
            kind_L = np.full(len(height_L), kind)
            yield np.column_stack([start_L2, height_L]), end_L2 - start_L2, kind_L
            yield np.column_stack([end_L2, height_L]), start_L2 - end_L2, kind_L


def encode_depth(depth_HW: np.ndarray) -> np.ndarray:
    """16 bits, DEPTH_SCALE to a metre, from map units; 0 stays 0, 256 m and more are stored as 65535."""
    return np.clip(np.round(depth_HW / UNITS_PER_METRE * DEPTH_SCALE), 0, 65535).astype(np.uint16)


def encode_normal(normal_HW3: np.ndarray) -> np.ndarray:
    """Bytes (n + 1) * 127.5, so n = 2 * value / 255 - 1; no normal becomes grey."""
    return np.round((normal_HW3 + 1) * 127.5).astype(np.uint8)
