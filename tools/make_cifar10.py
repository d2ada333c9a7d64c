"""Makes the set of pictures that tasks/cifar10.yaml declares, from an archive or folder of CIFAR-10 files.

    python tools/make_cifar10.py cifar10.zip data/cifar10
    perceptkit check cifar10

CIFAR-10 as picture files, JPEG or PNG, is widely passed around in this layout, here SOURCE:

    train/CLASS/NAME.jpg      5,000 of each of the ten classes
    test/CLASS/NAME.jpg       1,000 of each

The files are copied bit for bit, none is decoded. The training pictures become two splits, `--val` of each
class and the rest:

    OUT/images/{train,val,test}/PART-NAME-CLASS.jpg    PART is train or test, as in SOURCE
    OUT/labels.csv                                     id,label

Names start with numbers, so that sorted ids mix the classes: `--set data.limit=1000` takes some of each. Which
pictures are in val follows from the names and the seed alone. OUT appears only when all of it is made; the
60,000 files take half a minute.
"""

import argparse
import csv
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from new_folder import Refusal, new_folder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = ("train", "test")
ENDINGS = (".jpg", ".jpeg", ".png")

Files = Mapping[PurePosixPath, Callable[[], bytes]]
"""How to read each file of SOURCE, by its path in it."""


@dataclass(frozen=True, order=True)
class Picture:
    """One file of SOURCE."""

    part: str
    name: str
    """Without its ending."""
    label: str

    @property
    def id(self) -> str:
        """Unique over all splits."""
        return f"{self.part}-{self.name}-{self.label}"


def main(arguments: list[str] | None = None) -> int:
    """0 when the set is there, 2 when nothing was made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a .zip, or a folder")
    parser.add_argument("out", type=Path, help="the folder to make, for example data/cifar10")
    parser.add_argument(
        "--val",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of each class's training pictures (default 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        make_set(options.source, options.out, options.val, options.seed)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


def make_set(source: Path, out: Path, val_share: float, seed: int) -> None:
    """Makes all splits; `out` appears when they are complete.

    Raises Refusal where `source` cannot be read or lacks pictures, a split would lack a class, the seed is
    negative, or `out` holds something.
    """
    if seed < 0:
        raise Refusal(f"--seed {seed}: expected 0 or more")
    with open_source(source) as files, new_folder(out) as unfinished:
        paths, ending = find_pictures(source, files)
        splits = split_pictures(list(paths), val_share, seed)
        for split, pictures in splits.items():
            (unfinished / "images" / split).mkdir(parents=True)
            for picture in pictures:
                target = unfinished / "images" / split / f"{picture.id}{ending}"
                target.write_bytes(read(source, paths[picture], files))
        with (unfinished / "labels.csv").open("w", newline="", encoding="utf-8") as table:
            rows = csv.writer(table, lineterminator="\n")
            rows.writerow(["id", "label"])
            rows.writerows([p.id, p.label] for pictures in splits.values() for p in pictures)
    print(f"{out}: " + ", ".join(f"{len(pictures)} of {split}" for split, pictures in splits.items()))
    if ending != ".jpg":
        print(f"tasks/cifar10.yaml reads .jpg: --set 'data.image=images/{{split}}/{{id}}{ending}'")


@contextmanager
def open_source(source: Path) -> Iterator[Files]:
    """The files of a folder or a .zip, which stays open meanwhile. Raises Refusal."""
    if source.is_dir():
        paths = (path for path in source.rglob("*") if path.is_file())
        yield {PurePosixPath(path.relative_to(source).as_posix()): path.read_bytes for path in paths}
        return
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a zip archive"
        raise Refusal(f"{source} cannot be read: {reason}; expected a .zip or a folder") from error
    with archive:
        yield {PurePosixPath(entry.filename): _reader(archive, entry) for entry in archive.infolist()}


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    return lambda: archive.read(entry)


def read(source: Path, path: PurePosixPath, files: Files) -> bytes:
    """One file of `source`. Raises Refusal where it is damaged, encrypted or gone."""
    try:
        return files[path]()
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise Refusal(f"{source}: {path} cannot be read ({error})") from error


def find_pictures(source: Path, files: Files) -> tuple[dict[Picture, PurePosixPath], str]:
    """Where each picture lies, in sorted order, and the ending that all share.

    Raises Refusal where a class is absent or unknown, or the pictures cannot be told apart.
    """
    found: dict[Picture, PurePosixPath] = {}
    endings: dict[str, PurePosixPath] = {}
    for path in files:
        if path.suffix.lower() not in ENDINGS or path.name.startswith(".") or len(path.parts) < 3:
            continue
        part, label = path.parts[-3:-1]
        if part not in PARTS:
            continue
        if label not in CLASSES:
            raise Refusal(f"{source}: {path} is of no class of CIFAR-10: {', '.join(CLASSES)}")
        picture = Picture(part, path.stem, label)
        if picture in found:
            raise Refusal(f"{source}: {found[picture]} and {path} would get the same name")
        found[picture] = path
        endings[path.suffix] = path
    for part in PARTS:
        present = {picture.label for picture in found if picture.part == part}
        if absent := [label for label in CLASSES if label not in present]:
            wanted = f"{part}/{absent[0]}/*.jpg"
            raise Refusal(
                f"{source} holds no {wanted}; expected train/CLASS/ and test/CLASS/ of all ten classes"
            )
    if len(endings) > 1:
        one, other = sorted(endings.values())[:2]
        raise Refusal(f"{source} holds {one} and {other}; all pictures must have one ending")
    return dict(sorted(found.items())), next(iter(endings))


def split_pictures(pictures: list[Picture], val_share: float, seed: int) -> dict[str, list[Picture]]:
    """The pictures of train, val and test, each sorted; val has the same share of every class.

    Raises Refusal where that leaves train or val without a class.
    """
    val: set[Picture] = set()
    for label in CLASSES:
        of_class = sorted(p for p in pictures if p.part == "train" and p.label == label)
        count = round(len(of_class) * val_share) if 0 < val_share < 1 else 0
        if not 0 < count < len(of_class):
            raise Refusal(
                f"--val {val_share:g} of {len(of_class)} pictures of {label}: train and val need some"
            )
        order = np.random.default_rng([seed, CLASSES.index(label)]).permutation(len(of_class))
        val.update(of_class[i] for i in order[:count])
    return {
        "train": sorted(p for p in pictures if p.part == "train" and p not in val),
        "val": sorted(val),
        "test": sorted(p for p in pictures if p.part == "test"),
    }


if __name__ == "__main__":
    sys.exit(main())
