"""Writes small sets in COCO's own layout: pictures, annotation files and the pictures of panoptic segments."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

POINTS = ["nose", "left_eye", "right_eye"]
CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 17, "name": "cat"},
    {"supercategory": "furniture", "id": 62, "name": "chair"},
]
HEIGHT, WIDTH = 40, 60


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    """Corners of the pixels of columns left to right - 1 and rows top to bottom - 1."""
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(mask_HW: np.ndarray) -> list[int]:
    """Of a mask, column by column, the first of pixels outside."""
    flat = mask_HW.T.reshape(-1).astype(int)
    ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    counts = np.diff([0, *ends]).tolist()
    return [0, *counts] if flat[0] else counts


def as_text(counts: Sequence[int]) -> str:
    """Run lengths as the COCO API writes them: differences from the fourth on, five bits a character."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
            if not more:
                break
    return text


def annotation(number: int, image_id: int, category: int, segmentation: object, **more: Any) -> dict:
    """One object; its box and area are of no use where the file has them as here."""
    fields = {"id": number, "image_id": image_id, "category_id": category, "segmentation": segmentation}
    return {**fields, "area": 1.0, "bbox": [0, 0, 1, 1], "iscrowd": 0, **more}


def write_json(
    path: Path, images: Sequence[dict], annotations: Sequence[dict], categories: Sequence[dict]
) -> None:
    """An annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    path.write_text(json.dumps(content))


def change(path: Path, edit: Any) -> None:
    """Edits an annotation file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def write_coco(root: Path, words: Mapping[str, int] | None = None, train: int = 4) -> Path:
    """Four pictures (`train`) for train2017 and two for val2017 with all four kinds of annotations.

    The grey value of a picture is its id. Pictures 1, 3 (and 11) hold, see test_coco.py: a chair, a cat on it, a
    person and a crowd; the others nothing.
    """
    for word, first in (words or {"train2017": 1, "val2017": 11}).items():
        count = train if first == 1 else 2
        numbers = [first + i for i in range(count)]
        images = [
            {"id": i, "file_name": f"{i:012}.png", "width": WIDTH, "height": HEIGHT, "license": 1}
            for i in numbers
        ]
        for image in images:
            path = root / word / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), image["id"], np.uint8)).save(path)
        busy = numbers[::2]
        objects = [found for i in busy for found in things(i)]
        write_json(root / f"annotations/instances_{word}.json", images, objects, CATEGORIES)
        person = {**CATEGORIES[0], "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]}
        persons = [found for i in busy for found in people(i)]
        write_json(root / f"annotations/person_keypoints_{word}.json", images, persons, [person])
        write_panoptic(root, word, images, busy)
    return root


def things(image_id: int) -> list[dict]:
    """Objects of one picture, of which the cat is listed before the chair that it sits on."""
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[30:, :] = True
    person = np.zeros((HEIGHT, WIDTH), bool)
    person[25:35, 50:55] = True
    text = {"size": [HEIGHT, WIDTH], "counts": as_text(run_lengths(person))}
    runs = {"size": [HEIGHT, WIDTH], "counts": run_lengths(crowd)}
    return [
        annotation(100 * image_id, image_id, 17, [rectangle(12, 12, 18, 18), rectangle(20, 12, 22, 14)]),
        annotation(100 * image_id + 1, image_id, 62, [rectangle(10, 10, 30, 20)]),
        annotation(100 * image_id + 2, image_id, 1, text),
        annotation(100 * image_id + 3, image_id, 1, runs, iscrowd=1),
    ]


def people(image_id: int) -> list[dict]:
    """A small person with all points, a larger one with an eye that is occluded and one that is not labelled, a larger
    one without points and a crowd."""
    box = [rectangle(0, 0, 1, 1)]
    crowd = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    points = {
        "small": [5, 6, 2, 4, 5, 2, 6, 5, 2],
        "large": [29.5, 19.5, 2, 31, 18, 1, 0, 0, 0],
        "none": [0] * 9,
    }
    return [
        annotation(200 * image_id, image_id, 1, box, area=50.0, keypoints=points["small"], num_keypoints=3),
        annotation(
            200 * image_id + 1, image_id, 1, box, area=90.5, keypoints=points["large"], num_keypoints=2
        ),
        annotation(200 * image_id + 2, image_id, 1, box, area=400, keypoints=points["none"], num_keypoints=0),
        annotation(200 * image_id + 3, image_id, 1, crowd, area=900, iscrowd=1, keypoints=points["none"]),
    ]


def write_panoptic(root: Path, word: str, images: Sequence[dict], busy: Sequence[int]) -> None:
    """Grass below row 20 but for a cat, a crowd in the last rows; above it no segment."""
    ids = {"grass": 70000, "cat": 300, "crowd": 7}
    drawn = np.zeros((HEIGHT, WIDTH), np.int64)
    drawn[20:] = ids["grass"]
    drawn[22:26, 3:9] = ids["cat"]
    drawn[36:] = ids["crowd"]
    colours = np.stack([drawn % 256, drawn // 256 % 256, drawn // 65536], axis=-1).astype(np.uint8)
    annotations = []
    for number in busy:
        file = f"{number:012}.png"
        path = root / f"annotations/panoptic_{word}/{file}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(path)
        segments = [
            {"id": ids["grass"], "category_id": 193, "iscrowd": 0, "area": 1, "bbox": []},
            {"id": ids["cat"], "category_id": 17, "iscrowd": 0, "area": 1, "bbox": []},
            {"id": ids["crowd"], "category_id": 17, "iscrowd": 1, "area": 1, "bbox": []},
        ]
        annotations.append({"image_id": number, "file_name": file, "segments_info": segments})
    categories = [
        {"id": 193, "name": "grass", "isthing": 0, "supercategory": "plant"},
        {"id": 17, "name": "cat", "isthing": 1, "supercategory": "animal"},
    ]
    write_json(root / f"annotations/panoptic_{word}.json", images, annotations, categories)
