"""A scene's picture and its exact labels.

Every pixel's label is what the ray through its centre hits. The picture is smoothed where surfaces meet: four
rays per pixel there, one elsewhere.

Shapes: H W pixels, R rays, N = len(SCENE_KEYPOINTS).
"""

from dataclasses import dataclass

import numpy as np

from perceptkit.data.scenes.layout import Camera, Layout, sample_layout
from perceptkit.data.scenes.styles import STYLES, Shading
from perceptkit.data.scenes.textures import albedo
from perceptkit.data.scenes.trace import ROOM, Hits, in_light, squared_length, trace
from perceptkit.spec.scene_labels import SCENE_CLASSES, SCENE_KEYPOINTS
from perceptkit.spec.tasks_file import Style

CLASS_OF_FACE = np.array(
    [SCENE_CLASSES.index(n) for n in ("wall", "wall", "ceiling", "floor", "wall", "wall")]
)
FAR_CORNERS = {"left_floor": (-1, 0), "right_floor": (1, 0), "left_ceiling": (-1, 1), "right_ceiling": (1, 1)}
"""Side, and whether at the ceiling."""
INVISIBLE, VISIBLE = 1, 2
SUB_PIXELS = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])
LIGHT_REACH_M = 6.0
"""Distance at which the lamp has half of its strength."""


@dataclass(frozen=True)
class Scene:
    """One rendered scene."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    segmentation: np.ndarray
    """(H, W) uint8, indices of SCENE_CLASSES."""
    depth_m: np.ndarray
    """(H, W) float32 along the optical axis."""
    normals: np.ndarray
    """(3, H, W) float32, unit, towards the camera; axes x right, y down, z forward."""
    edges: np.ndarray
    """(H, W) uint8, 1 where a surface ends (occlusion) or bends (crease): on the nearer of two pixels."""
    keypoints: np.ndarray
    """(N, 3) float32 x, y in pixels and visibility: 1 out of sight, 2 visible."""
    room: int
    """Index of SCENE_TYPES."""


def render_scene(
    seed: int, index: int, size_HW: tuple[int, int] = (64, 64), style: Style = "studio"
) -> Scene:
    """The scene of (seed, index): the same labels in every style, the same room at every size.

    Args:
        seed: of the set of scenes.
        index: within it.
        size_HW: picture size in pixels.
        style: studio, dusk, sketch or thermal.
    """
    layout = sample_layout(np.random.default_rng([seed, index]))
    return render_layout(
        layout, size_HW, style, np.random.default_rng([seed, index, 1 + list(STYLES).index(style)])
    )


def render_layout(layout: Layout, size_HW: tuple[int, int], style: Style, rng: np.random.Generator) -> Scene:
    """What a layout's camera sees.

    Args:
        layout: the room; its camera may mirror, but its axes have to be orthonormal for unit normals.
        size_HW: picture size in pixels.
        style: studio, dusk, sketch or thermal.
        rng: of the style's noise.
    """
    camera = layout.camera
    pixel_R2 = np.stack(np.meshgrid(np.arange(size_HW[1]), np.arange(size_HW[0])), axis=-1).reshape(-1, 2)
    ray_R3 = world_rays(camera, pixel_R2, size_HW)
    hits = trace(layout, camera.position_3, ray_R3)
    depth_HW = hits.distance_R.reshape(size_HW)  # rays have length 1 along the optical axis
    edges_HW = surface_edges(hits.surface_R.reshape(size_HW), depth_HW)
    solid_class = np.array([SCENE_CLASSES.index(solid.kind) for solid in layout.solids], dtype=int)
    of_room = hits.solid_R == ROOM
    classes_R = np.where(of_room, CLASS_OF_FACE[hits.face_R], solid_class[hits.solid_R])
    shading = shade(layout, hits, ray_R3, edges_HW, size_HW)
    look = STYLES[style](shading, rng)
    return Scene(
        image=np.rint(look).astype(np.uint8),
        segmentation=classes_R.reshape(size_HW).astype(np.uint8),
        depth_m=depth_HW.astype(np.float32),
        normals=(hits.normal_R3 @ camera.to_world_33).T.reshape(3, *size_HW).astype(np.float32),
        edges=edges_HW.astype(np.uint8),
        keypoints=keypoints(layout, size_HW),
        room=layout.room,
    )


def world_rays(camera: Camera, pixel_R2: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """(R, 3) rays through pixels (x, y), of length 1 along the optical axis."""
    x, y = ((pixel_R2 - axis_px(camera, size_HW)) / focal_px(camera, size_HW)).T
    return (camera.to_world_33 @ np.stack([x, y, np.ones(len(x))])).T


def axis_px(camera: Camera, size_HW: tuple[int, int]) -> np.ndarray:
    """(2,) x, y of the pixel on the optical axis."""
    height, width = size_HW
    right, down = camera.shift
    return np.array([(width - 1) / 2 + right * width, (height - 1) / 2 + down * height])


def focal_px(camera: Camera, size_HW: tuple[int, int]) -> np.ndarray:
    """(2,) focal lengths in pixels, horizontal and vertical."""
    return camera.focal * size_HW[1] * np.array([1.0, camera.stretch])


def surface_edges(surface_HW: np.ndarray, depth_HW: np.ndarray) -> np.ndarray:
    """(H, W) bool: of two neighbours on different surfaces, the nearer one; the left or upper where equal."""
    edges = np.zeros(surface_HW.shape, dtype=bool)
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        differ = surface_HW[first] != surface_HW[second]
        first_nearer = depth_HW[first] <= depth_HW[second]
        edges[first] |= differ & first_nearer
        edges[second] |= differ & ~first_nearer
    return edges


def _beside_another(surface_HW: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a neighbour on another surface, on both sides of an edge."""
    beside = np.zeros(surface_HW.shape, dtype=bool)
    across, down = surface_HW[:, 1:] != surface_HW[:, :-1], surface_HW[1:] != surface_HW[:-1]
    beside[:, 1:] |= across
    beside[:, :-1] |= across
    beside[1:] |= down
    beside[:-1] |= down
    return beside


def keypoints(layout: Layout, size_HW: tuple[int, int]) -> np.ndarray:
    """(N, 3) where the far corners of the room and the sphere's centre are, and whether the camera sees them."""
    width, height, length = layout.size_3
    points = np.zeros((len(SCENE_KEYPOINTS), 3), dtype=np.float32)
    points[:, 2] = INVISIBLE
    for name, (side, at_ceiling) in FAR_CORNERS.items():
        corner = np.array([side * width / 2, -height * at_ceiling, length])
        points[SCENE_KEYPOINTS.index(name)] = _seen(layout, corner, ROOM, size_HW)
    for number, solid in enumerate(layout.solids):
        if solid.kind == "sphere":
            points[SCENE_KEYPOINTS.index("ball")] = _seen(layout, solid.centre_3, number, size_HW)
    return points


def _seen(
    layout: Layout, point_3: np.ndarray, solid: int, size_HW: tuple[int, int]
) -> tuple[float, float, int]:
    """Pixel position of a point of a solid (or of the room), and whether nothing else is in front of it."""
    camera = layout.camera
    ray_3 = point_3 - camera.position_3
    x, y, z = ray_3 @ camera.to_world_33
    if z <= 0:
        return 0.0, 0.0, INVISIBLE
    height, width = size_HW
    u, v = np.array([x, y]) / z * focal_px(camera, size_HW) + axis_px(camera, size_HW)
    inside = -0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5
    first = trace(layout, camera.position_3, ray_3[None]).solid_R[0]
    return u, v, VISIBLE if inside and first == solid else INVISIBLE


def shade(
    layout: Layout, hits: Hits, ray_R3: np.ndarray, edges_HW: np.ndarray, size_HW: tuple[int, int]
) -> Shading:
    """Albedo, light and heat of every pixel; those at edges are the mean of four sub-pixels."""
    buffers_6R = _shade_rays(layout, hits, ray_R3, size_HW)
    across_HW = _beside_another(hits.surface_R.reshape(size_HW))
    ys, xs = np.nonzero(across_HW)
    pixel_R2 = (np.stack([xs, ys], axis=1)[:, None] + SUB_PIXELS).reshape(-1, 2)
    sub_ray_R3 = world_rays(layout.camera, pixel_R2, size_HW)
    sub_hits = trace(layout, layout.camera.position_3, sub_ray_R3)
    means = _shade_rays(layout, sub_hits, sub_ray_R3, size_HW).reshape(6, -1, len(SUB_PIXELS)).mean(2)
    buffers_6R[:, across_HW.ravel()] = means
    *albedo_3HW, direct, gloss, heat = buffers_6R.reshape(6, *size_HW)
    return Shading(np.stack(albedo_3HW, axis=-1), direct, gloss, heat, edges_HW)


def dot(a_R3: np.ndarray, b_R3: np.ndarray) -> np.ndarray:
    """(R,)."""
    (ax, ay, az), (bx, by, bz) = a_R3.T, b_R3.T
    product: np.ndarray = ax * bx + ay * by + az * bz
    return product


def _shade_rays(layout: Layout, hits: Hits, ray_R3: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """(6, R): albedo RGB, direct light, gloss, heat."""
    camera = layout.camera
    ray_m_R = np.sqrt(squared_length(ray_R3))
    point_R3 = camera.position_3 + hits.distance_R[:, None] * ray_R3
    to_light = layout.light_3 - point_R3
    light_m_R = np.sqrt(squared_length(to_light))
    to_light /= light_m_R[:, None]
    to_camera = ray_R3 / -ray_m_R[:, None]
    half = to_light + to_camera
    gloss = np.maximum(dot(hits.normal_R3, half), 0) ** 2 / np.maximum(squared_length(half), 1e-12)
    pixel_m = hits.distance_R / (camera.focal * size_HW[1]) / np.maximum(dot(hits.normal_R3, to_camera), 0.1)
    lit = in_light(layout, point_R3) / (1 + (light_m_R / LIGHT_REACH_M) ** 2)
    shiny = hits.solid_R != ROOM
    result = np.empty((6, len(ray_R3)))
    result[3] = lit * np.maximum(dot(hits.normal_R3, to_light), 0)
    result[4] = np.where(shiny, lit * gloss**20, 0)
    for number in range(-len(layout.faces), len(layout.solids)):
        if number < 0:
            material = layout.faces[number]
            rays = np.flatnonzero((hits.solid_R == ROOM) & (hits.face_R == number + len(layout.faces)))
        else:
            material = layout.solids[number].material
            rays = np.flatnonzero(hits.solid_R == number)
        if len(rays):
            result[:3, rays] = albedo(material, hits.uv_m_R2[rays], pixel_m[rays])
            result[5, rays] = material.heat
    return result
