"""Exact labels of a rendered toy scene from its depth buffer: depth in metres, normals, corners of boxes.

A picture is rendered three times as wide and high as it is kept, so every kept pixel is a cell of 3 x 3 rays.
The middle ray of a cell is the pixel's own, which the labels are read from; the picture is the mean of the
cell.

Depth. The renderer's buffer holds d in [0, 1], as OpenGL's does: d = f / (f - n) * (1 - n / z) with the near
and far plane n and f, hence

    1/z = (1 - d) / n + d / f.

Normals. On a plane a x + b y + c z = 1 the inverse depth of the ray (X, Y, 1) is 1/z = a X + b Y + c: it is
affine in the pixel coordinates. So (a, b, c) follows from the differences of 1/z between the middle ray and
the four beside it (which is the cross product of the unprojected differences, without its division by small
numbers), and a cell whose second difference is not zero holds a crease or a jump in depth: it has no normal.

Axes: a camera has x right, y down, z forward; the world has z up. Units: metres. A pixel's centre has
whole-number coordinates, as everywhere in perceptkit. Depth is the distance along the camera's z axis, not
along the ray.

Shapes: H W kept pixels, U V rendered ones (3 H, 3 W), P points, 3 = (x, y, z). Needs numpy only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RAYS = 3  # on a side of a pixel: odd, so that one is in the middle
DEPTH_SCALE = 256  # stored value of one metre, in 16 bits
NEAR_M, FAR_M = 0.1, 12.0

MAX_BEND = 1e-3
"""Largest second difference of 1/z within a pixel, relative to 1/z: a ball of 5 cm seen from 1 m has 2e-4,
the edge of a cube 3e-3."""
CORNER_SPACING_PX = 2.0
CORNER_TOLERANCE = 0.01
"""Of a corner's depth: how far the surface beside it may be from it."""


@dataclass(frozen=True)
class Camera:
    """A pinhole with square pixels whose optical axis meets the middle of the picture."""

    position_3: np.ndarray
    axes_33: np.ndarray
    """Rows: the camera's x, y and z axis in the world."""
    size_HW: tuple[int, int]
    focal_px: float

    def project(self, points_P3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x and y in pixels and the depth, each (P,), of points in the world."""
        right_P, down_P, depth_P = self.axes_33 @ (points_P3 - self.position_3).T
        height, width = self.size_HW
        scale_P = self.focal_px / depth_P
        return (width - 1) / 2 + right_P * scale_P, (height - 1) / 2 + down_P * scale_P, depth_P

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """X (1, W) and Y (H, 1): pixel (x, y) looks along (X, Y, 1)."""
        height, width = self.size_HW
        x_1W, y_H1 = np.arange(width)[None, :], np.arange(height)[:, None]
        return (x_1W - (width - 1) / 2) / self.focal_px, (y_H1 - (height - 1) / 2) / self.focal_px


def look_at(
    position_3: np.ndarray, target_3: np.ndarray, roll: float, size_HW: tuple[int, int], focal_px: float
) -> Camera:
    """A camera that has `target_3` in the middle, its x axis `roll` radians out of the horizontal."""
    forward_3 = np.subtract(target_3, position_3) / np.linalg.norm(np.subtract(target_3, position_3))
    level_3 = np.cross(forward_3, [0.0, 0.0, 1.0])
    level_3 /= np.linalg.norm(level_3)
    down_3 = np.cross(forward_3, level_3)
    right_3 = np.cos(roll) * level_3 + np.sin(roll) * down_3
    axes_33 = np.stack([right_3, np.cross(forward_3, right_3), forward_3])
    return Camera(np.asarray(position_3, float), axes_33, size_HW, focal_px)


def opengl_view(camera: Camera) -> list[float]:
    """The 16 numbers of OpenGL's view matrix, column by column: its y is up and its z is backward."""
    view_44 = np.eye(4)
    view_44[:3, :3] = camera.axes_33 * np.array([[1.0], [-1.0], [-1.0]])
    view_44[:3, 3] = -view_44[:3, :3] @ camera.position_3
    return list(map(float, view_44.T.ravel()))


def tinyrenderer_projection(camera: Camera) -> list[float]:
    """The 16 numbers of the projection with which TinyRenderer's rays are those of `rays`, times RAYS.

    Ray (i, j) of its U x V picture passes through (2 i / V - 1, 1 - 2 (j + 1) / U), the lower left corner of
    the pixel and not its centre; this was measured, on planes, to 0.001 pixel. So the frustum is shifted by
    half a pixel.
    """
    height, width = (RAYS * side for side in camera.size_HW)
    focal = RAYS * camera.focal_px
    matrix_44 = np.zeros((4, 4))
    matrix_44[0] = [2 * focal / width, 0, 1 / width, 0]
    matrix_44[1] = [0, 2 * focal / height, 1 / height, 0]
    matrix_44[2] = [0, 0, -(FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)]
    matrix_44[3] = [0, 0, -1, 0]
    return list(map(float, matrix_44.T.ravel()))


def inverse_depth(buffer: np.ndarray) -> np.ndarray:
    """1/z of a depth buffer, in 1/metre."""
    buffer = np.asarray(buffer, np.float64)
    return (1 - buffer) / NEAR_M + buffer / FAR_M


def middle(rendered_UV: np.ndarray) -> np.ndarray:
    """(H, W, ...): what the middle ray of each pixel meets."""
    return rendered_UV[RAYS // 2 :: RAYS, RAYS // 2 :: RAYS]


def normals(inverse_UV: np.ndarray, part_UV: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) unit normals towards the camera; 0 where the rays of a pixel are not on one smooth part.

    inverse_UV: 1/z of every ray, 0 where it meets nothing; part_UV: a number for what it meets.
    """
    here_HW, left_HW, right_HW = (inverse_UV[1::RAYS, column::RAYS] for column in (1, 0, 2))
    above_HW, below_HW = (inverse_UV[row::RAYS, 1::RAYS] for row in (0, 2))
    smooth_HW = here_HW > 0
    for neighbour_HW in (part_UV[1::RAYS, ::RAYS], part_UV[1::RAYS, 2::RAYS]):
        smooth_HW = smooth_HW & (neighbour_HW == middle(part_UV))
    for neighbour_HW in (part_UV[::RAYS, 1::RAYS], part_UV[2::RAYS, 1::RAYS]):
        smooth_HW = smooth_HW & (neighbour_HW == middle(part_UV))
    for one_HW, other_HW in ((left_HW, right_HW), (above_HW, below_HW)):
        smooth_HW &= np.abs(one_HW + other_HW - 2 * here_HW) <= MAX_BEND * here_HW
    step = 2 / (RAYS * camera.focal_px)  # between the outer rays
    a_HW, b_HW = (right_HW - left_HW) / step, (below_HW - above_HW) / step
    x_1W, y_H1 = camera.rays()
    away_HW3 = np.stack([a_HW, b_HW, here_HW - a_HW * x_1W - b_HW * y_H1], axis=-1)
    length_HW1 = np.linalg.norm(away_HW3, axis=-1, keepdims=True)
    return np.where(smooth_HW[..., None], -away_HW3 / np.maximum(length_HW1, 1e-12), 0.0)


@dataclass(frozen=True)
class Box:
    """A cuboid whose corners are key points."""

    centre_3: np.ndarray
    axes_33: np.ndarray
    """Columns: its own axes in the world."""
    half_3: np.ndarray
    body: int
    kind: int

    def corners_towards(self, position_3: np.ndarray) -> np.ndarray:
        """(P, 3) corners the box itself does not hide from a position: one of their faces is turned to it."""
        signs_83 = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), -1).reshape(8, 3)
        points_83 = self.centre_3 + (signs_83 * self.half_3) @ self.axes_33.T
        faced_83 = signs_83 * ((position_3 - points_83) @ self.axes_33) > 0
        return points_83[faced_83.any(axis=1)]


def visible_corners(
    boxes: Iterable[Box], inverse_UV: np.ndarray, body_UV: np.ndarray, camera: Camera
) -> list[tuple[float, float, int]]:
    """Corners in view as (x, y, kind), the nearest first; of a crowd only the nearest.

    One is in view where a ray within one pixel of it meets its own body at its depth: nothing is before it.
    """
    height, width = camera.size_HW
    seen: list[tuple[float, float, float, int]] = []
    for box in boxes:
        points_P3 = box.corners_towards(camera.position_3)
        for x, y, depth in zip(*camera.project(points_P3), strict=True):
            if depth < NEAR_M or not (0 < x < width - 1 and 0 < y < height - 1):
                continue
            u, v = round(RAYS * y + 1), round(RAYS * x + 1)  # the ray nearest to it
            around = np.s_[max(u - RAYS, 0) : u + RAYS + 1, max(v - RAYS, 0) : v + RAYS + 1]
            own = inverse_UV[around][body_UV[around] == box.body]
            if len(own) and np.abs(1 / own - depth).min() <= CORNER_TOLERANCE * depth:
                seen.append((float(depth), float(x), float(y), box.kind))
    listed: list[tuple[float, float, int]] = []
    for _, x, y, kind in sorted(seen):
        if all((x - a) ** 2 + (y - b) ** 2 >= CORNER_SPACING_PX**2 for a, b, _ in listed):
            listed.append((round(x, 2), round(y, 2), kind))
    return listed


def encode_depth(depth_HW: np.ndarray) -> np.ndarray:
    """16 bits, DEPTH_SCALE to a metre; 0 stays 0."""
    return np.clip(np.round(depth_HW * DEPTH_SCALE), 0, 65535).astype(np.uint16)
