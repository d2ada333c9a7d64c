"""What every ray hits first: the room's six sides or one of the solids.

All rays of a call start at one point: the camera, or the light, from which shadows are cast. Directions need
not be unit vectors; distances are multiples of them.

Shapes: R rays; 3 = (x, y, z) in the world. Long arrays (R, 3) are kept in Fortran order: one coordinate of all
rays is contiguous, which makes the arithmetic faster.
"""

from dataclasses import dataclass

import numpy as np

from perceptkit.data.scenes.layout import Layout, Solid
from perceptkit.data.scenes.solids import MEET, MISS

ROOM = -1
FACES_PER_SOLID = 6
NUM_ROOM_FACES = 6
LIT_TO = 1 - 1e-4
"""A surface is in shadow when something lies nearer to the light than this share of the way."""


@dataclass
class Hits:
    """Per ray."""

    distance_R: np.ndarray
    solid_R: np.ndarray
    """Index of the solid, ROOM for the room."""
    face_R: np.ndarray
    """Of the room or of the solid."""
    normal_R3: np.ndarray
    """Unit, towards the side the ray comes from."""
    uv_m_R2: np.ndarray
    """Coordinates on the surface in metres, for textures."""

    @property
    def surface_R(self) -> np.ndarray:
        """A number for every smooth piece of surface of the scene."""
        of_solid = NUM_ROOM_FACES + self.solid_R * FACES_PER_SOLID + self.face_R
        return np.where(self.solid_R == ROOM, self.face_R, of_solid)


def trace(layout: Layout, origin_3: np.ndarray, ray_R3: np.ndarray) -> Hits:
    """The first surface along each ray; `origin_3` must be inside the room."""
    hits = _meet_room(layout.size_3, origin_3, ray_R3)
    length2_R = squared_length(ray_R3)
    for number, solid in enumerate(layout.solids):
        candidates = _near(solid, origin_3, ray_R3, length2_R)
        if not len(candidates):
            continue
        start = solid.to_local((origin_3 - solid.centre_3)[None])
        local_ray = solid.to_local(ray_R3[candidates])
        start = np.broadcast_to(start, local_ray.shape)
        distance, normal, face = MEET[solid.kind](start, local_ray)
        first = distance < hits.distance_R[candidates]
        rays = candidates[first]
        if not len(rays):
            continue
        hits.distance_R[rays] = distance[first]
        hits.solid_R[rays] = number
        hits.face_R[rays] = face[first]
        hits.normal_R3[rays] = solid.normal_to_world(normal[first])
        local_point = (start[first] + distance[first, None] * local_ray[first]) * solid.half_3
        hits.uv_m_R2[rays] = _unroll(solid, local_point, face[first])
    return hits


def in_light(layout: Layout, point_R3: np.ndarray) -> np.ndarray:
    """(R,) bool: whether no solid stands between the light and the points."""
    ray_R3 = point_R3 - layout.light_3
    length2_R = squared_length(ray_R3)
    lit = np.ones(len(point_R3), dtype=bool)
    for solid in layout.solids:
        candidates = _near(solid, layout.light_3, ray_R3, length2_R)
        candidates = candidates[lit[candidates]]
        if len(candidates):
            local_ray = solid.to_local(ray_R3[candidates])
            start = np.broadcast_to(solid.to_local((layout.light_3 - solid.centre_3)[None]), local_ray.shape)
            lit[candidates] = MEET[solid.kind](start, local_ray)[0] > LIT_TO
    return lit


def squared_length(vector_R3: np.ndarray) -> np.ndarray:
    """(R,)."""
    x, y, z = vector_R3.T
    squared: np.ndarray = x * x + y * y + z * z
    return squared


def _near(solid: Solid, origin_3: np.ndarray, ray_R3: np.ndarray, length2_R: np.ndarray) -> np.ndarray:
    """Indices of the rays that meet the sphere around a solid: all others need no exact test."""
    to_centre = solid.centre_3 - origin_3
    along = ray_R3 @ to_centre
    # its distance from the ray is below the radius, and it is not behind
    tangent2 = to_centre @ to_centre - solid.radius**2
    return np.flatnonzero(along * np.abs(along) > tangent2 * length2_R)


def _meet_room(size_3: np.ndarray, origin_3: np.ndarray, ray_R3: np.ndarray) -> Hits:
    """Faces 0..5: -x, +x, ceiling (-y), floor (+y), behind (-z), far wall (+z)."""
    low_3, high_3 = _room_bounds(size_3)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_wall = (np.where(ray_R3 > 0, high_3, low_3) - origin_3) / ray_R3
    to_wall = np.where(ray_R3 == 0, MISS, to_wall)
    axis = to_wall.argmin(1)
    rows = np.arange(len(axis))
    distance = to_wall[rows, axis]
    positive = ray_R3[rows, axis] > 0
    normal = np.zeros((3, len(axis))).T
    normal[rows, axis] = np.where(positive, -1.0, 1.0)
    point = origin_3 + distance[:, None] * ray_R3
    u = np.where(axis == 0, point[:, 2], point[:, 0])
    v = np.where(axis == 1, point[:, 2], point[:, 1])
    solid = np.full(len(axis), ROOM)
    return Hits(distance, solid, 2 * axis + positive, normal, np.stack([u, v], axis=1))


def _room_bounds(size_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width, height, length = size_3
    return np.array([-width / 2, -height, 0.0]), np.array([width / 2, 0.0, length])


def _unroll(solid: Solid, point_R3: np.ndarray, face: np.ndarray) -> np.ndarray:
    """(R, 2) metres on the surface: box faces lie flat, round sides are unrolled, caps seen from above."""
    x, y, z = point_R3.T
    if solid.kind == "box":
        axis = face // 2
        return np.stack([np.where(axis == 0, z, x), np.where(axis == 1, z, y)], axis=1)
    round_m = np.arctan2(x / solid.half_3[0], z / solid.half_3[2]) * max(solid.half_3[0], solid.half_3[2])
    cap = (face > 0)[:, None]
    return np.where(cap, np.stack([x, z], axis=1), np.stack([round_m, y], axis=1))
