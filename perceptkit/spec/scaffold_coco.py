"""`perceptkit init` for COCO's annotation files, and for those that others write in its form."""

import re
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec.coco import FILES, WORDS
from perceptkit.spec.coco_file import CocoFile, read_coco
from perceptkit.spec.folder_files import split_of
from perceptkit.spec.scaffold_text import size_line, stand_ins, written
from perceptkit.spec.tasks_file import Split
from perceptkit.spec.templates import fill

BESIDE = ("{split}/_annotations.coco.json", "annotations/{split}.json", "{split}.json")
"""Files with all annotations of a split, as other tools write them."""
IMAGES = ("{split}", "images/{split}", "images", "{split}/images", ".")
"""Where pictures lie, from the root."""


def coco_lines(folder: Path, root: str) -> list[str] | None:
    """The lines below `data:` for annotation files in COCO's form; None where there are none.

    Args:
        folder: what to propose a tasks file from.
        root: the same, as the file will name it.
    """
    targets, words = _files(folder)
    if "train" not in words:
        return None
    try:
        files = {kind: read_coco(folder / fill(target, words["train"])) for kind, target in targets.items()}
    except PerceptkitError:
        return None
    images = _images(folder, words["train"], next(iter(files.values())))
    if images is None:
        return None
    place = folder / fill(images, words["train"])
    pictures = [place / name for name in next(iter(files.values())).images if (place / name).is_file()]
    lines = ["  source: coco", f"  root: {written(root)}  # relative to this file"]
    if images != "{split}":
        lines.append(f"  images: {written(images)}")
    lines.append(size_line(pictures))
    if (words["train"], words.get("val"), words.get("test")) == (WORDS["train"], WORDS["val"], None):
        words = dict(WORDS)
        lines.append("  # ? test is val2017, as is val; `hold_out: 2%` takes val from train instead")
    chosen, note = stand_ins(words, "file")
    if chosen != dict(WORDS):
        lines.append(f"  splits: {written(chosen)}{note}")
    lines.append("tasks:")
    for kind, name in (("segmentation", "seg"), ("keypoints", "points")):
        if kind in files and (kind == "segmentation" or files[kind].point_names):
            target = f", target: {written(targets[kind])}" if targets[kind] != FILES[kind] else ""
            lines.append(f"  # ? {_said(kind, files[kind])}")
            lines.append(f"  {name}: {{type: {kind}{target}}}")
    others = sorted(path.stem for path in (folder / "annotations").glob("panoptic_*.json"))
    if others:
        lines.append(
            f"  # ? {', '.join(others)}: `target: annotations/panoptic_{{split}}.json` of seg reads these"
        )
    return lines


def _files(folder: Path) -> tuple[dict[str, str], dict[Split, str]]:
    """The annotation files by task type, and the word of each split in their names."""
    targets: dict[str, str] = {}
    words: dict[Split, str] = {}
    for kind, target in FILES.items():
        found = _words(folder, target)
        if "train" in found:
            targets[kind] = target
            words = {**found, **words}
    if targets:
        return targets, words
    for target in BESIDE:
        found = _words(folder, target)
        if "train" in found and (file := _read(folder / fill(target, found["train"]))) is not None:
            kinds = (
                ["segmentation"]
                if any("segmentation" in a for of in file.annotations.values() for a in of)
                else []
            )
            kinds += ["keypoints"] if file.point_names else []
            return dict.fromkeys(kinds, target), found if kinds else {}
    return {}, {}


def _words(folder: Path, target: str) -> dict[Split, str]:
    """What stands for each split in the names of files that are there: `train2017` for train."""
    before, after = target.split("{split}")
    found: dict[Split, str] = {}
    for path in sorted(folder.glob(f"{before}*{after}")):
        word = path.relative_to(folder).as_posix()[len(before) :].removesuffix(after)
        split = split_of(re.sub(r"[\d_-]+$", "", word))
        if split is not None and path.is_file():
            found[split] = word  # of several years the last
    return found


def _images(folder: Path, word: str, file: CocoFile) -> str | None:
    """The folder that the file's first pictures are in."""
    names = list(file.images)[:20]
    return next(
        (
            images
            for images in IMAGES
            if any((folder / fill(images, word) / name).is_file() for name in names)
        ),
        None,
    )


def _read(path: Path) -> CocoFile | None:
    try:
        return read_coco(path)
    except PerceptkitError:
        return None


def _said(kind: str, file: CocoFile) -> str:
    if kind == "segmentation":
        return (
            f"{len(file.categories)} categories, and background; {len(file.images)} pictures in train's file"
        )
    return f"{len(file.point_names)} points of a person, any number of each; `names` instead are of the largest person"
