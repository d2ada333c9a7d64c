"""Makes the set of game-engine frames that tasks/doom.yaml declares.

    pip install vizdoom
    python tools/make_doom.py data/doom
    perceptkit check doom

ViZDoom is the Doom engine as a Python package; it brings Freedoom, two campaigns of hand-made levels. The
tool puts a player near the places where a level's monsters and items start, looks in a random direction and
keeps what it sees:

    OUT/{train,val,test}/
        rgb/00000.png     the engine's picture, averaged over 4 x 4 pixels: 128 x 96
        depth/00000.png   16 bit, metres = value / 256; 0 is the sky. 32 map units count as one metre
        normal/00000.png  n = 2 * value / 255 - 1; camera axes x right, y down, z forward; grey is the sky
        seg/00000.png     0 void, 1 wall, 2 floor, 3 ceiling, 4 sky, 5 door, 6 liquid, 7 step, 8 switch,
                          9 monster, 10 item, 11 decoration
        keypoints.json    {id: [[x, y, kind], ...]}: visible wall corners, kind 0 at a floor, 1 at a ceiling;
                          the centre of the first pixel is (0, 0)
        index.json        per frame: wad, map, camera [x, y, z in map units, angle in degrees], fx, fy in pixels

The engine's own depth has 8 bits, so depth, normals and the classes of structures are ray-cast from the map,
with the heights that doors and lifts have at that moment (doom_geometry.py). Monsters, items and decorations
come from the engine's label buffer, as flat boards that face the camera. A frame is kept only if ray-cast and
engine depth order its pixels alike (Spearman's rho > 0.93), which drops the few places where a level plays
tricks. Not labelled: grates and fences; the labels show what is behind them.

No map is in two splits. --levels freedoom2 and --levels freedoom1 keep the campaigns apart: the same things in other
places, a domain each. The first has the val and test splits of the default. The files depend on the seed, the counts,
the levels and the version of vizdoom, on nothing else.
OUT appears only when all of it is made. The 2280 frames of the default take 4 minutes of one CPU core.

Licences: the frames show Freedoom (https://freedoom.github.io), three-clause BSD; whoever passes frames on
passes its text on (tests/fixtures/doom/LICENSE). ViZDoom is under the MIT licence, the ZDoom engine inside it
under several; nothing of either is in the frames.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from doom_geometry import CLASS_ID, Camera, Labels, Level, Wad, corners, encode_depth, encode_normal, raycast
from new_folder import Refusal, new_folder
from PIL import Image

SIZE_HW = (96, 128)
SUPERSAMPLING = 4  # the engine renders 512 x 384
PIXEL_ASPECT = 1.2  # the game's pixels are 1.2 times as high as wide


def _episodes(*episodes: int) -> list[tuple[str, str]]:
    return [("freedoom1.wad", f"e{episode}m{number}") for episode in episodes for number in range(1, 10)]


def _levels(*numbers: int) -> list[tuple[str, str]]:
    return [("freedoom2.wad", f"map{number:02d}") for number in numbers]


HELD_OUT = {"val": _levels(21, 22, 23, 24), "test": _levels(25, 26, 27, 28, 29)}
SPLIT_MAPS = {
    "both": {"train": _levels(*range(1, 21)) + _episodes(1, 2, 3, 4), **HELD_OUT},
    "freedoom2": {"train": _levels(*range(1, 21)), **HELD_OUT},
    "freedoom1": {"train": _episodes(1, 2), "val": _episodes(3), "test": _episodes(4)},
}
"""By campaign, then by split: (file, map)."""

ATTEMPTS_PER_FRAME = 8
MAX_OFFSET_UNITS = 96  # from the start of a thing
MAX_VOID = 0.02  # share of pixels: more means that the player stands outside the level
MIN_FARTHEST_UNITS = 160  # something is 5 m away or more
MIN_MEDIAN_DEPTH_UNITS = 48  # half of the picture is 1.5 m away or more
MIN_BRIGHTNESS = 24  # mean of 255
MIN_RANK_CORRELATION = 0.93

HIDDEN = ("hud", "weapon", "crosshair", "decals", "particles", "messages", "corpses", "screen_flashes")
QUIET = (
    "+sv_cheats 1 +vid_fps 0 +con_midtime 0 +con_notifytime 0 +show_messages 0 +cl_showsecretmessage 0 "
    "+snd_musicvolume 0"
)
CHEATS = ("god", "notarget", "freeze")  # nobody dies, wakes or moves
ITEM_CATEGORIES = {"Health", "Armor", "Ammo", "Weapon", "Key", "Powerup", "Item"} | {
    "Pickup",
    "HealthPickup",
    "ArmorPickup",
    "AmmoPickup",
    "Backpack",
}
GORE_CATEGORIES = {"Gore", "Gibs"}


@dataclass(frozen=True)
class Frame:
    """One picture and its labels."""

    image_HW3: np.ndarray
    labels: Labels
    points: list[tuple[float, float, int]]
    camera: Camera


def main(arguments: list[str] | None = None) -> int:
    """0 when the set is there, 2 when nothing was made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to make, for example data/doom")
    for split, count in (("train", 1800), ("val", 240), ("test", 240)):
        parser.add_argument(
            f"--{split}", type=int, default=count, metavar="N", help=f"frames (default {count})"
        )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--levels", choices=list(SPLIT_MAPS), default="both", help="of which campaign (default: both)"
    )
    options = parser.parse_args(arguments)
    try:
        maps = SPLIT_MAPS[options.levels]
        make_set(options.out, {split: getattr(options, split) for split in maps}, options.seed, maps)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


def make_set(out: Path, counts: dict[str, int], seed: int, maps: dict[str, list[tuple[str, str]]]) -> None:
    """Makes all splits of these maps; `out` appears when they are complete.

    Raises Refusal where vizdoom is missing, `out` holds something, a count is not positive, or the maps of a
    split do not give enough frames.
    """
    for split, count in counts.items():
        if count < 1:
            raise Refusal(f"--{split} {count}: every split needs at least one frame")
    try:
        import vizdoom  # noqa: F401
    except ImportError as error:
        raise Refusal(
            f"the frames are made by ViZDoom, which is not here ({error}):\n  pip install vizdoom"
        ) from error
    with new_folder(out) as unfinished:
        for split, count in counts.items():
            make_split(unfinished / split, maps[split], count, seed)


def make_split(folder: Path, maps: list[tuple[str, str]], count: int, seed: int) -> None:
    """Writes `count` frames, as evenly from `maps` as they give them."""
    points: dict[str, list[tuple[float, float, int]]] = {}
    index: list[dict[str, Any]] = []
    for kind in ("rgb", "depth", "normal", "seg"):
        (folder / kind).mkdir(parents=True)
    for place, (wad, map_name) in enumerate(maps):
        quota = math.ceil((count - len(index)) / (len(maps) - place))
        for frame in frames_of_map(wad, map_name, quota, seed):
            frame_id = f"{len(index):05d}"
            write_pictures(folder, frame_id, frame)
            points[frame_id] = frame.points
            index.append({"id": frame_id, "wad": wad, "map": map_name, **intrinsics_and_pose(frame.camera)})
        print(f"{folder.name}: {len(index)} of {count} frames, after {map_name} of {wad}", flush=True)
    if len(index) < count:
        raise Refusal(
            f"the {len(maps)} maps of {folder.name} give only {len(index)} of {count} frames; ask for fewer"
        )
    (folder / "keypoints.json").write_text(json.dumps(points) + "\n")
    (folder / "index.json").write_text(json.dumps({"frames": index}, indent=1) + "\n")


def write_pictures(folder: Path, frame_id: str, frame: Frame) -> None:
    pictures = {
        "rgb": frame.image_HW3,
        "depth": encode_depth(frame.labels.depth_HW),
        "normal": encode_normal(frame.labels.normal_HW3),
        "seg": frame.labels.class_HW,
    }
    for kind, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / kind / f"{frame_id}.png", optimize=True)


def intrinsics_and_pose(camera: Camera) -> dict[str, Any]:
    x, y, z = camera.position_3
    pose = [round(x, 2), round(y, 2), round(z, 2), round(math.degrees(camera.angle), 2)]
    return {"camera": pose, "fx": round(camera.fx, 3), "fy": round(camera.fy, 3)}


def frames_of_map(wad: str, map_name: str, count: int, seed: int) -> Iterator[Frame]:
    """At most `count` frames of one map; they depend on the map and the seed, not on other maps."""
    import vizdoom

    if count < 1:
        return
    wad_path = Path(vizdoom.__file__).parent / wad
    level = Wad(wad_path).level(map_name)
    rng = np.random.default_rng([seed, *f"{wad}/{map_name}".encode()])
    with tempfile.TemporaryDirectory() as scratch:
        game = open_game(wad_path, map_name, seed, scratch)
        try:
            found = 0
            for _ in range(count * ATTEMPTS_PER_FRAME):
                frame = look_somewhere(game, level, rng)
                if frame is not None:
                    found += 1
                    yield frame
                if found == count:
                    return
        finally:
            game.close()


def open_game(wad_path: Path, map_name: str, seed: int, scratch: str) -> Any:
    """A running game without window, sound, weapon or text, its own files in `scratch`."""
    import vizdoom

    variable = vizdoom.GameVariable
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(wad_path))
    game.set_doom_config_path(str(Path(scratch, "engine.ini")))
    game.set_doom_map(map_name)
    game.set_seed(seed + 1)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_512X384)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    game.set_sectors_info_enabled(True)
    for name in HIDDEN:
        getattr(game, f"set_render_{name}")(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)  # the game waits for us: no frame depends on the machine's speed
    game.set_episode_timeout(10**6)
    game.set_doom_skill(4)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    game.set_available_game_variables(
        [
            variable.CAMERA_POSITION_X,
            variable.CAMERA_POSITION_Y,
            variable.CAMERA_POSITION_Z,
            variable.CAMERA_ANGLE,
            variable.CAMERA_FOV,
        ]
    )
    game.add_game_args(QUIET)
    started_in = os.getcwd()
    os.chdir(scratch)  # the engine leaves a folder where it starts
    try:
        game.init()
    finally:
        os.chdir(started_in)
    settle(game)
    return game


def settle(game: Any) -> None:
    """Cheats on, and a few steps until their messages are gone."""
    for cheat in CHEATS:
        game.send_game_command(cheat)
    game.advance_action(5)


def look_somewhere(game: Any, level: Level, rng: np.random.Generator) -> Frame | None:
    """A frame from a random place, or None where it is not worth keeping."""
    x, y = level.things_T2[rng.integers(len(level.things_T2))] + rng.uniform(-1, 1, 2) * MAX_OFFSET_UNITS
    turn_deg = float(rng.uniform(-170, 170))
    game.send_game_command(f"warp {x:.0f} {y:.0f}")
    game.make_action([turn_deg], 2)
    game.make_action([0.0], 3)
    state = None if game.is_episode_finished() else game.get_state()
    if state is None:  # the place was an exit
        game.new_episode()
        settle(game)
        return None
    if any(thing.object_category in GORE_CATEGORIES for thing in state.labels):
        return None
    return label_frame(state, level)


def label_frame(state: Any, level: Level) -> Frame | None:
    """Labels of the engine's current picture, or None where one of the thresholds above is not met."""
    camera = read_camera(state.game_variables)
    floor_S = np.array([sector.floor_height for sector in state.sectors])
    ceiling_S = np.array([sector.ceiling_height for sector in state.sectors])
    labels = raycast(level, floor_S, ceiling_S, camera)
    solid_HW = labels.depth_HW > 0
    if (labels.class_HW == CLASS_ID["void"]).mean() > MAX_VOID or not solid_HW.any():
        return None
    if (
        labels.depth_HW.max() < MIN_FARTHEST_UNITS
        or np.median(labels.depth_HW[solid_HW]) < MIN_MEDIAN_DEPTH_UNITS
    ):
        return None
    if state.screen_buffer.mean() < MIN_BRIGHTNESS:
        return None
    centre = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    engine_depth_HW, thing_HW = state.depth_buffer[centre, centre], state.labels_buffer[centre, centre]
    compared_HW = solid_HW & (thing_HW == 0)
    if (
        not rank_correlation(engine_depth_HW[compared_HW], labels.depth_HW[compared_HW])
        > MIN_RANK_CORRELATION
    ):
        return None
    paint_things(labels, state.labels, thing_HW, camera)
    height, width = SIZE_HW
    image = Image.fromarray(state.screen_buffer).resize((width, height), Image.Resampling.BOX)
    points = corners(level, floor_S, ceiling_S, camera, labels.depth_HW)
    return Frame(np.asarray(image), labels, points, camera)


def read_camera(variables: np.ndarray) -> Camera:
    x, y, z, angle_deg, field_of_view_deg = map(float, variables)
    fx = SIZE_HW[1] / 2 / math.tan(math.radians(field_of_view_deg) / 2)
    return Camera((x, y, z), math.radians(angle_deg), SIZE_HW, fx, fx * PIXEL_ASPECT)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho; 0 where there is too little to say."""
    if len(a) < 50 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def paint_things(labels: Labels, things: list[Any], thing_HW: np.ndarray, camera: Camera) -> None:
    """Monsters, items and decorations, at the depth of their centres."""
    for thing in things:
        if thing.object_name == "DoomPlayer":
            continue
        position_2 = np.array([thing.object_position_x, thing.object_position_y])
        depth = float((position_2 - camera.position_3[:2]) @ camera.forward_2)
        if depth > 1:
            class_id = thing_class(thing.object_name, thing.object_category)
            labels.paint_board(thing_HW == thing.value, depth, class_id)


def thing_class(name: str, category: str) -> int:
    """The class of an object from the engine's name and category for it."""
    if category == "Monster":
        return CLASS_ID["monster"]
    if category in ITEM_CATEGORIES or any(part in name for part in ("Card", "Skull", "Bonus")):
        return CLASS_ID["item"]
    return CLASS_ID["decoration"]


if __name__ == "__main__":
    sys.exit(main())
