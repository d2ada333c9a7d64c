"""Damaged inputs of every reader: told of with file and what to do, or left out and counted, or read rightly.

`pytest tests/data/test_corrupted.py -m slow -q` runs them all. A case writes a small sound set and damages it. Then

    refused   `check` has a problem that names the file, training stops at the same file with a DataError or SpecError
              that says what to do, and where one picture is bad `data.on_bad: skip` leaves out that one alone
    warned    `check` warns of it, and training goes on: the numbers are valid ones
    read      nothing is wrong after all: what is read is compared with what it must be
"""

# ruff: noqa: E501  # a case is a line of the table
import gzip
import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptkit.data.readable import unreadable
from perceptkit.data.sources import open_split
from perceptkit.errors import DataError, PerceptkitError, SpecError
from perceptkit.runtime.pictures import read_picture
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks
from tests.coco_files import change, write_coco
from tests.layout_files import (
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_taskonomy,
)
from tests.listed_files import save as save_listed
from tests.listed_files import write_class_folders, write_decathlon
from tests.packed_files import png, write_parquet, write_shards, write_tar

SIZE_HW = (32, 40)
IDS = ("0", "1", "2")
BAD = "1"
"""The picture that is damaged."""

FOLDER = """\
name: t
data: {source: folder, root: data, image: "rgb/{split}/{id}.png", size: [32, 40]}
tasks:
  seg: {type: segmentation, target: "seg/{split}/{id}.png", classes: 3}
  depth: {type: depth, target: "depth/{split}/{id}.npy"}
  mm: {type: depth, target: "mm/{split}/{id}.png", scale: 1000}
  normals: {type: normals, target: "normals/{split}/{id}.png"}
  vectors: {type: normals, target: "vectors/{split}/{id}.npy", frame: camera}
  edges: {type: edges, target: "edges/{split}/{id}.png"}
  points: {type: keypoints, target: "points/{split}/{id}.json", names: [nose, tail]}
  room: {type: classification, target: "room.csv", classes: [hall, bath]}
"""
JPEG = """\
name: t
data: {source: folder, root: data, image: "rgb/{split}/{id}.jpg", size: [32, 40]}
tasks: {seg: {type: segmentation, target: "seg/{split}/{id}.png", classes: 3}}
"""
LISTED = "name: t\ndata: {source: %s, root: data, size: [32, 40]}\ntasks: {kind: {type: classification}}\n"
CSV = """\
name: t
data: {source: csv, root: data, file: all.csv, image: image, split: part, size: [32, 40]}
tasks: {kind: {type: classification, classes: [oak, elm]}}
"""
ROWS = "image,part,kind\n0.png,train,oak\n1.png,train,elm\n2.png,train,oak\n3.png,val,oak\n4.png,test,elm\n"
COCO = """\
name: t
data: {source: coco, root: data, size: [40, 60]}
tasks:
  seg: {type: segmentation}
  points: {type: keypoints, names: [nose, left_eye, right_eye]}
"""
NYU = """\
name: t
data: {source: nyuv2, root: data, size: [48, 64]}
tasks: {seg: {type: segmentation, classes: 40}, sn: {type: normals}, depth: {type: depth}}
"""
CITY = """\
name: t
data: {source: cityscapes, layout: %s, root: data, size: [32, 64]}
tasks: {seg: {type: segmentation, classes: 19, ignore_index: %s}, depth: {type: depth, unit: %s}}
"""
TASKONOMY = """\
name: t
data: {source: taskonomy, root: data, size: [32, 32]}
tasks: {seg: {type: segmentation, classes: 17}, kp: {type: response, target: keypoints2d}}
"""
SHARDS = """\
name: t
data: {source: webdataset, root: data, shards: "{split}-*.tar", size: [32, 32]}
tasks:
  seg: {type: segmentation, target: seg.png, classes: 3}
  depth: {type: depth, target: depth.npy}
  room: {type: classification, target: "json:room", classes: [bath, hall, attic]}
  number: {type: classification, target: cls, classes: 3}
"""
PARQUET = """\
name: t
data: {source: huggingface, root: data, files: "data/{split}-*.parquet", size: [32, 32]}
tasks:
  seg: {type: segmentation, classes: 3}
  depth: {type: depth}
  room: {type: classification}
  kind: {type: classification, classes: [a, b]}
"""


def write_folder(root: Path, ending: str = "png") -> None:
    """Three pictures a split; no two files of pictures are alike."""
    height, width = SIZE_HW
    for s, split in enumerate(("train", "val", "test")):
        for folder in ("rgb", "seg", "depth", "mm", "normals", "vectors", "edges", "points"):
            (root / folder / split).mkdir(parents=True)
        for i in IDS:
            grey = 40 * int(i) + 10 * s
            Image.fromarray(np.full((height, width, 3), grey, np.uint8)).save(
                root / f"rgb/{split}/{i}.{ending}"
            )
            Image.fromarray(np.full(SIZE_HW, int(i), np.uint8)).save(root / f"seg/{split}/{i}.png")
            np.save(root / f"depth/{split}/{i}.npy", np.full(SIZE_HW, 2.0, np.float32))
            Image.fromarray(np.full(SIZE_HW, 1500, np.uint16)).save(root / f"mm/{split}/{i}.png")
            Image.fromarray(np.full((height, width, 3), (128, 128, 0), np.uint8)).save(
                root / f"normals/{split}/{i}.png"
            )
            np.save(
                root / f"vectors/{split}/{i}.npy", np.full((height, width, 3), (0.0, 0.0, -1.0), np.float32)
            )
            Image.fromarray(np.full(SIZE_HW, 255, np.uint8)).save(root / f"edges/{split}/{i}.png")
            (root / f"points/{split}/{i}.json").write_text('{"nose": [3, 4, 2], "tail": [5, 6, 1]}')
    (root / "room.csv").write_text("id,label\n0,hall\n1,bath\n2,hall\n")


def write_csv(root: Path) -> None:
    for i in range(5):
        save_listed(root / f"{i}.png", 10 * i)
    (root / "all.csv").write_text(ROWS)


SETS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "folder": (FOLDER, write_folder),
    "jpeg": (JPEG, lambda root: write_folder(root, "jpg")),
    "imagefolder": (LISTED % "imagefolder", write_class_folders),
    "decathlon": (LISTED % "decathlon, domain: gtsrb", write_decathlon),
    "csv": (CSV, write_csv),
    "coco": (COCO, write_coco),
    "nyuv2": (NYU, write_nyuv2),
    "cityscapes": (CITY % ("official", 255, "1/m"), write_cityscapes_official),
    "cityscapes_mtan": (CITY % ("mtan", -1, "1/m"), write_cityscapes_mtan),
    "taskonomy": (TASKONOMY, write_taskonomy),
    "webdataset": (SHARDS, write_shards),
    "huggingface": (PARQUET, write_parquet),
}


# what is done to a file


def cut(path: Path, part: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path, words: str = "not what it says\n") -> None:
    path.write_text(words)


def folder_of_its_name(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked(path: Path, to: Path | str) -> None:
    path.unlink()
    path.symlink_to(to)


def picture(path: Path, values: np.ndarray, mode: str | None = None, **how: object) -> None:
    made = Image.fromarray(values)
    (made if mode is None else made.convert(mode)).save(path, **how)


def palette(path: Path) -> None:
    made = Image.fromarray(np.full(SIZE_HW, 1, np.uint8), mode="P")
    made.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    made.save(path)


def huge_header(path: Path, width: int = 60000, height: int = 60000) -> None:
    """A PNG of a few bytes that says it is enormous."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b""))


def scrambled(path: Path) -> None:
    """Bytes in the middle are others; beginning and end are as they were."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(255 - b for b in data[middle : middle + 8])
    path.write_bytes(bytes(data))


def turned(path: Path) -> None:
    """Stored on its side, with the tag that says so; upright it is dark above and bright below."""
    upright = np.zeros((*SIZE_HW, 3), np.uint8)
    upright[SIZE_HW[0] // 2 :] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif, quality=95)


def pickled(path: Path) -> None:
    """An array of objects, whose loading would write a file."""
    np.save(path, np.array([Trap(str(path.with_name("trap")))], dtype=object), allow_pickle=True)


class Trap:
    """Calls `open` when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


def edited_json(path: Path, edit: Callable[[dict], object]) -> None:
    change(path, edit)


@dataclass(frozen=True)
class Case:
    name: str
    on: str
    """Which set."""
    damage: Callable[[Path], object]
    told: str = ""
    """What `check` says, as parts that are all in one of its messages, divided by |."""
    kind: str = "refused"
    skipped: str | None = None
    """The id that `on_bad: skip` leaves out; None where it is not one picture that is bad."""
    holds: Callable[[Path, object], object] | None = None
    """Of cases that are read: asserts on the root and the samples of train."""


RGB, SEG = f"rgb/train/{BAD}.png", f"seg/train/{BAD}.png"
DEPTH, MM = f"depth/train/{BAD}.npy", f"mm/train/{BAD}.png"
NORMALS, VECTORS = f"normals/train/{BAD}.png", f"vectors/train/{BAD}.npy"
EDGES, POINTS = f"edges/train/{BAD}.png", f"points/train/{BAD}.json"
JPG = f"rgb/train/{BAD}.jpg"
GREY = np.arange(32 * 40, dtype=np.uint32).reshape(32, 40)


def bad(name: str, file: str, damage: Callable[[Path], object], told: str, on: str = "folder") -> Case:
    """One file of the folder source, which makes its picture unusable."""
    return Case(name, on, lambda root: damage(root / file), f"{file}|{told}", skipped=BAD)


def odd(name: str, file: str, damage: Callable[[Path], object], told: str, on: str = "folder") -> Case:
    return Case(name, on, lambda root: damage(root / file), f"{file}|{told}", kind="warned")


def fine(
    name: str, file: str, damage: Callable[[Path], object], holds: Callable[[Path, object], object]
) -> Case:
    return Case(
        name,
        "jpeg" if file.endswith(".jpg") else "folder",
        lambda root: damage(root / file),
        kind="read",
        holds=holds,
    )


def of(samples: object, index: int = 1) -> object:
    return samples[index]  # type: ignore[index]


def depth_is(value: float, name: str = "depth") -> Callable[[Path, object], None]:
    def holds(root: Path, samples: object) -> None:
        np.testing.assert_allclose(of(samples).targets[name], value)

    return holds


def image_is(values: np.ndarray, most: int = 0) -> Callable[[Path, object], None]:
    def holds(root: Path, samples: object) -> None:
        gap = of(samples).image.astype(int) - (values if values.ndim == 3 else values[..., None])
        assert np.abs(gap).max() <= most

    return holds


def seg_is(value: int) -> Callable[[Path, object], None]:
    def holds(root: Path, samples: object) -> None:
        assert (of(samples).targets["seg"] == value).all()

    return holds


def floats(value: float, **at: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        values = np.full(SIZE_HW, value, np.float32)
        values[3, 4] = at.get("one", value)
        np.save(path, values)

    return damage


def array(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, values)


def saved(values: np.ndarray, mode: str | None = None, **how: object) -> Callable[[Path], None]:
    return lambda path: picture(path, values, mode, **how)


def animated(path: Path) -> None:
    frames = [Image.fromarray(np.full((*SIZE_HW, 3), v, np.uint8)) for v in (90, 10)]
    made = io.BytesIO()
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:])
    path.write_bytes(made.getvalue())


def rows(content: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    return lambda root: (root / "all.csv").write_bytes(content.encode(encoding))


def room(content: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    return lambda root: (root / "room.csv").write_bytes(content.encode(encoding))


INSTANCES = "annotations/instances_train2017.json"
PEOPLE = "annotations/person_keypoints_train2017.json"


def coco(name: str, edit: Callable[[dict], object], told: str, file: str = INSTANCES, **more: object) -> Case:
    return Case(name, "coco", lambda root: change(root / file, edit), f"{Path(file).name}|{told}", **more)  # type: ignore[arg-type]


def first(key: str, **fields: object) -> Callable[[dict], None]:
    return lambda content: content[key][0].update(fields)


Members = dict[str, bytes]
SHARD, ROWS_OF = "train-000000.tar", "data/train-00000-of-00002.parquet"


def shard(name: str, edit: Callable[[Members], object], told: str, **more: object) -> Case:
    """The first shard of train, with its members by name as `edit` leaves them; sample 0002 is the one that is bad."""

    def damage(root: Path) -> None:
        with tarfile.open(root / SHARD) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        edit(members)
        # a name that is there twice has a mark after it
        write_tar(root / SHARD, [(name.rstrip("*"), content) for name, content in members.items()])

    return Case(name, "webdataset", damage, told and f"{SHARD}|{told}", **more)  # type: ignore[arg-type]


def member(name: str, ending: str, content: bytes, told: str) -> Case:
    return shard(name, lambda m: m.update({f"0002.{ending}": content}), told, skipped="train-000000/0002")


def linked_member(root: Path) -> None:
    """A member without bytes that says to be a file of this machine."""
    with tarfile.open(root / SHARD, "a") as tar:
        link = tarfile.TarInfo("0009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)


def write_columns(path: Path, **columns: tuple[list, dict | None]) -> None:
    """Puts other values, and what datasets is told of them, in the place of columns of a parquet file."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    said = json.loads(table.schema.metadata[b"huggingface"])
    for name, (values, feature) in columns.items():
        kept = table.schema.field(name).type if feature is None else None
        table = table.set_column(table.column_names.index(name), name, pyarrow.array(values, kept))
        said["info"]["features"][name] = feature or said["info"]["features"][name]
    said = {b"huggingface": json.dumps(said).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(said), path)


def read_column(path: Path, name: str) -> list:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=[name]).column(name).to_pylist()


def without_column(root: Path, name: str, files: str) -> None:
    """As write_parquet has it, but for one column of some of the files."""
    from datasets import Dataset

    for path in (root / "data").glob(files):
        Dataset.from_parquet(str(path), cache_dir=str(root.parent / "made")).remove_columns(name).to_parquet(
            str(path)
        )


def cell(name: str, column: str, value: object, told: str) -> Case:
    """Row 2 of the first parquet file of train holds `value`."""

    def damage(root: Path) -> None:
        values = read_column(root / ROWS_OF, column)
        write_columns(root / ROWS_OF, **{column: ([*values[:2], value, *values[3:]], None)})

    bad_row = "train-00000-of-00002/2"
    return Case(name, "huggingface", damage, f"{Path(ROWS_OF).name}: row 2, {column}|{told}", skipped=bad_row)


def column(name: str, column: str, value: object, feature: dict, told: str) -> Case:
    """Every row of every file holds `value`, of another type."""

    def damage(root: Path) -> None:
        for path in (root / "data").iterdir():
            write_columns(path, **{column: ([value] * len(read_column(path, column)), feature)})

    return Case(name, "huggingface", damage, f"{Path(ROWS_OF).name}: row 0, {column}|{told}")


CASES = [
    # pictures
    bad("png cut off", RGB, lambda path: (picture(path, rough()), cut(path)), "cannot be read"),
    bad("png without its end", RGB, lambda path: (picture(path, rough()), cut(path, 0.95)), "cannot be read"),
    bad("png scrambled", RGB, lambda path: (picture(path, rough()), scrambled(path)), "cannot be read"),
    bad("jpeg cut off", JPG, lambda path: (picture(path, rough()), cut(path)), "cannot be read", "jpeg"),
    bad(
        "jpeg without its last bytes",
        JPG,
        lambda path: (picture(path, rough()), cut(path, 0.97)),
        "cannot be read",
        "jpeg",
    ),
    bad("picture empty", RGB, empty, "the file is empty"),
    bad("text called png", RGB, text, "no format"),
    bad("header of 60000x60000 pixels", RGB, huge_header, "exceeds limit"),
    bad("no pixels", RGB, lambda path: huge_header(path, 0, 0), "cannot be read"),
    bad(
        "grey values of 32 bits",
        RGB,
        lambda path: Image.fromarray(np.full(SIZE_HW, 70000, np.int32)).save(path, "TIFF"),
        "70000|8 and 16 bits",
    ),
    bad(
        "floating-point pixels",
        RGB,
        lambda path: Image.fromarray(np.full(SIZE_HW, 0.5, np.float32)).save(path, "TIFF"),
        "floating-point|8 and 16 bits",
    ),
    fine("picture of 16 bits grey", RGB, saved((GREY * 40).astype(np.uint16)), image_is(GREY * 40 >> 8)),
    fine("picture grey", RGB, saved((GREY % 256).astype(np.uint8)), image_is(GREY % 256)),
    fine("picture of one bit", RGB, saved(np.eye(32, 40) > 0), image_is(np.eye(32, 40) * 255)),
    fine("picture with alpha", RGB, saved(np.full((32, 40, 4), (9, 9, 9, 40), np.uint8)), image_is(np.array(9))),
    fine("picture with a palette", RGB, palette, image_is(np.array([[[200, 10, 10]]]))),
    fine("animated gif called png", RGB, animated, image_is(np.array(90))),
    fine("webp called png", RGB, saved(np.full((32, 40, 3), 77, np.uint8), format="WEBP", lossless=True), image_is(np.array(77))),  # fmt: skip
    fine("interlaced png", RGB, lambda path: path.write_bytes(INTERLACED), image_is(np.array(5))),
    fine("jpeg grey", JPG, saved(np.full(SIZE_HW, 70, np.uint8)), image_is(np.array(70), 1)),
    fine("jpeg of four inks", JPG, saved(np.full((*SIZE_HW, 3), 70, np.uint8), "CMYK"), image_is(np.array(70), 3)),
    fine("jpeg with bytes after its end", JPG, lambda path: path.write_bytes(path.read_bytes() + b"more"), image_is(np.array(40), 1)),  # fmt: skip
    Case(
        "jpeg on its side",
        "jpeg",
        lambda root: turned(root / JPG),
        f"{JPG}|turned upright|labels",
        kind="warned",
        holds=lambda root, samples: np.testing.assert_allclose(
            [of(samples).image[4].mean(), of(samples).image[-4].mean()], [0, 200], atol=4
        ),
    ),
    Case(
        "label as the stored, not the upright picture",
        "jpeg",
        lambda root: (turned(root / JPG), picture(root / SEG, np.ones(SIZE_HW[::-1], np.uint8))),
        f"{SEG}|is 32x40 pixels, its picture 40x32",
        kind="warned",
    ),
    Case("picture cannot be read", "folder", lambda root: (root / RGB).chmod(0), f"{RGB}|Permission", skipped=BAD),
    # folders and links
    fine("link to a picture outside", RGB, lambda path: outside(path), image_is(np.array(40))),
    Case(
        "link to itself",
        "folder",
        lambda root: linked(root / RGB, f"{BAD}.png"),
        f"{BAD}.png|is a link that leads nowhere|delete",
        kind="warned",
        holds=lambda root, samples: ids_are(samples, "0", "2"),
    ),
    Case(
        "link to nothing",
        "folder",
        lambda root: linked(root / SEG, "nothing.png"),
        f"{SEG}|is a link that leads nowhere|no label of seg",
        kind="warned",
        holds=lambda root, samples: seg_is(-1)(root, samples),
    ),
    Case(
        "folder called png",
        "folder",
        lambda root: folder_of_its_name(root / RGB),
        f"{RGB}|is a folder|no such picture",
        kind="warned",
        holds=lambda root, samples: ids_are(samples, "0", "2"),
    ),
    Case(
        "label is a folder",
        "folder",
        lambda root: folder_of_its_name(root / SEG),
        f"{SEG}|is a folder|no label of seg",
        kind="warned",
        holds=lambda root, samples: seg_is(-1)(root, samples),
    ),
    fine("label missing", SEG, lambda path: path.unlink(), seg_is(-1)),
    Case(
        "names that differ in case alone",
        "folder",
        lambda root: (
            picture(root / "rgb/train/a.png", np.full((*SIZE_HW, 3), 7, np.uint8)),
            picture(root / "rgb/train/A.png", np.full((*SIZE_HW, 3), 8, np.uint8)),
        ),
        kind="read",
        holds=lambda root, samples: ids_are(samples, "0", "1", "2", "A", "a"),
    ),
    Case(
        "name with a line break",
        "folder",
        lambda root: (root / RGB).rename(root / "rgb/train/a\nb.png"),
        r"rgb/train|a\nb.png|rename",
    ),
    Case(
        "name that is no UTF-8",
        "folder",
        lambda root: os.rename(root / RGB, os.fsencode(root / "rgb/train") + b"/\xff.png"),
        r"rgb/train|\xff.png|rename",
    ),
    Case(
        "circle of links in a class",
        "imagefolder",
        lambda root: (root / "train/cat/again").symlink_to(root / "train/cat"),
        kind="read",
        holds=lambda root, samples: ids_are(samples, "bird/0.png", "bird/1.png", "cat/0.png", "cat/1.png"),
    ),
    # label maps
    bad("label cut off", SEG, lambda path: (picture(path, rough(1) % 3), cut(path, 0.7)), "cannot be read"),
    bad("label empty", SEG, empty, "the file is empty"),
    bad("class that is not declared", SEG, saved(np.full(SIZE_HW, 41, np.uint8)), "class id 41|3 classes"),
    bad("one pixel of such a class", SEG, lambda path: one_pixel(path), "class id 9|3 classes"),
    bad("label in colours", SEG, saved(np.zeros((32, 40, 3), np.uint8)), "32x40x3|one value per pixel"),
    bad("label with alpha", SEG, saved(np.zeros((32, 40, 4), np.uint8)), "32x40x4|one value per pixel"),
    bad("label of 16 bits, scaled", SEG, saved(np.full(SIZE_HW, 257, np.uint16)), "class id 257|3 classes"),
    fine("label of 16 bits", SEG, saved(np.full(SIZE_HW, 2, np.uint16)), seg_is(2)),
    fine("label with a palette", SEG, palette, seg_is(1)),
    odd("label of another size", SEG, saved(np.ones((64, 40), np.uint8)), "40x64|both are resized"),
    odd("nothing labelled", SEG, saved(np.full(SIZE_HW, 255, np.uint8)), "no labelled pixel"),
    # arrays
    bad("array of another shape", DEPTH, array(np.ones((2, 32, 40), np.float32)), "2x32x40|one value per pixel"),
    bad("array of one axis", DEPTH, array(np.ones(40, np.float32)), "has shape 40|one value per pixel"),
    bad("array of no elements", DEPTH, array(np.ones((0, 40), np.float32)), "0x40"),
    bad("array of objects", DEPTH, pickled, "cannot be read|allow_pickle"),
    bad("array of text", DEPTH, array(np.full(SIZE_HW, "far")), "expected numbers"),
    bad("array of complex numbers", DEPTH, array(np.ones(SIZE_HW, np.complex64)), "complex64|expected numbers"),
    bad("array cut off", DEPTH, cut, "cannot be read"),
    bad("array empty", DEPTH, empty, "cannot be read"),
    bad("picture called npy", DEPTH, lambda path: path.write_bytes(INTERLACED), "cannot be read"),
    bad("negative depth", DEPTH, floats(2, one=-3), "negative depth (-3|0 means invalid"),
    odd("depth NaN", DEPTH, floats(2, one=np.nan), "NaN|invalid"),
    odd("depth infinite", DEPTH, floats(2, one=np.inf), "infinite|invalid"),
    odd("no depth at all", DEPTH, floats(0), "no valid depth"),
    fine("array in Fortran order", DEPTH, array(np.asfortranarray(np.full(SIZE_HW, 4.0))), depth_is(4)),
    fine("array with bytes swapped", DEPTH, array(np.full(SIZE_HW, 4, ">f4")), depth_is(4)),
    fine("array with an axis more", DEPTH, array(np.full((1, *SIZE_HW), 4, np.float32)), depth_is(4)),
    fine("depth of 8 bits where 16 are usual", MM, saved(np.full(SIZE_HW, 200, np.uint8)), depth_is(0.2, "mm")),
    bad("normals in grey", NORMALS, saved(np.zeros(SIZE_HW, np.uint8)), "32x40|three values"),
    odd("normals all black", NORMALS, saved(np.zeros((32, 40, 3), np.uint8)), "no valid normal"),
    odd("normals all zero", VECTORS, array(np.zeros((32, 40, 3), np.float32)), "no valid normal"),
    bad("normals in bytes as floats", VECTORS, array(np.full((32, 40, 3), 128.0)), "median length|expected 1"),
    bad("normals with channels first", VECTORS, array(np.ones((3, 32, 40), np.float32)), "3x32x40|three values"),
    bad("edges outside of 0 to 1", "edges/train/1.png", lambda path: edge_floats(path), "cannot be read"),
    # points and classes
    bad("points cut off", POINTS, cut, "not JSON"),
    bad("points empty", POINTS, empty, "not JSON"),
    bad("point that is not declared", POINTS, lambda path: text(path, '{"nsoe": [1, 2]}'), "'nsoe'|did you mean"),
    bad("point of text", POINTS, lambda path: text(path, '{"nose": ["a", 2, 2]}'), "expected [x, y]"),
    bad("point of NaN", POINTS, lambda path: text(path, '{"nose": [NaN, 2, 2]}'), "expected [x, y]"),
    bad("points in a list", POINTS, lambda path: text(path, "[[1, 2, 2]]"), "mapping"),
    odd("point outside", POINTS, lambda path: text(path, '{"nose": [900, 2, 2]}'), "outside its picture"),
    Case(
        "points with a byte order mark",
        "folder",
        lambda root: (root / POINTS).write_bytes(b'\xef\xbb\xbf{"nose": [7, 8, 2]}'),
        kind="read",
        holds=lambda root, samples: np.testing.assert_allclose(of(samples).targets["points"][0], (7, 8, 2)),
    ),
    Case("class that is unknown", "folder", room("id,label\n0,hall\n1,baht\n"), "room.csv|1|'baht'|did you mean", skipped=BAD),  # fmt: skip
    Case("row too long", "folder", room("id,label\n0,hall\n1,bath,hall\n"), "room.csv|line 3 has 3 cells"),
    Case("picture labelled twice", "folder", room("id,label\n0,hall\n0,bath\n"), "room.csv|line 3|second time"),
    Case("labels in latin-1", "folder", room("id,label\n0,b\xe4d\n", "latin-1"), "room.csv|not UTF-8|save it"),
    Case(
        "labels with a byte order mark",
        "folder",
        room("id,label\n0,hall\n1,bath\n", "utf-8-sig"),
        kind="read",
        holds=lambda root, samples: [int(s.targets["room"]) for s in samples] == [0, 1, -1] or pytest.fail(),
    ),
    # source: csv
    Case("csv empty", "csv", rows(""), "all.csv|is empty|first row names the columns"),
    Case("csv in latin-1", "csv", rows(ROWS.replace("oak", "\xe4sche"), "latin-1"), "all.csv|not UTF-8|save it"),
    Case("csv with a ragged row", "csv", rows(ROWS.replace("elm\n2", "elm,x\n2")), "all.csv: line 3|4 cells"),
    Case("csv lists a picture twice", "csv", rows(ROWS.replace("2.png", "1.png")), "all.csv: line 4|again"),
    Case("csv without its column", "csv", rows(ROWS.replace("image", "img")), "all.csv|no column 'image'|img"),
    Case("csv leaves the root", "csv", rows(ROWS.replace("1.png", "../1.png")), "all.csv: line 3|not below"),
    Case("csv with an absolute path", "csv", rows(ROWS.replace("1.png", "/1.png")), "line 3|absolute|start from"),
    Case("csv with a quote left open", "csv", rows(ROWS.replace("1.png", '"1.png')), "line 3|quote not closed"),
    Case("csv with NUL bytes", "csv", rows(ROWS.replace("1.png", "1\0.png")), "all.csv: line 3|cannot be printed|rename"),
    Case("csv with an unknown class", "csv", rows(ROWS.replace("elm\n2", "ulm\n2")), "line 3|'ulm'|did you mean"),
    Case("csv with an unknown split", "csv", rows(ROWS.replace("val", "vla")), "line 5|'vla'|did you mean"),
    Case("csv lists what is not there", "csv", lambda root: (root / "1.png").unlink(), "line 3|1.png is missing", skipped="1.png"),  # fmt: skip
    Case("csv lists a picture cut off", "csv", lambda root: cut(root / "1.png"), "line 3|1.png cannot be read", skipped="1.png"),  # fmt: skip
    Case(
        "csv with a byte order mark",
        "csv",
        rows(ROWS, "utf-8-sig"),
        kind="read",
        holds=lambda root, samples: ids_are(samples, "0.png", "1.png", "2.png"),
    ),
    # class folders and the decathlon
    Case("class folder holds an empty picture", "imagefolder", lambda root: empty(root / "train/cat/0.png"), "cat/0.png|empty", skipped="cat/0.png"),  # fmt: skip
    Case("class without pictures", "imagefolder", lambda root: [p.unlink() for p in (root / "train/cat").iterdir()], "cat", kind="checked"),  # fmt: skip
    Case("class in val that train lacks", "imagefolder", lambda root: (root / "train/cat").rename(root / "train/cats"), "cat"),  # fmt: skip
    Case("decathlon's annotations cut off", "decathlon", lambda root: cut(root / "annotations/gtsrb_train.json"), "gtsrb_train.json|not JSON"),  # fmt: skip
    Case("decathlon's picture missing", "decathlon", lambda root: next(root.rglob("000003.jpg")).unlink(), "000003.jpg|missing", skipped="50200003"),  # fmt: skip
    # coco
    Case("coco cut off", "coco", lambda root: cut(root / INSTANCES), "instances_train2017.json|not JSON"),
    Case("coco is a list", "coco", lambda root: text(root / INSTANCES, "[]"), "instances_train2017.json"),
    coco("coco's image of text", first("images", width="60"), "images[0]|width"),
    coco("coco's images twice", lambda c: c["images"].append(c["images"][0]), "images[4]"),
    coco("coco leaves the root", first("images", file_name="../1.png"), "not below"),
    coco("coco's image without pixels", first("images", width=0), "0x40 pixels"),
    coco("coco's annotation of no image", first("annotations", image_id=999), "annotations[0]|999"),
    coco("coco's annotation of no category", first("annotations", category_id=999), "annotations[0]|999"),
    coco("coco's polygon of odd length", first("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 100|polygon", skipped="000000000001.png"),  # fmt: skip
    coco("coco's runs do not add up", first("annotations", segmentation={"size": [40, 60], "counts": [3, 4]}), "annotation 100|add up to 7", skipped="000000000001.png"),  # fmt: skip
    coco("coco's runs of another size", first("annotations", segmentation={"size": [4, 6], "counts": [24]}), "annotation 100|size [4, 6]", skipped="000000000001.png"),  # fmt: skip
    coco("coco's runs as broken text", first("annotations", segmentation={"size": [40, 60], "counts": "\x7f\x7f"}), "annotation 100|character", skipped="000000000001.png"),  # fmt: skip
    coco("coco's points of another length", first("annotations", keypoints=[1, 2]), "annotation 200|keypoints", PEOPLE, skipped="000000000001.png"),  # fmt: skip
    coco("coco's visibility of 7", first("annotations", keypoints=[1, 2, 7] * 3), "annotation 200|visibility 7", PEOPLE, skipped="000000000001.png"),  # fmt: skip
    Case("coco's picture missing", "coco", lambda root: (root / "train2017/000000000001.png").unlink(), "000000000001.png|missing", skipped="000000000001.png"),  # fmt: skip
    Case("coco's picture empty", "coco", lambda root: empty(root / "train2017/000000000001.png"), "000000000001.png|empty", skipped="000000000001.png"),  # fmt: skip
    # fixed layouts
    Case("nyuv2's list cut off", "nyuv2", lambda root: cut(root / "nyu_v2_3task.json"), "nyu_v2_3task.json|not JSON"),
    Case("nyuv2's list leaves the root", "nyuv2", lambda root: change(root / "nyu_v2_3task.json", lambda c: c["train1"].__setitem__(0, ["../0.png"] * 4)), "nyu_v2_3task.json"),  # fmt: skip
    Case("nyuv2's depth of objects", "nyuv2", lambda root: pickled(root / "depth/0001.npy"), "depth/0001.npy|cannot be read", skipped="img/0001"),  # fmt: skip
    Case("nyuv2's class 77", "nyuv2", lambda root: picture(root / "seg/0001.png", np.full((48, 64), 77, np.uint8)), "seg/0001.png|class id 77", skipped="img/0001"),  # fmt: skip
    Case("nyuv2's picture missing", "nyuv2", lambda root: (root / "img/0001.png").unlink(), "img/0001.png|missing", skipped="img/0001"),  # fmt: skip
    Case("cityscapes' disparity of 8 bits", "cityscapes", lambda root: picture(root / "disparity/train/aachen/aachen_000001_000019_disparity.png", np.ones((32, 64), np.uint8)), "aachen_000001_000019_disparity.png|expected a 16-bit"),  # fmt: skip
    Case("cityscapes' array of bytes above 1", "cityscapes_mtan", lambda root: np.save(root / "train/image/1.npy", np.full((32, 64, 3), 9.0)), "image/1.npy|from 0 to 1"),  # fmt: skip
    Case("taskonomy's response of 8 bits", "taskonomy", lambda root: picture(root / "allensville/keypoints2d/point_1_view_0_domain_keypoints2d.png", np.ones((32, 32), np.uint8)), "point_1_view_0_domain_keypoints2d.png|expected a 16-bit"),  # fmt: skip
    # shards
    Case("shard cut off", "webdataset", lambda root: cut(root / SHARD), f"{SHARD}|in 000|copy or make it again"),
    Case("shard without its end", "webdataset", lambda root: without_zeros(root / SHARD), f"{SHARD}|copy or make it again"),  # fmt: skip
    Case("shard empty", "webdataset", lambda root: empty(root / SHARD), f"{SHARD}|copy or make it again"),
    Case("shard of text", "webdataset", lambda root: text(root / SHARD), f"{SHARD} is damaged|copy or make it again"),
    Case("shard compressed", "webdataset", lambda root: zipped(root / SHARD), f"{SHARD} is compressed|gunzip"),
    shard("shard with a member twice", lambda m: m.update({"0003.png*": m["0003.png"]}), "0003 has 'png' twice|key of its own"),
    shard("shard with a key twice", lambda m: m.update({"0002.png*": m["0002.png"]}), "0002 occurs again|tar --sort=name"),
    shard("shard's member leaves the root", lambda m: m.update({"../9.png": m["0003.png"]}), "../9.png leads out|relative"),
    shard("shard's member by an absolute path", lambda m: m.update({"/9.png": m["0003.png"]}), "/9.png leads out|relative"),
    shard("shard's picture missing", lambda m: m.pop("0002.png"), "0002 has no picture|data.image names its ending", skipped="train-000000/0002"),
    member("shard's picture cut off", "png", png(np.ones((24, 32, 3), np.uint8))[:40], "0002.png cannot be read"),
    member("shard's picture empty", "png", b"", "0002.png cannot be read"),
    member("shard's class 41", "seg.png", png(np.full((24, 32), 41, np.uint8)), "0002.seg.png|class id 41|3 classes"),
    member("shard's array cut off", "depth.npy", b"\x93NUMPY\1\0", "0002.depth.npy cannot be read"),
    member("shard's JSON cut off", "json", b'{"room": "ba', "0002.json is not JSON"),
    member("shard's JSON in a list", "json", b"[1]", "0002.json|mapping of fields|'room'"),
    member("shard's label of another type", "json", b'{"room": ["bath"]}', "0002.json, room|expected one label|multi_label"),
    member("shard's class that is unknown", "json", b'{"room": "bth"}', "0002.json, room|'bth'|did you mean"),
    member("shard's label no UTF-8", "cls", b"\xff", "0002.cls is not UTF-8"),
    Case(
        "shard with a link",
        "webdataset",
        lambda root: linked_member(root),
        kind="read",
        holds=lambda root, samples: ids_are(samples, *(f"train-00000{n // 4}/{n:04}" for n in range(8))),
    ),
    shard(
        "shard's label missing",
        lambda m: m.pop("0002.seg.png"),
        "",
        kind="read",
        holds=lambda root, samples: np.testing.assert_array_equal(of(samples, 2).targets["seg"], -1),
    ),
    # parquet files
    Case("parquet cut off", "huggingface", lambda root: cut(root / ROWS_OF), f"{ROWS_OF}|no parquet file, or damaged|make it again"),  # fmt: skip
    Case("parquet empty", "huggingface", lambda root: empty(root / ROWS_OF), f"{ROWS_OF}|no parquet file, or damaged|make it again"),  # fmt: skip
    Case("parquet of text", "huggingface", lambda root: text(root / ROWS_OF), f"{ROWS_OF}|no parquet file, or damaged|make it again"),  # fmt: skip
    Case("parquet scrambled", "huggingface", lambda root: overwritten(root / ROWS_OF), f"{ROWS_OF}|no parquet file, or damaged|make it again"),  # fmt: skip
    Case("parquet without a column", "huggingface", lambda root: without_column(root, "kind", "*"), "kind|there is no column 'kind'"),  # fmt: skip
    Case("one parquet without a column", "huggingface", lambda root: without_column(root, "kind", "train-00001*"), "train-00001-of-00002.parquet has the columns|train-00000"),  # fmt: skip
    cell("parquet's picture null", "image", None, "holds no picture|data.image names the column"),
    cell("parquet's picture cut off", "image", {"bytes": png(np.ones((24, 32, 3), np.uint8))[:40], "path": None}, "cannot be read"),
    cell("parquet's picture elsewhere", "image", {"bytes": None, "path": "../9.png"}, "../9.png|pictures inside"),
    cell("parquet's class 41", "seg", {"bytes": png(np.full((24, 32), 41, np.uint8)), "path": None}, "class id 41|3 classes"),
    cell("parquet's depth ragged", "depth", [[1.0], [1.0, 2.0]], ""),
    cell("parquet's class that is unknown", "kind", "c", "'c'|classes"),
    column("parquet's label of another type", "kind", ["a"], {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}, "expected one label|multi_label"),
    column("parquet's label a fraction", "kind", 0.5, {"dtype": "float64", "_type": "Value"}, "holds 0.5|whole number"),
    column("parquet's map of text", "seg", "a", {"dtype": "string", "_type": "Value"}, ""),
    column("parquet's picture a number", "image", 3, {"dtype": "int64", "_type": "Value"}, "no picture"),
    Case("parquet's class number 7", "huggingface", lambda root: numbered(root, 7), "train-00000-of-00002.parquet: row 2, room|class number 7|names for 0 to 2", skipped="train-00000-of-00002/2"),
    Case("parquet's class number -2", "huggingface", lambda root: numbered(root, -2), "train-00000-of-00002.parquet: row 2, room|class number -2|names for 0 to 2", skipped="train-00000-of-00002/2"),
    Case(
        "parquet's label null",
        "huggingface",
        lambda root: write_columns(root / ROWS_OF, seg=([None] * 4, None)),
        kind="read",
        holds=lambda root, samples: np.testing.assert_array_equal(of(samples, 2).targets["seg"], -1),
    ),
]  # fmt: skip


def without_zeros(path: Path) -> None:
    """The blocks of zeros that say that a tar file is whole are not there."""
    path.write_bytes(path.read_bytes().rstrip(b"\0"))


def zipped(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def overwritten(path: Path) -> None:
    """The footer is sound, rows are not."""
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(2000) + content[2200:])


def numbered(root: Path, number: int) -> None:
    """A ClassLabel that has no name."""
    values = read_column(root / ROWS_OF, "room")
    write_columns(root / ROWS_OF, room=([*values[:2], number, *values[3:]], None))


def rough(channels: int = 3) -> np.ndarray:
    """A picture that does not compress to nothing."""
    values = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, channels), np.uint8)
    return values if channels > 1 else values[..., 0]


def one_pixel(path: Path) -> None:
    """Of a map that is larger than the network's, at a place that resizing passes over."""
    values = np.zeros((64, 80), np.uint8)
    values[0, 0] = 9
    picture(path, values)


def edge_floats(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)


def outside(path: Path) -> None:
    elsewhere = path.parents[3] / "elsewhere.png"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def ids_are(samples: object, *ids: str) -> None:
    assert [sample.id for sample in samples] == list(ids)  # type: ignore[attr-defined]


def _interlaced() -> bytes:
    """8x8 grey pixels of 5 in Adam7's seven passes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    passes = [(1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8)]
    lines = b"".join((b"\0" + b"\5" * width) * height for height, width in passes)
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


INTERLACED = _interlaced()


def checked(folder: Path) -> tuple[list[str], list[str]]:
    """Problems and warnings of `perceptkit check`, whether the tasks file or the files are refused."""
    try:
        report = check_files(load_tasks(folder / "t.yaml"), everything=True)
    except PerceptkitError as error:
        return [str(error)], []
    str(report).encode()  # it can be printed
    if report.problems:
        with pytest.raises(DataError):
            report.raise_problems()
    return report.problems, report.warnings


def loaded(folder: Path, *overrides: str) -> list:
    """Every sample of every split; gives those of train."""
    spec = load_tasks(folder / "t.yaml", overrides).spec
    tasks = build_tasks(spec)
    found = {}
    for split in ("train", "val", "test"):
        source = open_split(spec, tasks, split)
        found[split] = [source.load(i) for i in range(len(source))]
    return found["train"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.on}: {case.name}")
def test_damaged(case, tmp_path, monkeypatch):
    if case.on == "huggingface":
        pytest.importorskip("datasets")
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    tasks_file, write = SETS[case.on]
    write(tmp_path / "data")
    (tmp_path / "t.yaml").write_text(tasks_file)
    loaded(tmp_path)  # sound before
    case.damage(tmp_path / "data")
    if case.name == "picture cannot be read" and os.access(tmp_path / "data" / RGB, os.R_OK):
        pytest.skip("may read everything, as root may")
    problems, warnings = checked(tmp_path)
    parts = case.told.split("|") if case.told else []

    def is_told(messages):
        return any(all(part in message for part in parts) for message in messages)

    if case.kind in ("refused", "checked"):
        assert is_told(problems), (problems, warnings)
    else:
        assert not problems
    if case.kind == "warned":
        assert is_told(warnings), warnings
    if case.kind == "refused":
        with pytest.raises((DataError, SpecError)) as caught:
            loaded(tmp_path)
        file = parts[0].rsplit("/", 1)[-1]
        assert file in str(caught.value) or is_told([str(caught.value)]), str(caught.value)
    else:
        samples = loaded(tmp_path)
        for sample in samples:
            assert all(np.isfinite(target).all() for target in sample.targets.values())
        if case.holds is not None:
            case.holds(tmp_path / "data", samples)
    if case.skipped is not None:
        with pytest.raises(DataError, match="on_bad: skip"):
            loaded(tmp_path)
        spec = load_tasks(tmp_path / "t.yaml", ["data.on_bad=error"]).spec
        left_out = unreadable(open_split(spec, build_tasks(spec), "train"), "train")
        assert list(left_out) == [case.skipped]
        kept = loaded(tmp_path, "data.on_bad=skip")
        assert kept and case.skipped not in [sample.id for sample in kept]
    assert not list(tmp_path.rglob("trap"))  # nothing was unpickled


def test_there_are_fifty_and_each_has_a_name_of_its_own():
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.on for case in CASES} == set(SETS)


@pytest.mark.parametrize(
    "damage, reason",
    [(empty, "the file is empty"), (text, "no format"), (cut, "truncated"), (huge_header, "exceeds limit")],
)
def test_pictures_to_predict(damage, reason, tmp_path):
    path = tmp_path / "a.png"
    picture(path, rough())
    damage(path)
    with pytest.raises(DataError, match=f"a.png: not a readable picture.*{reason}"):
        read_picture(path)


def test_json_of_every_damage_is_plain(tmp_path):
    """A report of bad files is JSON, whatever their names and values."""
    write_folder(tmp_path / "data")
    (tmp_path / "t.yaml").write_text(FOLDER)
    floats(2, one=-3)(tmp_path / "data" / DEPTH)
    report = check_files(load_tasks(tmp_path / "t.yaml"), everything=True)
    assert json.loads(json.dumps(report.as_json()))["bad"][0]["id"] == BAD
