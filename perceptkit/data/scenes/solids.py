"""Four unit solids: where a ray enters them, and the surface normal there.

A solid of a scene is a unit solid, scaled, turned about the vertical and moved, so rays are brought into its
frame and met there. Axes: x right, y DOWN, z forward.

    box        |x|, |y|, |z| <= 1
    ellipsoid  x^2 + y^2 + z^2 <= 1
    cylinder   x^2 + z^2 <= 1, |y| <= 1
    cone       x^2 + z^2 <= ((1 + y) / 2)^2, |y| <= 1: the apex is up, at y = -1

Shapes: R rays; 3 = (x, y, z). Directions need not be unit vectors: distances are multiples of them.
"""

from collections.abc import Callable

import numpy as np

MISS = np.inf
NEAREST = 1e-6
"""Hits nearer than this are the surface that the ray starts on."""

Hit = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Distance (R,), MISS where there is none; normal (R, 3), not of unit length; face (R,) int."""


def meet_box(origin_R3: np.ndarray, ray_R3: np.ndarray) -> Hit:
    """Faces 0..5: 2 * axis, plus 1 on the positive side."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / ray_R3
        to_low, to_high = (-1 - origin_R3) * inverse, (1 - origin_R3) * inverse
    near_R3, far_R3 = np.fmin(to_low, to_high), np.fmax(to_low, to_high)
    axis = near_R3.argmax(1)
    near = near_R3[np.arange(len(axis)), axis]
    hit = (near <= far_R3.min(1)) & (near > NEAREST)
    side = np.where(ray_R3[np.arange(len(axis)), axis] > 0, -1.0, 1.0)
    normal = np.zeros_like(ray_R3)
    normal[np.arange(len(axis)), axis] = side
    return np.where(hit, near, MISS), normal, 2 * axis + (side > 0)


def meet_ellipsoid(origin_R3: np.ndarray, ray_R3: np.ndarray) -> Hit:
    """One face."""
    a = (ray_R3**2).sum(1)
    b = (origin_R3 * ray_R3).sum(1)
    c = (origin_R3**2).sum(1) - 1
    distance = first_root(a, b, c)
    normal = origin_R3 + np.where(np.isfinite(distance), distance, 0)[:, None] * ray_R3
    return distance, normal, np.zeros(len(distance), dtype=int)


def meet_cylinder(origin_R3: np.ndarray, ray_R3: np.ndarray) -> Hit:
    """Faces: 0 the side, 1 the top, 2 the bottom."""
    (x, y, z), (dx, dy, dz) = origin_R3.T, ray_R3.T
    side = first_root(dx * dx + dz * dz, x * dx + z * dz, x * x + z * z - 1)
    with np.errstate(invalid="ignore"):
        side = np.where(np.abs(y + side * dy) <= 1, side, MISS)
    top, bottom = (_meet_disc(origin_R3, ray_R3, level) for level in (-1.0, 1.0))
    return _nearest(origin_R3, ray_R3, side, top, bottom, slope=0.0)


def meet_cone(origin_R3: np.ndarray, ray_R3: np.ndarray) -> Hit:
    """Faces: 0 the side, 2 the bottom."""
    (x, y, z), (dx, dy, dz) = origin_R3.T, ray_R3.T
    radius, d_radius = (1 + y) / 2, dy / 2
    a = dx * dx + dz * dz - d_radius * d_radius
    b = x * dx + z * dz - radius * d_radius
    c = x * x + z * z - radius * radius
    side = np.full(len(a), MISS)
    for root in both_roots(a, b, c):  # the mirrored cone above the apex also solves the equation
        with np.errstate(invalid="ignore"):
            good = (root > NEAREST) & (np.abs(y + root * dy) <= 1)
        side = np.where(good & (root < side), root, side)
    bottom = _meet_disc(origin_R3, ray_R3, 1.0)
    return _nearest(origin_R3, ray_R3, side, np.full(len(a), MISS), bottom, slope=0.5)


def first_root(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The smaller root of a t^2 + 2 b t + c = 0 with a > 0, where a ray enters; MISS behind the start."""
    discriminant = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = (-b - np.sqrt(discriminant)) / a
    return np.where((discriminant > 0) & (root > NEAREST), root, MISS)


def both_roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of a t^2 + 2 b t + c = 0 for any sign of a; NaN where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # -b and the root have the same sign here, so nothing cancels
        q = -(b + np.where(b < 0, -1.0, 1.0) * np.sqrt(b * b - a * c))
        return q / a, c / q


def _meet_disc(origin_R3: np.ndarray, ray_R3: np.ndarray, level: float) -> np.ndarray:
    """Distance to the disc of radius 1 at y = `level`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (level - origin_R3[:, 1]) / ray_R3[:, 1]
        x, z = (origin_R3[:, i] + distance * ray_R3[:, i] for i in (0, 2))
        inside = (x * x + z * z <= 1) & (distance > NEAREST)
    return np.where(inside, distance, MISS)


def _nearest(
    origin_R3: np.ndarray,
    ray_R3: np.ndarray,
    side: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    slope: float,
) -> Hit:
    """The first of side and caps; `slope` is how fast the radius grows with y."""
    distance_3R = np.stack([side, top, bottom])
    face = distance_3R.argmin(0)
    distance = distance_3R.min(0)
    point = origin_R3 + np.where(np.isfinite(distance), distance, 0)[:, None] * ray_R3
    normal = point.copy()
    normal[:, 1] = -slope * np.hypot(point[:, 0], point[:, 2])
    normal[face == 1] = (0, -1, 0)
    normal[face == 2] = (0, 1, 0)
    return distance, normal, face


MEET: dict[str, Callable[[np.ndarray, np.ndarray], Hit]] = {
    "box": meet_box,
    "sphere": meet_ellipsoid,
    "cylinder": meet_cylinder,
    "cone": meet_cone,
    "ellipsoid": meet_ellipsoid,
}
"""By class of solid."""
