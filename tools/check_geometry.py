"""Augmented scenes against the same scenes rendered anew, with the camera (or the world) moved to match.

    python tools/check_geometry.py                          the table of docs/results.md
    python tools/check_geometry.py --scenes 5 --size 48 64  fewer and smaller ones

A row is one operation, a column one target: the largest error over all scenes and pixels. Depth is in parts of the true
one; segmentation and visibility are counts of pixels and of points that differ; the picture is the mean difference in
grey levels of 0 to 255. Every way to move the camera
is written here by hand, from what the operation means, and not taken from perceptkit/data/geometry.py.

What is left out, because no interpolation can know it:
* pixels that were outside the picture: they have no label after augmentation (column "no label");
* where pixels are interpolated, those that lie within `near_px` of an edge of either picture: the nearest old pixel may
  lie on another surface (column "near edges"). In brackets: how many of them have another class;
* edges, and the picture that is smoothed at them, in the outermost pixel, and in the `near_px` beside it: whether there
  is an edge depends on the neighbour outside, and the nearest edge may have been cut off.

Shapes: H W pixels, N named points.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from perceptkit.data.geometry import Geometry, apply_geometry
from perceptkit.data.sample import Sample
from perceptkit.data.scenes.layout import Camera, Layout, sample_layout
from perceptkit.data.scenes.render import Scene, axis_px, render_layout
from perceptkit.spec.scene_labels import SCENE_CLASSES, SCENE_KEYPOINTS
from perceptkit.spec.tasks_file import TASK_SPECS
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import TASKS

SIZE_HW = (96, 128)
FRAMES = ("camera", "opengl")
OPENGL = np.array([1.0, -1.0, -1.0])
"""y up and z towards the camera: camera axes times this."""
VISIBLE = 2

View = tuple[Layout, tuple[int, int]]
"""A world with its camera, and the size of the picture it takes."""


def mirror_world(view: View) -> View:
    """What a mirror behind the camera shows: every left is a right, and an ordinary camera sees it."""
    layout, size_HW = view
    flip = np.diag([-1.0, 1.0, 1.0])
    camera, faces = layout.camera, layout.faces
    solids = tuple(replace(solid, centre_3=flip @ solid.centre_3, yaw=-solid.yaw) for solid in layout.solids)
    mirrored = replace(
        layout,
        faces=(faces[1], faces[0], *faces[2:]),
        solids=solids,
        light_3=flip @ layout.light_3,
        camera=replace(
            camera, position_3=flip @ camera.position_3, to_world_33=flip @ camera.to_world_33 @ flip
        ),
    )
    return mirrored, size_HW


def turn_upside_down(view: View) -> View:
    """A camera whose y axis points up."""
    return _with_axes(view, np.diag([1.0, -1.0, 1.0]))


def roll(angle_deg: float) -> Callable[[View], View]:
    """A camera rolled clockwise sees the world turn counter-clockwise."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return lambda view: _with_axes(view, np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]))


def longer_lens(scale: float) -> Callable[[View], View]:
    """From the same place."""

    def move(view: View) -> View:
        layout, size_HW = view
        return _with_camera(layout, focal=layout.camera.focal * scale), size_HW

    return move


def press_together(scale: float) -> Callable[[View], View]:
    """The same lens before a world pressed together along its axis: one step ahead is `scale` steps in the room."""
    return lambda view: _with_axes(view, np.diag([1.0, 1.0, scale]))


def window(top: int, left: int, height: int, width: int) -> Callable[[View], View]:
    """A part of the film, or one that reaches beyond it: the optical axis is elsewhere in the picture."""

    def move(view: View) -> View:
        layout, size_HW = view
        x, y = axis_px(layout.camera, size_HW) - [left, top]
        shift = ((x - (width - 1) / 2) / width, (y - (height - 1) / 2) / height)
        focal = layout.camera.focal * size_HW[1] / width
        return _with_camera(layout, focal=focal, shift=shift), (height, width)

    return move


def other_pixels(height: int, width: int) -> Callable[[View], View]:
    """The same film cut into other pixels, which need not be square."""

    def move(view: View) -> View:
        layout, size_HW = view
        stretch = layout.camera.stretch * (height / size_HW[0]) / (width / size_HW[1])
        return _with_camera(layout, stretch=stretch), (height, width)

    return move


def _with_axes(view: View, axes_33: np.ndarray) -> View:
    layout, size_HW = view
    return _with_camera(layout, to_world_33=layout.camera.to_world_33 @ axes_33), size_HW


def _with_camera(layout: Layout, **changes: object) -> Layout:
    camera: Camera = replace(layout.camera, **changes)  # type: ignore[arg-type]
    return replace(layout, camera=camera)


@dataclass(frozen=True)
class Operation:
    """An augmentation, and what the camera or the world does instead."""

    name: str
    geometry: Geometry
    moves: tuple[Callable[[View], View], ...]
    near_px: int = 0
    """How far from an edge nothing can be known; 0 where no pixel is interpolated."""
    pressed: tuple[Callable[[View], View], ...] = ()
    """Further moves for depth and normals: points and the rest do not see them."""


def operations(size_HW: tuple[int, int] = SIZE_HW) -> list[Operation]:
    """The rows of the table."""
    height, width = size_HW
    high, wide = height * 3 // 4, width * 5 // 8  # of the window
    place = {"crop_HW": (high, wide), "crop_at": (0.5, 0.25)}
    top, left = int(0.5 * (height - high + 1)), int(0.25 * (width - wide + 1))
    narrow = (height * 5 // 4, width * 7 // 8)
    pad, padded_HW = 8, (height + 16, width + 16)
    padded_top = int(0.5 * (padded_HW[0] - high + 1)) - pad
    padded_left = int(0.25 * (padded_HW[1] - wide + 1)) - pad
    return [
        Operation("h-flip", Geometry(hflip=True), (mirror_world,)),
        Operation("v-flip", Geometry(vflip=True), (turn_upside_down,)),
        Operation("rotate 90", Geometry(angle_deg=90), (roll(90),), (height - width) % 2),  
        Operation("rotate 15", Geometry(angle_deg=15), (roll(15),), 2),
        Operation("rotate -40", Geometry(angle_deg=-40), (roll(-40),), 2),
        Operation("zoom 1.5", Geometry(zoom=1.5), (longer_lens(1.5),), 3),
        Operation("zoom 0.7", Geometry(zoom=0.7), (longer_lens(0.7),), 2),
        Operation(
            "zoom 1.5, `divide`", Geometry(zoom=1.5, divide_depth=True), (longer_lens(1.5),), 3,
            pressed=(longer_lens(1 / 1.5), press_together(1.5)),
        ),
        Operation("pad 8", Geometry(pad=pad), (window(-pad, -pad, *padded_HW),)),
        Operation(f"crop {high}x{wide}", Geometry(**place), (window(top, left, high, wide),)),  # type: ignore[arg-type]
        Operation(f"resize {narrow[0]}x{narrow[1]}", Geometry(resize_HW=narrow), (other_pixels(*narrow),), 2),
        Operation(
            "all in turn",
            Geometry(True, angle_deg=15, zoom=1.2, pad=pad, resize_HW=narrow, **place),  # type: ignore[arg-type]
            (
                mirror_world, roll(15), longer_lens(1.2),
                window(padded_top, padded_left, high, wide),
                other_pixels(*narrow),
            ),
            4,
        ),
    ]  # fmt: skip


@dataclass
class Errors:
    """The largest of one operation, over scenes; counts are sums, and the picture is a mean."""

    depth: float = 0.0
    """Of the true depth."""
    normals_deg: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FRAMES, 0.0))
    """By the frame in which labels are stored and answers given."""
    classes: int = 0
    """Pixels of another class."""
    classes_near: int = 0
    """The same among those near edges."""
    edges_px: float = 0.0
    """From an edge of either picture to the nearest one of the other."""
    points_px: float = 0.0
    visibility: int = 0
    """Points that are visible in one only, among those that the picture could show."""
    points: int = 0
    """That were compared."""
    picture: float = 0.0
    """Mean over pixels of the difference in grey levels; 255 is black against white."""
    pixels: int = 0
    near: int = 0
    unlabelled: int = 0


def make_tasks() -> dict[str, Task]:
    """One task per column; normals in both frames."""
    declared: dict[str, tuple[dict[str, object], list[str]]] = {
        "seg": ({"type": "segmentation", "classes": SCENE_CLASSES}, SCENE_CLASSES),
        "depth": ({"type": "depth"}, []),
        **{frame: ({"type": "normals", "frame": frame}, []) for frame in FRAMES},
        "edges": ({"type": "edges"}, []),
        "points": ({"type": "keypoints"}, SCENE_KEYPOINTS),
    }
    return {
        name: TASKS[str(spec["type"])](name, TASK_SPECS[str(spec["type"])].model_validate(spec), labels)
        for name, (spec, labels) in declared.items()
    }


def as_sample(scene: Scene, tasks: dict[str, Task]) -> Sample:
    """A scene as a source would give it; normals go through the reader of files in their frame."""
    stored = {"camera": scene.normals, "opengl": scene.normals * OPENGL[:, None, None]}
    targets = {
        "seg": scene.segmentation.astype(np.int64),
        "depth": scene.depth_m[None],
        "edges": scene.edges.astype(np.float32)[None],
        "points": scene.keypoints,
        **{frame: tasks[frame].target_of(stored[frame].transpose(1, 2, 0), frame) for frame in FRAMES},
    }
    return Sample("scene", scene.image, targets)


def compare(layout: Layout, operation: Operation, size_HW: tuple[int, int], tasks: dict[str, Task]) -> Errors:
    """One scene, augmented and rendered anew."""
    before = _render((layout, size_HW))
    moved = apply_geometry(as_sample(before, tasks), operation.geometry, tasks)
    view: View = (layout, size_HW)
    for move in operation.moves:
        view = move(view)
    true = solid = _render(view)
    if operation.pressed:
        for move in operation.pressed:
            view = move(view)
        solid = _render(view)
    assert true.image.shape == moved.image.shape

    errors = Errors()
    known_HW = moved.targets["seg"] >= 0
    edge_HW, true_edge_HW = moved.targets["edges"][0] > 0, true.edges > 0
    near_HW = _within(edge_HW | true_edge_HW, operation.near_px) & known_HW
    far_HW = known_HW & ~near_HW
    errors.pixels, errors.near, errors.unlabelled = known_HW.size, int(near_HW.sum()), int((~known_HW).sum())

    wrong_HW = moved.targets["seg"] != true.segmentation
    errors.classes, errors.classes_near = int((wrong_HW & far_HW).sum()), int((wrong_HW & near_HW).sum())
    off_HW = np.abs(moved.targets["depth"][0] - solid.depth_m) / solid.depth_m
    errors.depth = float(off_HW[far_HW].max(initial=0))
    true_normals = solid.normals / np.linalg.norm(solid.normals, axis=0)
    for frame in FRAMES:
        told = _in_frame(moved.targets[frame], frame, tasks)
        axes = OPENGL if frame == "opengl" else np.ones(3)
        errors.normals_deg[frame] = float(_angle_deg(told, true_normals * axes[:, None, None])[far_HW].max())
    inner_HW = ndimage.binary_erosion(known_HW, np.ones((3, 3)), iterations=1 + operation.near_px)
    errors.edges_px = _edge_distance(edge_HW, true_edge_HW, inner_HW)
    _compare_points(errors, before, moved.targets["points"], true, tasks["points"], operation.geometry)
    differ_HW = np.abs(moved.image.astype(float) - _picture(layout, size_HW, operation)).mean(-1)
    errors.picture = float(differ_HW[inner_HW].mean())
    return errors


def _render(view: View) -> Scene:
    layout, size_HW = view
    return render_layout(layout, size_HW, "studio", np.random.default_rng(0))  # a style without noise


def _picture(layout: Layout, size_HW: tuple[int, int], operation: Operation) -> np.ndarray:
    """The picture rendered anew. A mirror is a camera with its x axis to the left here: textures of a mirrored
    world would not be mirrored."""
    view: View = (layout, size_HW)
    for move in operation.moves:
        view = _with_axes(view, np.diag([-1.0, 1.0, 1.0])) if move is mirror_world else move(view)
    return _render(view).image.astype(float)


def _within(marked_HW: np.ndarray, distance_px: int) -> np.ndarray:
    """(H, W) bool: pixels at most so far from a marked one; none for 0."""
    if distance_px == 0 or not marked_HW.any():
        return np.zeros(marked_HW.shape, dtype=bool)
    far: np.ndarray = ndimage.distance_transform_cdt(~marked_HW, "chessboard") <= distance_px
    return far


def _in_frame(target: np.ndarray, frame: str, tasks: dict[str, Task]) -> np.ndarray:
    """(3, H, W): what a user gets back, in the task's frame."""
    told = tasks[frame].from_camera  # type: ignore[attr-defined]
    turned: np.ndarray = target * told[:, None, None]
    return turned


def _angle_deg(a_3HW: np.ndarray, b_3HW: np.ndarray) -> np.ndarray:
    """Between unit vectors, by the chord: exact for small angles, too."""
    chord = np.linalg.norm(a_3HW.astype(float) - b_3HW, axis=0)
    return np.degrees(2 * np.arcsin((chord / 2).clip(0, 1)))


def _edge_distance(edge_HW: np.ndarray, true_HW: np.ndarray, inner_HW: np.ndarray) -> float:
    """The largest distance from an edge pixel of one picture to the nearest one of the other, both ways."""
    largest = 0.0
    for some, other in ((edge_HW, true_HW), (true_HW, edge_HW)):
        of = some & inner_HW
        if of.any():
            there = ndimage.distance_transform_edt(~other) if other.any() else np.full(of.shape, np.inf)
            largest = max(largest, float(there[of].max()))
    return largest


def _compare_points(
    errors: Errors, before: Scene, moved_N3: np.ndarray, true: Scene, task: Task, geometry: Geometry
) -> None:
    """Places of all points before the camera; whether one is seen only where the old picture could tell."""
    was_N3 = before.keypoints
    if geometry.hflip:
        was_N3 = was_N3[task.flip_index]  # type: ignore[attr-defined]
    exists_N = was_N3[:, :2].any(1)
    height, width = before.depth_m.shape
    x, y = was_N3[:, 0], was_N3[:, 1]
    told_N = exists_N & (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    if exists_N.any():
        off_N = np.linalg.norm(moved_N3[:, :2] - true.keypoints[:, :2], axis=1)
        errors.points_px = float(off_N[exists_N].max())
    errors.points = int(exists_N.sum())
    differ_N = (moved_N3[:, 2] == VISIBLE) != (true.keypoints[:, 2] == VISIBLE)
    errors.visibility = int((differ_N & told_N).sum())


def check(operation: Operation, scenes: int, size_HW: tuple[int, int] = SIZE_HW, seed: int = 0) -> Errors:
    """The errors of one operation over scenes."""
    tasks = make_tasks()
    found = [
        compare(sample_layout(np.random.default_rng([seed, index])), operation, size_HW, tasks)
        for index in range(scenes)
    ]
    total = Errors(
        depth=max(e.depth for e in found),
        normals_deg={frame: max(e.normals_deg[frame] for e in found) for frame in FRAMES},
        edges_px=max(e.edges_px for e in found),
        points_px=max(e.points_px for e in found),
        picture=float(np.mean([e.picture for e in found])),
    )
    for name in ("classes", "classes_near", "visibility", "points", "pixels", "near", "unlabelled"):
        setattr(total, name, sum(getattr(e, name) for e in found))
    return total


HEADER = [
    "operation", "segmentation", "depth", "normals `camera`", "normals `opengl`", "edges", "keypoints",
    "visibility", "picture", "near edges", "no label",
]  # fmt: skip


def row(name: str, errors: Errors) -> list[str]:
    """One line of the table."""
    near = f" ({errors.classes_near / errors.near:.1%})" if errors.near else ""
    return [
        name,
        f"{errors.classes}{near}",
        f"{100 * errors.depth:.2g} %" if errors.depth > 1e-6 else "0",
        *(f"{angle:.2g} deg" if angle > 1e-3 else "0" for angle in errors.normals_deg.values()),
        f"{errors.edges_px:.2g} px" if errors.edges_px else "0",
        f"{errors.points_px:.1g} px" if errors.points_px > 1e-3 else "0",
        str(errors.visibility),
        f"{errors.picture:.2g}" if errors.picture > 0.01 else "0",
        f"{errors.near / errors.pixels:.1%}",
        f"{errors.unlabelled / errors.pixels:.1%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE_HW, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size_HW = (options.size[0], options.size[1])
    print("| " + " | ".join(HEADER) + " |")
    print("|---|" + "---:|" * (len(HEADER) - 1))
    for operation in operations(size_HW):
        errors = check(operation, options.scenes, size_HW, options.seed)
        print("| " + " | ".join(row(operation.name, errors)) + " |", flush=True)


if __name__ == "__main__":
    main()
