"""NYUv2 in the two forms that multi-task papers share.

AdaShare's (https://github.com/sunxm2357/AdaShare), 480 x 640, 40 classes:

    ROOT/nyu_v2_3task.json        {"train": [[img, seg, normal, depth], ...], "train1": ..., "train2": ..., "test": ...}
    ROOT/img/0061.png             RGB
    ROOT/seg/0061.png             class ids 0 to 39, 255 = unlabelled
    ROOT/normal_mask/0061.png     RGB, n = 2 * value / 255 - 1, white = invalid
    ROOT/depth/0061.npy           float32, metres

train1 and train2 are the parts of train that its search updates weights and policy on. Where the JSON file is absent,
all pictures of img/ that have the three labels are `test`.

MTAN's (https://github.com/lorenmt/mtan), 288 x 384, 13 classes:

    ROOT/{train,val}/{image,label,depth,normal}/0.npy     RGB in [0, 1]; ids, -1 = unlabelled; metres; unit vectors
"""

from pathlib import Path

from perceptkit.errors import DataError
from perceptkit.spec.layouts import (
    FOLDER_PARTS,
    LISTED_PARTS,
    Entry,
    Layout,
    entries_of_list,
    numbered,
)
from perceptkit.spec.tasks_file import LayoutData
from perceptkit.spec.templates import shown

LISTS = "nyu_v2_3task.json"
FIELDS = ("img", "seg", "normal_mask", "depth")
FOLDERS = {"img": ".png", "seg": ".png", "normal_mask": ".png", "depth": ".npy"}


def _listed(data: LayoutData, part: str) -> list[Entry]:
    if data.lists is not None or (data.root / LISTS).is_file():
        return entries_of_list(data, LISTS, FIELDS, part)
    if part != "test":
        where = shown(data.root / LISTS)
        raise DataError(
            f"there is no {where}, without which all pictures are of the list test, none of {part}"
        )
    names = [set(numbered(data.root / folder, ending)) for folder, ending in FOLDERS.items()]
    return [
        Entry(
            f"img/{name}",
            data.root / "img" / f"{name}.png",
            {folder: data.root / folder / f"{name}{FOLDERS[folder]}" for folder in FIELDS[1:]},
        )
        for name in sorted(set.intersection(*names))
    ]


def _arrays(data: LayoutData, part: str) -> list[Entry]:
    folder = data.root / part
    return [
        Entry(
            f"{part}/{name}",
            folder / "image" / f"{name}.npy",
            {label: folder / label / f"{name}.npy" for label in ("label", "depth", "normal")},
        )
        for name in numbered(folder / "image", ".npy")
    ]


def _is_mtan(root: Path) -> bool:
    """Without normals it is LibMTL's Cityscapes."""
    return all((root / "train" / folder).is_dir() for folder in ("image", "label", "normal"))


ADASHARE = Layout(
    name="AdaShare's NYUv2",
    is_here=lambda root: (root / "img").is_dir() and (root / "seg").is_dir(),
    expected=f"{LISTS} and the folders img, seg, normal_mask and depth",
    parts=LISTED_PARTS,
    entries=_listed,
    classes=(40,),
    types=("segmentation", "normals", "depth"),
    label=lambda kind, target, classes: {"segmentation": "seg", "normals": "normal_mask"}.get(kind, kind),
    lists=LISTS,
    void=255,
)
MTAN = Layout(
    name="MTAN's NYUv2",
    is_here=_is_mtan,
    expected="the folders train and val with image, label, depth and normal",
    parts=FOLDER_PARTS,
    entries=_arrays,
    classes=(13,),
    types=("segmentation", "normals", "depth"),
    label=lambda kind, target, classes: {"segmentation": "label", "normals": "normal"}.get(kind, kind),
    void=-1,
)
