"""Cityscapes as multi-task papers share it, and as it is downloaded.

MTAN's arrays (https://github.com/lorenmt/mtan), 256 x 512 or 128 x 256:

    ROOT/{train,val}/image/0.npy                      float RGB in [0, 1]
    ROOT/{train,val}/{label_2,label_7,label_19}/0.npy class ids, -1 = void
    ROOT/{train,val}/depth/0.npy                      normalised inverse depth, (H, W) or (H, W, 1)

LibMTL (https://github.com/median-research-group/LibMTL) calls label_7 label, and has no other labels of classes.

AdaShare's list of the same arrays, wherever they are below the root:

    ROOT/cityscape.json   {"train": [[image, depth, label_2, label_7, label_19], ...], "train1": ..., "test": ...}

The official tree (https://www.cityscapes-dataset.com), 1024 x 2048:

    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_000000_000019_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_labelIds.png      34 ids, see TRAIN_IDS
    ROOT/disparity/{train,val,test}/CITY/CITY_000000_000019_disparity.png   uint16, (value - 1) / 256 px, 0 = invalid

Labels of the official test split are not public, so `test` is val's folder unless `splits` says otherwise. In all of
them depth is inverse (disparity): large is near.
"""

from pathlib import Path

from perceptkit.spec.layouts import FOLDER_PARTS, LISTED_PARTS, Entry, Layout, entries_of_list, numbered
from perceptkit.spec.tasks_file import LayoutData

LISTS = "cityscape.json"
FIELDS = ("image", "depth", "label_2", "label_7", "label_19")

TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9,
    23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Official label id -> one of the 19 classes that are evaluated; all other ids are void."""

CATEGORIES = (
    0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6,
)  # fmt: skip
"""By class of the 19: flat, construction, object, nature, sky, human or vehicle."""


def _arrays(data: LayoutData, part: str) -> list[Entry]:
    folder = data.root / part
    seven = "label" if (folder / "label").is_dir() and not (folder / "label_7").is_dir() else "label_7"
    return [
        Entry(
            f"{part}/{name}",
            folder / "image" / f"{name}.npy",
            {
                label: folder / (seven if label == "label_7" else label) / f"{name}.npy"
                for label in FIELDS[1:]
            },
        )
        for name in numbered(folder / "image", ".npy")
    ]


def _official(data: LayoutData, part: str) -> list[Entry]:
    found = []
    for path in sorted((data.root / "leftImg8bit" / part).glob("*/*_leftImg8bit.png")):
        frame = path.name.removesuffix("_leftImg8bit.png")
        ids = data.root / "gtFine" / part / path.parent.name / f"{frame}_gtFine_labelIds.png"
        labels = {"label_7": ids, "label_19": ids}
        labels["depth"] = data.root / "disparity" / part / path.parent.name / f"{frame}_disparity.png"
        found.append(Entry(f"{path.parent.name}/{frame}", path, labels))
    return found


def _label(kind: str, target: str | None, classes: int) -> str:
    return f"label_{classes}" if kind == "segmentation" else kind


def _is_mtan(root: Path) -> bool:
    train = root / "train"
    of_libmtl = (train / "label").is_dir() and (train / "depth").is_dir() and not (train / "normal").is_dir()
    return (train / "image").is_dir() and (of_libmtl or any(train.glob("label_*")))


TYPES = ("segmentation", "depth")
ADASHARE = Layout(
    name="AdaShare's Cityscapes",
    is_here=lambda root: (root / LISTS).is_file(),
    expected=f"{LISTS}, which lists arrays",
    parts=LISTED_PARTS,
    entries=lambda data, part: entries_of_list(data, LISTS, FIELDS, part),
    classes=(19, 7, 2),
    types=TYPES,
    label=_label,
    depth="inverse",
    lists=LISTS,
    void=-1,
)
MTAN = Layout(
    name="MTAN's Cityscapes",
    is_here=_is_mtan,
    expected="the folders train and val with image, depth, label_2, label_7 (or label) and label_19",
    parts=FOLDER_PARTS,
    entries=_arrays,
    classes=(19, 7, 2),
    types=TYPES,
    label=_label,
    depth="inverse",
    void=-1,
)
OFFICIAL = Layout(
    name="the official Cityscapes",
    is_here=lambda root: (root / "leftImg8bit").is_dir(),
    expected="the folders leftImg8bit, gtFine and disparity",
    parts=FOLDER_PARTS,
    entries=_official,
    classes=(19, 7),
    types=TYPES,
    label=_label,
    depth="inverse",
)
