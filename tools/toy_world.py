"""Rooms with toys in PyBullet: which toys there are and how they are put down.

The toys are bodies of the package `pybullet_data`. Those that are fixed (robots, shelf, tray, stool) stand
upright without touching each other; the others are dropped between and onto them and come to rest under
gravity. A table is 1.5 x 1 m with its top 0.625 m high; a toy is 5 to 60 cm long.

Shapes: P points, 2 = (x, y), 3 = (x, y, z), z up, in metres.
"""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from toy_geometry import Box
from toy_surfaces import surface, write_sheet


@dataclass(frozen=True)
class Toy:
    """A class of objects."""

    name: str
    files: tuple[str, ...]
    """Of `pybullet_data`, one is chosen: URDF, SDF or OBJ; none for a cylinder."""
    scale: tuple[float, float]
    """Factor of the file's size, smallest and largest."""
    fixed: bool = False
    tint: float = 1.0
    """Its colours are multiplied with a random one whose red, green and blue are at least this."""
    bend: float = 0.0
    """Joints are turned by up to so much, in radians."""
    legs: bool = True
    """The file's collision body reaches down to the feet; otherwise its origin is at their height."""
    half_3: tuple[float, float, float] | None = None
    """Half the sides of the file's body where that is a cuboid; its corners are key points."""


ODD_BLOCKS = tuple(f"random_urdfs/{n:03d}/{n:03d}.urdf" for n in (2, 3, 4, 100, 200, 300))
TOYS = (
    Toy("duck", ("duck_vhacd.urdf",), (1.6, 3.2)),
    Toy("teddy", ("teddy_vhacd.urdf",), (1.6, 3.2), tint=0.15),
    Toy("bunny", ("bunny.obj",), (0.06, 0.12), tint=0.15),
    Toy("soccer ball", ("soccerball.urdf",), (0.12, 0.24)),
    Toy("striped ball", ("sphere2.urdf",), (0.10, 0.22)),
    Toy("mug", ("objects/mug.urdf",), (1.0, 1.8), tint=0.15),
    Toy("tray", ("tray/traybox.urdf",), (0.5, 0.9), fixed=True),
    Toy("cube", ("cube.urdf",), (0.08, 0.18), tint=0.15, half_3=(0.5, 0.5, 0.5)),
    Toy("cylinder", (), (0.8, 1.8), tint=0.15),
    Toy("ring", ("torus/torus_textured.obj",), (0.1, 0.18)),
    Toy("domino", ("domino/domino.urdf",), (2.5, 4.5)),
    Toy("jenga block", ("jenga/jenga.urdf",), (1.0, 2.0), half_3=(0.075, 0.025, 0.015)),
    Toy("lego brick", ("lego/lego.urdf",), (2.5, 5.0), tint=0.15),
    Toy("odd block", ODD_BLOCKS, (0.9, 1.8), tint=0.15),
    Toy("droid", ("r2d2.urdf",), (0.25, 0.42), fixed=True, bend=0.3),
    Toy("race car", ("racecar/racecar.urdf",), (0.6, 0.9), fixed=True),
    Toy("walker", ("quadruped/minitaur.urdf",), (0.5, 0.8), fixed=True),
    Toy("robot dog", ("a1/a1.urdf",), (0.45, 0.7), fixed=True, bend=0.3),
    Toy("robot arm", ("kuka_iiwa/model.urdf", "xarm/xarm6_robot.urdf"), (0.3, 0.42), fixed=True, bend=1.0),
    Toy("shelf", ("kiva_shelf/model.sdf",), (0.16, 0.24), fixed=True),
    Toy("stool", ("table_square/table_square.urdf",), (0.3, 0.5), fixed=True, legs=False),
)
ROOM_CLASSES = ("void", "floor", "wall", "table")
CLASSES = [*ROOM_CLASSES, *(toy.name for toy in TOYS)]
CLASS_ID = {name: index for index, name in enumerate(CLASSES)}
TABLE = Toy("table", ("table/table.urdf",), (1.0, 1.0), fixed=True, tint=0.5, half_3=(0.75, 0.5, 0.025))
TABLE_CENTRE_M, TABLE_TOP_M = 0.6, 0.625

TOY_CORNER, TABLE_CORNER = 0, 1
MIN_TOYS, MAX_TOYS = 5, 10
SETTLE_STEPS = 220  # of 1/240 s
ATTEMPTS = 50
DROP_M = 0.07  # each loose toy starts so much higher than the one before
P_TABLE = 0.65  # otherwise the toys are on the floor
P_OPEN_SIDE = 0.12  # a room without this wall: beyond the floor is nothing
SURFACES = 24
WALL_TINT = 0.55


@dataclass(frozen=True)
class Placed:
    """A body in the world."""

    body: int
    toy: Toy
    scale: float


class World:
    """The engine, without a window. `scratch` holds the room's mesh and its surfaces' pictures."""

    def __init__(self, scratch: Path, seed: int) -> None:
        import pybullet
        import pybullet_data

        self.engine: Any = pybullet
        self.meshes = Path(pybullet_data.getDataPath())
        self.sheet = write_sheet(scratch / "sheet.obj")
        rng = np.random.default_rng([seed, 0xF100])
        self.surfaces = [scratch / f"surface{number}.png" for number in range(SURFACES)]
        for path in self.surfaces:
            Image.fromarray(surface(rng)).save(path)
        self.client = pybullet.connect(pybullet.DIRECT)
        self.room: dict[int, int] = {}
        """The sheets of the room there is now, as {body: class}."""
        self.half_room_m = 0.0

    def close(self) -> None:
        self.engine.disconnect(self.client)

    def furnish(self, rng: np.random.Generator) -> list[Placed]:
        """Everything that stands in a new room, the toys at rest."""
        engine = self.engine
        engine.resetSimulation()
        engine.setGravity(0, 0, -9.81)
        self.room = self.lay_sheets(rng)
        support, height, half_2 = next(iter(self.room)), 0.0, np.array([0.8, 0.8])
        placed: list[Placed] = []
        if rng.random() < P_TABLE:
            placed.append(self.load(TABLE, rng))
            support, height, half_2 = placed[0].body, TABLE_TOP_M, np.array([0.6, 0.4])
        kinds = [TOYS[k] for k in rng.choice(len(TOYS), rng.integers(MIN_TOYS, MAX_TOYS + 1))]
        circles: list[tuple[float, float, float]] = []
        for toy in sorted(kinds, key=lambda toy: not toy.fixed):
            thing = self.load(toy, rng)
            radius = self.radius(thing.body)
            reach = radius if toy.fixed else 0.6 * radius  # loose ones may fall onto each other
            spot = free_spot(circles, reach, half_2, rng)
            if spot is None:
                engine.removeBody(thing.body)
                continue
            circles.append((*spot, reach))
            turn = euler(engine, *posture(toy, rng))
            if toy.fixed:
                self.stand(thing, spot, turn, support, height)
            else:
                at = [*spot, height + radius + DROP_M * len(placed)]
                engine.resetBasePositionAndOrientation(thing.body, at, turn)
            placed.append(thing)
        for _ in range(SETTLE_STEPS):
            engine.stepSimulation()
        return placed

    def lay_sheets(self, rng: np.random.Generator) -> dict[int, int]:
        """The floor, which is the first, and most of four walls, as {body: class}."""
        engine = self.engine
        half = self.half_room_m = float(rng.uniform(1.8, 3.0))
        turn = float(rng.uniform(0, 2 * math.pi))
        solid = engine.createCollisionShape(
            engine.GEOM_BOX, halfExtents=[half, half, 0.5], collisionFramePosition=[0, 0, -0.5]
        )
        bodies = {self.lay(solid, (half, half), [0, 0, 0], euler(engine, 0, 0, turn), rng): CLASS_ID["floor"]}
        height = float(rng.uniform(0.45, 0.8))  # half of it
        look = int(rng.integers(SURFACES)), random_tint(WALL_TINT, rng)
        for angle in turn + np.arange(4) * math.pi / 2:
            if rng.random() < P_OPEN_SIDE:
                continue
            # turned about y, the sheet's upper side looks back to the middle of the room
            at, tilt = [half * math.cos(angle), half * math.sin(angle), height], (0, -math.pi / 2, angle)
            wall = self.lay(-1, (height, half), at, euler(engine, *tilt), rng, look)
            bodies[wall] = CLASS_ID["wall"]
        return bodies

    def lay(
        self,
        solid: int,
        half_2: tuple[float, float],
        at: list[float],
        turn: Any,
        rng: np.random.Generator,
        look: tuple[int, list[float]] | None = None,
    ) -> int:
        """A sheet covered with one of the surfaces, tinted; `solid` is what toys hit, -1 for nothing."""
        engine = self.engine
        shape = engine.createVisualShape(engine.GEOM_MESH, fileName=str(self.sheet), meshScale=[*half_2, 1])
        body = engine.createMultiBody(0, solid, shape, at, turn)
        number, colour = look or (int(rng.integers(SURFACES)), random_tint(WALL_TINT, rng))
        texture = engine.loadTexture(str(self.surfaces[number]))
        engine.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=colour)
        return body

    def load(self, toy: Toy, rng: np.random.Generator) -> Placed:
        """A body somewhere, in its size, colour and posture."""
        engine = self.engine
        scale = float(rng.uniform(*toy.scale))
        name = toy.files[rng.integers(len(toy.files))] if toy.files else ""
        path = str(self.meshes / name)
        with quiet():
            if name.endswith(".urdf"):
                body = engine.loadURDF(path, useFixedBase=toy.fixed, globalScaling=scale)
            elif name.endswith(".sdf"):
                body = engine.loadSDF(path, globalScaling=scale)[0]
            else:
                body = self.build(path if name else None, scale, rng)
        if toy.tint < 1:
            engine.changeVisualShape(body, -1, rgbaColor=random_tint(toy.tint, rng))
        for joint in range(engine.getNumJoints(body)):
            bend = float(rng.uniform(-toy.bend, toy.bend))
            about = engine.getJointInfo(body, joint)
            lowest, highest = about[8:10]  # not in order: the joint has no limits
            if about[2] == engine.JOINT_REVOLUTE:
                bend = float(np.clip(bend, lowest, highest)) if lowest < highest else bend
                engine.resetJointState(body, joint, bend)
                engine.setJointMotorControl2(
                    body, joint, engine.POSITION_CONTROL, targetPosition=bend, force=1e4
                )
        # rolling friction: balls and cylinders come to rest
        engine.changeDynamics(body, -1, rollingFriction=0.002, spinningFriction=0.002, restitution=0.0)
        return Placed(body, toy, scale)

    def build(self, mesh: str | None, scale: float, rng: np.random.Generator) -> int:
        """A loose body of a mesh without a URDF, or a cylinder."""
        engine = self.engine
        if mesh is not None:
            form = {"shapeType": engine.GEOM_MESH, "fileName": mesh, "meshScale": [scale] * 3}
            return engine.createMultiBody(
                0.1, engine.createCollisionShape(**form), engine.createVisualShape(**form)
            )
        radius, length = 0.05 * scale, float(rng.uniform(0.08, 0.2))
        return engine.createMultiBody(
            0.1,
            engine.createCollisionShape(engine.GEOM_CYLINDER, radius=radius, height=length),
            engine.createVisualShape(engine.GEOM_CYLINDER, radius=radius, length=length),
        )

    def radius(self, body: int) -> float:
        """Of a circle on the floor that holds the body however it is turned about the vertical."""
        boxes = [self.engine.getAABB(body, link) for link in range(-1, self.engine.getNumJoints(body))]
        low_2 = np.min([low[:2] for low, _ in boxes], axis=0)
        high_2 = np.max([high[:2] for _, high in boxes], axis=0)
        return float(np.linalg.norm(high_2 - low_2) / 2)

    def centre(self, thing: Placed) -> np.ndarray:
        """The middle of the box around the body's first link."""
        return np.mean(self.engine.getAABB(thing.body), axis=0)

    def stand(self, thing: Placed, spot: tuple[float, float], turn: Any, support: int, height: float) -> None:
        """Puts a fixed toy onto its support: far above it, then down by what is between."""
        engine, lift = self.engine, 1.0
        engine.resetBasePositionAndOrientation(thing.body, [*spot, height + lift], turn)
        gap = lift
        if thing.toy.legs:
            gap = min(point[8] for point in engine.getClosestPoints(thing.body, support, 2 * lift))
        engine.resetBasePositionAndOrientation(thing.body, [*spot, height + lift - gap], turn)

    def boxes(self, placed: list[Placed]) -> Iterator[Box]:
        """The bodies whose corners are key points, where they are now."""
        for thing in placed:
            if thing.toy.half_3 is None:
                continue
            position, turn = self.engine.getBasePositionAndOrientation(thing.body)
            axes_33 = np.reshape(self.engine.getMatrixFromQuaternion(turn), (3, 3))
            half_3 = np.array(thing.toy.half_3) * thing.scale
            if thing.toy is TABLE:
                yield Box(np.add(position, [0, 0, TABLE_CENTRE_M]), axes_33, half_3, thing.body, TABLE_CORNER)
            else:
                yield Box(np.array(position), axes_33, half_3, thing.body, TOY_CORNER)


def posture(toy: Toy, rng: np.random.Generator) -> tuple[float, float, float]:
    """Roll, pitch and yaw: upright, but half of the loose toys are let go tilted in any way."""
    yaw = float(rng.uniform(0, 2 * math.pi))
    if toy.fixed or rng.random() < 0.5:
        return 0.0, 0.0, yaw
    roll, pitch = map(float, rng.uniform(-math.pi, math.pi, 2))
    return roll, pitch, yaw


def free_spot(
    circles: list[tuple[float, float, float]], radius: float, half_2: np.ndarray, rng: np.random.Generator
) -> tuple[float, float] | None:
    """A place where a circle lies on a rectangle around the origin, beside all others, or None."""
    for _ in range(ATTEMPTS):
        x, y = rng.uniform(-1, 1, 2) * np.maximum(half_2 - radius / 2, 0)
        if all((x - a) ** 2 + (y - b) ** 2 >= (radius + r) ** 2 for a, b, r in circles):
            return float(x), float(y)
    return None


def euler(engine: Any, roll: float, pitch: float, yaw: float) -> Any:
    return engine.getQuaternionFromEuler([float(roll), float(pitch), float(yaw)])


def random_tint(least: float, rng: np.random.Generator) -> list[float]:
    """A colour to multiply with, as [red, green, blue, 1]."""
    return [*map(float, rng.uniform(least, 1.0, 3)), 1.0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The engine warns, past Python, of what the files of its own package lack."""
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            for number, stream in enumerate(kept, start=1):
                os.dup2(stream, number)
                os.close(stream)
