"""Makes the set of rendered toy scenes that tasks/toys.yaml declares.

    pip install pybullet
    python tools/make_toys.py data/toys
    perceptkit check toys

PyBullet is a physics engine as a Python package; it brings TinyRenderer, which draws on the CPU, and the
bodies of `pybullet_data`. The tool puts up to ten toys of 21 classes onto a table or the floor of a room,
lets the loose ones fall until they rest, and looks at them twice, from random places and in random light:

    OUT/{train,val,test}/
        rgb/00000.png     the renderer's picture, averaged over 3 x 3 pixels: 128 x 96; nothing casts a shadow
        depth/00000.png   16 bit, metres = value / 256; 0 where there is nothing (beyond the walls)
        normal/00000.png  n = 2 * value / 255 - 1; camera axes x right, y down, z forward; grey where a
                          pixel has no one normal: at borders, creases, parts finer than a pixel, nothing
        seg/00000.png     0 void, 1 floor, 2 wall, 3 table, then the toys in the order of tasks/toys.yaml
        keypoints.json    {id: [[x, y, kind], ...]}: visible corners of cubes and jenga blocks, kind 0, and of
                          the table's top, kind 1; the centre of the first pixel is (0, 0)
        index.json        per frame: room, camera [x, y, z in metres], axes (rows: the camera's x, y
                          and z axis in the room), f in pixels

Labels are those of the ray through a pixel's centre, and exact: classes from the renderer's mask, depth from
its buffer, normals from the differences of inverse depth within the pixel (toy_geometry.py). Normals are
those of the meshes' facets, also where the shading is smooth; on flat parts right to 0.1 degrees, beside a
crease to 6. Toys stand on what carries them to 5 mm; there are no shadows that show it.

The splits have other rooms, made from other random numbers: other arrangements, sizes, colours, light. But
the same 21 kinds of toy, the same meshes and the same 24 floor and wall patterns are in all of them, so a
test score says nothing about toys or rooms of another make. Both frames of a room are in one split. A frame
depends on the seed, its split, its number and the version of pybullet, not on the counts.
OUT appears only when all of it is made. The 1440 frames of the default take 5 minutes of one CPU core.

Licences: PyBullet is under the zlib licence, but `pybullet_data` has none as a whole, and its bodies come
from many places: the duck is Sony's (SCEA Shared Source License 1.0), the bunny looks like Stanford's (not
for commerce), the domino asks for a citation, the files of some robots carry BSD licences, most others say
nothing; lego, jenga and the droid are trade marks. So make the frames where they are needed, for experiments,
and do not pass them on. The package's bicycle (CC BY-SA) is left out.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from doom_geometry import encode_normal
from new_folder import Refusal, new_folder
from PIL import Image
from toy_geometry import (
    RAYS,
    Camera,
    encode_depth,
    inverse_depth,
    look_at,
    middle,
    normals,
    opengl_view,
    tinyrenderer_projection,
    visible_corners,
)
from toy_world import CLASS_ID, ROOM_CLASSES, TABLE, Placed, World

SIZE_HW = (96, 128)
SPLITS = {"train": 1000, "val": 200, "test": 240}
LOOKS = 2  # at every room
ROOMS_PER_FRAME = 8  # at most, before a split is given up
AIMS = 20  # until a room is given up

MIN_DEPTH_M = 0.25
MAX_VOID = 0.3  # share of pixels
MIN_TOY_PX, MIN_TOYS = 25, 2
MIN_BRIGHTNESS = 24  # mean of 255


@dataclass(frozen=True)
class Rays:
    """What the rays of a picture meet, RAYS on a side of a pixel."""

    colour_UV3: np.ndarray
    inverse_UV: np.ndarray
    """1/z, 0 where there is nothing."""
    body_UV: np.ndarray
    """-1 where there is nothing."""
    part_UV: np.ndarray
    """A number for body and link."""


@dataclass(frozen=True)
class Frame:
    """One picture and its labels."""

    image_HW3: np.ndarray
    class_HW: np.ndarray
    depth_HW: np.ndarray
    normal_HW3: np.ndarray
    points: list[tuple[float, float, int]]
    camera: Camera


def main(arguments: list[str] | None = None) -> int:
    """0 when the set is there, 2 when nothing was made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to make, for example data/toys")
    for split, count in SPLITS.items():
        parser.add_argument(
            f"--{split}", type=int, default=count, metavar="N", help=f"frames (default {count})"
        )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        make_set(options.out, {split: getattr(options, split) for split in SPLITS}, options.seed)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


def make_set(out: Path, counts: dict[str, int], seed: int) -> None:
    """Makes all splits; `out` appears when they are complete.

    Raises Refusal where pybullet is missing, `out` holds something, a count or the seed is too small.
    """
    for split, count in counts.items():
        if count < 1:
            raise Refusal(f"--{split} {count}: every split needs at least one frame")
    if seed < 0:
        raise Refusal(f"--seed {seed}: expected 0 or more")
    try:
        import pybullet  # noqa: F401
        import pybullet_data  # noqa: F401
    except ImportError as error:
        raise Refusal(
            f"the frames are rendered by PyBullet, which is not here ({error}):\n  pip install pybullet"
        ) from error
    with new_folder(out) as unfinished:
        for split, count in counts.items():
            make_split(unfinished / split, count, seed)


def make_split(folder: Path, count: int, seed: int) -> None:
    """Writes the first `count` frames of a split, which is named by its folder."""
    points: dict[str, list[tuple[float, float, int]]] = {}
    index: list[dict[str, Any]] = []
    for kind in ("rgb", "depth", "normal", "seg"):
        (folder / kind).mkdir(parents=True)
    for room, frame in frames_of_split(folder.name, count, seed):
        frame_id = f"{len(index):05d}"
        write_pictures(folder, frame_id, frame)
        points[frame_id] = frame.points
        index.append({"id": frame_id, "room": room, **intrinsics_and_pose(frame.camera)})
        if len(index) % 100 == 0 or len(index) == count:
            print(f"{folder.name}: {len(index)} of {count} frames", flush=True)
    if len(index) < count:
        raise Refusal(f"{folder.name} has only {len(index)} of {count} frames; try another --seed")
    (folder / "keypoints.json").write_text(json.dumps(points) + "\n")
    (folder / "index.json").write_text(json.dumps({"frames": index}, indent=1) + "\n")


def write_pictures(folder: Path, frame_id: str, frame: Frame) -> None:
    pictures = {
        "rgb": frame.image_HW3,
        "depth": encode_depth(frame.depth_HW),
        "normal": encode_normal(frame.normal_HW3),
        "seg": frame.class_HW,
    }
    for kind, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / kind / f"{frame_id}.png", optimize=True)


def intrinsics_and_pose(camera: Camera) -> dict[str, Any]:
    return {
        "camera": np.round(camera.position_3, 4).tolist(),
        "axes": np.round(camera.axes_33, 5).tolist(),
        "f": round(camera.focal_px, 3),
    }


def frames_of_split(split: str, count: int, seed: int) -> Iterator[tuple[int, Frame]]:
    """At most `count` frames and the numbers of their rooms; room r depends on seed, split and r only."""
    found = 0
    with tempfile.TemporaryDirectory() as scratch:
        world = World(Path(scratch), seed)
        try:
            for room in range(count * ROOMS_PER_FRAME):
                rng = np.random.default_rng([seed, *split.encode(), room])
                placed = world.furnish(rng)
                for _ in range(LOOKS):
                    frame = look(world, placed, rng)
                    if frame is not None:
                        found += 1
                        yield room, frame
                    if found == count:
                        return
        finally:
            world.close()


def look(world: World, placed: list[Placed], rng: np.random.Generator) -> Frame | None:
    """A labelled picture from a random place, or None where it is not worth keeping."""
    camera = aim(world, placed, rng)
    if camera is None:
        return None
    class_of = world.room | {thing.body: CLASS_ID[thing.toy.name] for thing in placed}
    rays = render(world.engine, camera, rng)
    return label_frame(
        rays, class_of, camera, visible_corners(world.boxes(placed), rays.inverse_UV, rays.body_UV, camera)
    )


def label_frame(
    rays: Rays, class_of: dict[int, int], camera: Camera, points: list[tuple[float, float, int]]
) -> Frame | None:
    """The labels of a picture, or None where a threshold above is not met. class_of: {body: class}."""
    body_HW, inverse_HW = middle(rays.body_UV), middle(rays.inverse_UV)
    class_HW = np.full(body_HW.shape, CLASS_ID["void"], np.uint8)
    for body, class_id in class_of.items():
        class_HW[body_HW == body] = class_id
    toy_px = np.bincount(body_HW[class_HW >= len(ROOM_CLASSES)], minlength=1)
    if (
        rays.inverse_UV.max() > 1 / MIN_DEPTH_M
        or (class_HW == CLASS_ID["void"]).mean() > MAX_VOID
        or (toy_px >= MIN_TOY_PX).sum() < MIN_TOYS
        or rays.colour_UV3.mean() < MIN_BRIGHTNESS
    ):
        return None
    height, width = camera.size_HW
    cells = rays.colour_UV3.reshape(height, RAYS, width, RAYS, 3)
    return Frame(
        image_HW3=cells.mean(axis=(1, 3)).round().astype(np.uint8),
        class_HW=class_HW,
        depth_HW=np.divide(1, inverse_HW, out=np.zeros(class_HW.shape), where=inverse_HW > 0),
        normal_HW3=normals(rays.inverse_UV, rays.part_UV, camera),
        points=points,
        camera=camera,
    )


def aim(world: World, placed: list[Placed], rng: np.random.Generator) -> Camera | None:
    """A camera inside the room that looks at the toys from above; None where the room is too small for it."""
    toys = [thing for thing in placed if thing.toy is not TABLE]
    if not toys:
        return None
    middle_3 = np.median([world.centre(thing) for thing in toys], axis=0)
    for _ in range(AIMS):
        target_3 = middle_3 + rng.normal(0, 0.08, 3)
        azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(12, 60))
        level_2 = math.cos(elevation) * np.array([math.cos(azimuth), math.sin(azimuth)])
        position_3 = target_3 + rng.uniform(0.7, 1.7) * np.array([*level_2, math.sin(elevation)])
        roll, view_deg = math.radians(rng.normal(0, 3)), rng.uniform(38, 56)
        if np.linalg.norm(position_3[:2]) < world.half_room_m - 0.1:  # the circle in the square
            focal_px = SIZE_HW[0] / 2 / math.tan(math.radians(view_deg) / 2)
            return look_at(position_3, target_3, roll, SIZE_HW, focal_px)
    return None


def render(engine: Any, camera: Camera, rng: np.random.Generator) -> Rays:
    """A picture in random light, on a background of a random colour."""
    ambient = float(rng.uniform(0.4, 0.7))
    height, width = (RAYS * side for side in camera.size_HW)
    _, _, colour, buffer, mask = engine.getCameraImage(
        width,
        height,
        opengl_view(camera),
        tinyrenderer_projection(camera),
        lightDirection=[*map(float, rng.normal(0, 1, 2)), float(rng.uniform(0.8, 2.0))],
        lightColor=rng.uniform(0.85, 1.0, 3).tolist(),
        shadow=0,  # its shadow map has too few pixels: stripes on every surface, or no shadow
        lightAmbientCoeff=ambient,
        lightDiffuseCoeff=float(rng.uniform(0.3, 1.0 - ambient / 2)),
        lightSpecularCoeff=float(rng.uniform(0.0, 0.15)),
        renderer=engine.ER_TINY_RENDERER,
        flags=engine.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX,
    )
    part_UV = np.reshape(mask, (height, width)).astype(np.int64)
    nothing_UV = part_UV < 0
    colour_UV3 = np.reshape(colour, (height, width, 4))[..., :3].astype(np.float64)
    colour_UV3[nothing_UV] = rng.uniform(40, 255, 3)
    return Rays(
        colour_UV3=colour_UV3,
        inverse_UV=np.where(nothing_UV, 0.0, inverse_depth(np.reshape(buffer, (height, width)))),
        body_UV=np.where(nothing_UV, -1, part_UV & 0xFFFFFF),  # the link is in the bits above
        part_UV=part_UV,
    )


if __name__ == "__main__":
    sys.exit(main())
