"""Flip, rotate, zoom, pad, crop, resize: one sampled set of parameters moves the picture and every target.

    op      image     class ids, edges      depth             normals                   points
    h-flip  flip      flip                  flip              flip, x = -x              x -> W-1-x, swap pairs
    v-flip  flip      flip                  flip              flip, y = -y              y -> H-1-y
    rotate  bilinear  nearest, fill ignore  nearest, fill 0   rotate (x, y), fill 0     turn; outside: hidden
    zoom s  bilinear  nearest               nearest, / s (*)  n_z * s, renormalise (*)  scale about the centre
    crop    cut       cut                   cut               cut                       shift; outside: hidden

(*) with `zoom_depth: divide`: the picture then is what a camera nearer by s would see of a distant scene. Inverse depth
is multiplied, and that of Taskonomy's logarithms is divided under the logarithm (`come_nearer`).

Positive angles turn the picture counter-clockwise as seen. Camera axes: x right, y down, z forward.
Flips and crop are exact; rotation and zoom are one affine map about the centre ((W-1)/2, (H-1)/2). The crop is last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.pixels import resize_rgb
from perceptkit.spec.recipe import AugmentSpec
from perceptkit.spec.tasks_file import DepthSpec
from perceptkit.tasks.base import Task
from perceptkit.tasks.depth import Depth

_FLIP_CODE = {(True, False): 1, (False, True): 0, (True, True): -1}
FILL = {"segmentation": -1, "edges": -1, "response": -2, "depth": 0, "normals": 0}


@dataclass(frozen=True)
class Geometry:
    """One sampled set of parameters."""

    hflip: bool = False
    vflip: bool = False
    angle_deg: float = 0.0
    """Counter-clockwise as seen."""
    zoom: float = 1.0
    """Above 1 the picture is enlarged and cropped, below 1 shrunk and padded."""
    divide_depth: bool = False
    crop_HW: tuple[int, int] | None = None
    """Size of the window that is cut out; None takes the whole picture."""
    crop_at: tuple[float, float] = (0.0, 0.0)
    """Where it lies, down and right, in [0, 1): a part of the room it has."""
    pad: int = 0
    """Pixels added on every side before the crop."""
    resize_HW: tuple[int, int] | None = None
    """What comes out at the end is brought to this size."""

    @property
    def is_affine(self) -> bool:
        """Whether pixels have to be interpolated."""
        return self.angle_deg != 0 or self.zoom != 1

    def matrix(self, size_HW: tuple[int, int]) -> np.ndarray:
        """(2, 3): old pixel coordinates -> new ones."""
        cx, cy = (size_HW[1] - 1) / 2, (size_HW[0] - 1) / 2
        # y points down, so a counter-clockwise turn has the sine's sign flipped
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        a, b = self.zoom * cos, self.zoom * sin
        return np.array([[a, b, cx - a * cx - b * cy], [-b, a, cy + b * cx - a * cy]])

    def window(self, size_HW: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is kept, in pixels of the picture before it was padded."""
        whole_HW = tuple(side + 2 * self.pad for side in size_HW)
        height, width = self.crop_HW or whole_HW
        top, left = (
            int(part * (whole - kept + 1)) - self.pad
            for part, whole, kept in zip(self.crop_at, whole_HW, (height, width), strict=True)
        )
        return top, left, height, width


def sample_geometry(augment: AugmentSpec, rng: np.random.Generator) -> Geometry:
    """Draws one set; always the same number of random values, so that keys do not shift each other's luck."""
    flips, angle, zoom = rng.random(2), rng.uniform(-1, 1), rng.random()
    crop_at = (0.0, 0.0)
    if augment.crop is not None:  # from a stream of its own: what is drawn after this must not change
        crop_at = tuple(rng.spawn(1)[0].random(2).tolist())
    low, high = math.log(augment.zoom[0]), math.log(augment.zoom[1])
    return Geometry(
        hflip=bool(flips[0] < augment.hflip),
        vflip=bool(flips[1] < augment.vflip),
        angle_deg=angle * augment.rotate,
        zoom=math.exp(low + zoom * (high - low)),
        divide_depth=augment.zoom_depth == "divide",
        crop_HW=augment.crop,
        crop_at=crop_at,
        pad=augment.pad,
        resize_HW=augment.resize,
    )


def apply_geometry(sample: Sample, geometry: Geometry, tasks: Mapping[str, Task]) -> Sample:
    """The moved sample; the one given is not changed."""
    size_HW = (sample.image.shape[0], sample.image.shape[1])
    image = sample.image
    if geometry.hflip or geometry.vflip:
        image = cv2.flip(image, _FLIP_CODE[geometry.hflip, geometry.vflip])
    if geometry.is_affine:
        image = cv2.warpAffine(image, geometry.matrix(size_HW), size_HW[::-1], flags=cv2.INTER_LINEAR)
    image = _cut(image, geometry, size_HW, axis=0, fill=0)
    if geometry.resize_HW is not None:
        image = resize_rgb(image, geometry.resize_HW)
    targets = {name: move_target(t, tasks[name], geometry, size_HW) for name, t in sample.targets.items()}
    return Sample(sample.id, np.ascontiguousarray(image), targets)


def move_target(target: np.ndarray, task: Task, geometry: Geometry, size_HW: tuple[int, int]) -> np.ndarray:
    """One target, by the table of the module's docstring; `size_HW` is the picture's before it is moved."""
    if task.geometry == "none":
        return target
    if task.geometry == "points":
        moved = _move_points(target, task, geometry, size_HW)
    else:
        moved = _move_map(target, task, geometry, size_HW)
    if geometry.resize_HW is not None:
        _, _, *cut_HW = geometry.window(size_HW)
        moved = resize_target(task, moved, (cut_HW[0], cut_HW[1]), geometry.resize_HW)
    return moved


def _move_map(target: np.ndarray, task: Task, geometry: Geometry, size_HW: tuple[int, int]) -> np.ndarray:
    """(H, W) or (C, H, W), without the resizing."""
    fill = FILL[task.type]
    if geometry.is_affine:
        moved = _warp(target, geometry, size_HW, fill)
        if task.type == "edges" and geometry.zoom < 1:
            _keep_thin(_flip(target, geometry, axes=(-1, -2)), moved, geometry.matrix(size_HW))
    else:
        moved = _flip(target, geometry, axes=(-1, -2))
    if task.geometry == "normals":
        moved = _turn_normals(moved, geometry)
    if isinstance(task, Depth) and geometry.divide_depth:
        moved = come_nearer(moved, task.spec, geometry.zoom)
    moved = _cut(moved, geometry, size_HW, axis=moved.ndim - 2, fill=fill)
    return np.ascontiguousarray(moved, dtype=target.dtype)


def come_nearer(depth: np.ndarray, spec: DepthSpec, zoom: float) -> np.ndarray:
    """Distances d become d / zoom, in what the labels hold; 0, which is invalid, stays.

    metric   d / zoom
    inverse  d * zoom
    log16    log(1 + D) / log(2^16) with D / zoom for D: less log(zoom) / log(2^16), but for small D
    """
    if spec.kind == "inverse":
        return depth * np.float32(zoom)
    if spec.kind == "log16":
        base = math.log(2**16) * spec.scale
        return np.log1p(np.expm1(depth.astype(np.float64) * base) / zoom) / base
    return depth / np.float32(zoom)


def _flip(array: np.ndarray, geometry: Geometry, axes: tuple[int, int]) -> np.ndarray:
    if geometry.hflip:
        array = np.flip(array, axes[0])
    if geometry.vflip:
        array = np.flip(array, axes[1])
    return array


def _cut(
    array: np.ndarray, geometry: Geometry, size_HW: tuple[int, int], axis: int, fill: float
) -> np.ndarray:
    """The window of an array whose rows are along `axis` and whose columns are along the next."""
    top, left, height, width = geometry.window(size_HW)
    if geometry.pad:
        around = [
            (geometry.pad, geometry.pad) if n in (axis, axis + 1) else (0, 0) for n in range(array.ndim)
        ]
        array = np.pad(array, around, constant_values=fill)
    top, left = top + geometry.pad, left + geometry.pad
    return array[(slice(None),) * axis + (slice(top, top + height), slice(left, left + width))]


def _warp(target: np.ndarray, geometry: Geometry, size_HW: tuple[int, int], fill: float) -> np.ndarray:
    """Flips and warps (H, W) or (C, H, W), each pixel from the nearest one."""
    from_xy = nearest_sources(geometry, size_HW)
    # class ids as floats: OpenCV moves no 64-bit integers, and ids below 2^24 stay exact
    stored = target.astype(np.float32) if target.dtype == np.int64 else target
    planes = stored.reshape(-1, *size_HW)
    moved = np.empty_like(planes)
    for plane, into in zip(planes, moved, strict=True):
        into[...] = cv2.remap(
            plane, from_xy, np.empty(0), cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
        )
    return moved.reshape(target.shape).astype(target.dtype, copy=False)


@lru_cache(maxsize=2)
def nearest_sources(geometry: Geometry, size_HW: tuple[int, int]) -> np.ndarray:
    """(H, W, 2) int16: for each new pixel, x and y of the nearest old one before flip and warp; outside, no pixel's.

    Computed here, once for all targets: OpenCV's own nearest warp rounds to a 1/32 grid, which moves labels against
    points.
    """
    height, width = size_HW
    inverse = cv2.invertAffineTransform(geometry.matrix(size_HW))
    xs, ys = np.arange(width), np.arange(height)[:, None]
    sources = np.empty((height, width, 2), np.int16)
    for axis, (row, side, is_flipped) in enumerate(
        zip(inverse, (width, height), (geometry.hflip, geometry.vflip), strict=True)
    ):
        place = row[0] * xs + row[1] * ys
        place += row[2]
        np.rint(place, out=place)
        np.clip(place, -1, side, out=place)  # else far ones would wrap around
        sources[..., axis] = side - 1 - place if is_flipped else place
    return sources


def _keep_thin(edge_1HW: np.ndarray, warped_1HW: np.ndarray, matrix: np.ndarray) -> None:
    """Every edge pixel also marks the one it falls on: those are fewer than it, so nothing is torn."""
    ys, xs = np.nonzero(edge_1HW[0] > 0)
    new_x, new_y = (np.rint(row[0] * xs + row[1] * ys + row[2]).astype(int) for row in matrix)
    height, width = warped_1HW.shape[1:]
    inside = (new_x >= 0) & (new_x < width) & (new_y >= 0) & (new_y < height)
    np.maximum.at(warped_1HW[0], (new_y[inside], new_x[inside]), edge_1HW[0, ys[inside], xs[inside]])


def _turn_normals(normals_3HW: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Flips and turns keep the length; only a depth that is divided changes it."""
    x, y, z = normals_3HW
    if geometry.hflip:
        x = -x
    if geometry.vflip:
        y = -y
    if geometry.angle_deg:
        cos, sin = math.cos(math.radians(geometry.angle_deg)), math.sin(math.radians(geometry.angle_deg))
        x, y = cos * x + sin * y, cos * y - sin * x
    if geometry.divide_depth and geometry.zoom != 1:
        z = z * geometry.zoom
        norm = np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
        x, y, z = x / norm, y / norm, z / norm
    return np.stack([x, y, z])


def _move_points(
    points_N3: np.ndarray, task: Task, geometry: Geometry, size_HW: tuple[int, int]
) -> np.ndarray:
    named = bool(getattr(task, "has_names", True))
    held = points_N3[:, 2] > 0 if named else points_N3[:, 2] >= 0  # NaN holds nothing
    height, width = size_HW
    moved = points_N3.copy()
    x, y = points_N3[held, 0].astype(float), points_N3[held, 1].astype(float)
    if geometry.hflip:
        x = width - 1 - x
    if geometry.vflip:
        y = height - 1 - y
    if geometry.is_affine:
        matrix = geometry.matrix(size_HW)
        x, y = (row[0] * x + row[1] * y + row[2] for row in matrix)
    top, left, *kept_HW = geometry.window(size_HW)
    moved[held, 0], moved[held, 1] = x - left, y - top
    outside = held & ~_inside(moved, (kept_HW[0], kept_HW[1]))
    if named:
        moved[outside & (points_N3[:, 2] == 2), 2] = 1  # labelled, no longer visible
        if geometry.hflip:
            moved = moved[task.flip_index]  # type: ignore[attr-defined]  # keypoints have one
        return moved
    if geometry.hflip:
        pairs = np.array(task.flip_index, dtype=moved.dtype)  # type: ignore[attr-defined]  # as above
        moved[held, 2] = pairs[points_N3[held, 2].astype(int)]
    moved[outside] = (0.0, 0.0, -1.0)
    return moved


def _inside(points_N3: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    x, y = points_N3[:, 0], points_N3[:, 1]
    return (x >= -0.5) & (x < size_HW[1] - 0.5) & (y >= -0.5) & (y < size_HW[0] - 0.5)
