"""Writes small sets in the two on-disk layouts that list their pictures with a class."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SPLITS = ("train", "val", "test")


def save(path: Path, value: int = 0, size_HW: tuple[int, int] = (40, 36)) -> None:
    """A grey picture; its name is in the file too, so that no two are the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = PngInfo()
    named.add_text("name", str(path))
    Image.fromarray(np.full((*size_HW, 3), value, np.uint8)).save(path, pnginfo=named, comment=str(path))


def write_class_folders(root: Path, classes: Sequence[str] = ("bird", "cat"), each: int = 2) -> Path:
    """`ROOT/{split}/{class}/{i}.png`; the grey value is ten times the class plus i."""
    for split in SPLITS:
        for c, name in enumerate(classes):
            for i in range(each):
                save(root / split / name / f"{i}.png", 10 * c + i)
    return root


# id order: sign 1, 10, 2, which is neither the numbers' order nor that of the folders
CATEGORIES = {50000003: "TrafficSign2", 50000001: "TrafficSign1", 50000002: "TrafficSign10"}
FOLDERS = {50000001: "b", 50000002: "c", 50000003: "a"}


def write_decathlon(root: Path, domain: str = "gtsrb", each: int = 2) -> Path:
    """`ROOT/annotations` and `ROOT/data` of one domain as the challenge has them, the test split stripped.

    Images and annotations are listed in different orders, neither by id; the grey value is the last digits of the
    category plus ten times the number of the picture.
    """
    images, annotations = {split: [] for split in SPLITS}, {split: [] for split in SPLITS}
    number = 0
    for split in SPLITS:
        for _ in range(each):
            for category in CATEGORIES:
                number += 1
                place = "test" if split == "test" else f"{split}/{FOLDERS[category]}"
                file = f"data/{domain}/{place}/{number:06}.jpg"
                image_id = 50200000 + number
                save(root / file, category % 10 + 10 * number % 250, (72, 80))
                images[split].append({"id": image_id, "width": 80, "height": 72, "file_name": file})
                annotations[split].append(
                    {"id": image_id, "image_id": image_id, "category_id": category, "area": 0, "bbox": [],
                     "segmentation": [], "iscrowd": 0}
                )  # fmt: skip
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        ending = "test_stripped" if split == "test" else split
        write_annotations(
            root / f"annotations/{domain}_{ending}.json",
            images[split][::-1],
            [] if split == "test" else annotations[split][1:] + annotations[split][:1],
        )
    return root


def write_annotations(path: Path, images: Sequence[dict], annotations: Sequence[dict]) -> None:
    """One annotation file with all categories, in no order."""
    categories = [{"id": i, "name": name, "supercategory": "object"} for i, name in CATEGORIES.items()]
    content = {"info": {}, "licenses": [], "images": list(images), "categories": categories}
    if annotations:
        content["annotations"] = list(annotations)
    path.write_text(json.dumps(content))


def label_test_split(root: Path, domain: str = "gtsrb") -> None:
    """Adds the file with the public test labels: all of the first category in order of ids."""
    stripped = json.loads((root / f"annotations/{domain}_test_stripped.json").read_text())
    labels = [{"id": i["id"], "image_id": i["id"], "category_id": 50000001} for i in stripped["images"]]
    write_annotations(root / f"annotations/{domain}_test.json", stripped["images"], labels)
