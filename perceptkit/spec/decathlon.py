"""The files of the Visual Decathlon: COCO-like JSON with a class per picture.

Rebuffi, Bilen, Vedaldi. *Learning multiple visual domains with residual adapters.* NeurIPS 2017, section 4.
https://arxiv.org/abs/1705.08045

    ROOT/annotations/aircraft_train.json           images      [{id, file_name: data/aircraft/train/.../1.jpg}, ...]
                     aircraft_val.json             annotations [{image_id, category_id}, ...]
                     aircraft_test_stripped.json   categories  [{id, name}, ...]; stripped: no annotations
                     aircraft_test.json            the same with annotations, where one has the public test labels
    ROOT/data/aircraft/...                         the pictures, with paths as in file_name
    ROOT/decathlon_mean_std.pickle                 mean and std of each domain, see mean_std_pickle.py

Labels are joined by image id and classes are ordered by category id: the lists are in no order that means anything,
and the names sort otherwise (TrafficSign10 comes before TrafficSign2).
"""

from dataclasses import dataclass
from pathlib import Path

from perceptkit.errors import DataError
from perceptkit.spec.json_file import json_records, read_json
from perceptkit.spec.mean_std_pickle import read_mean_std
from perceptkit.spec.once import once_per_version
from perceptkit.spec.tasks_file import RGB, Split
from perceptkit.spec.templates import shown

MEAN_STD: dict[str, tuple[RGB, RGB]] = {
    "aircraft": ((0.4798, 0.5107, 0.5344), (0.2107, 0.2051, 0.2373)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "daimlerpedcls": ((0.4820, 0.4820, 0.4820), (0.2361, 0.2361, 0.2361)),
    "dtd": ((0.5270, 0.4703, 0.4240), (0.2523, 0.2409, 0.2499)),
    "gtsrb": ((0.3392, 0.3118, 0.3205), (0.2756, 0.2658, 0.2709)),
    "imagenet12": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "omniglot": ((0.0810, 0.0810, 0.0810), (0.2705, 0.2705, 0.2705)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "ucf101": ((0.4995, 0.4988, 0.4998), (0.1090, 0.1081, 0.1068)),
    "vgg-flowers": ((0.4342, 0.3831, 0.2972), (0.2851, 0.2384, 0.2640)),
}
"""Mean and std of each domain in the order of the challenge, RGB in [0, 1]; used where there is no pickle."""

WEIGHT_DECAY = {
    "aircraft": 5e-4,
    "cifar100": 0.0,
    "daimlerpedcls": 5e-4,
    "dtd": 0.0,
    "gtsrb": 0.0,
    "imagenet12": 1e-4,
    "omniglot": 5e-4,
    "svhn": 0.0,
    "ucf101": 5e-4,
    "vgg-flowers": 1e-4,
}
"""Of each domain in SpotTune's code: `optim.weight_decay` where the recipe does not say it."""

SIZE, CROP = (72, 72), (64, 64)
NOT_CROPPED = ("daimlerpedcls", "gtsrb", "omniglot", "svhn")
"""Domains that are trained on whole pictures; the others on crops of 64 pixels: `augment.crop` where the recipe says
nothing of `augment` and pictures have 72 pixels."""
SIZES = {"daimlerpedcls": (144, 72)}
"""Of domains whose pictures are no squares, but pedestrians, who stand upright (18 pixels wide, 36 high at first):
`data.size` where the tasks file does not say it."""

PICKLE = "decathlon_mean_std.pickle"


@dataclass(frozen=True)
class Annotations:
    """One annotation file."""

    files: dict[int, str]
    """Path below the root, by image id in rising order."""
    labels: dict[int, int]
    """Category id by image id."""
    categories: dict[int, str]
    """Name by category id, in rising order: the order of the classes."""


def annotation_file(root: Path, domain: str, split: Split) -> Path:
    """The file of one split; of test the one with labels, where it is there."""
    path = root / "annotations" / f"{domain}_{split}.json"
    return path if split != "test" or path.is_file() else path.with_name(f"{domain}_test_stripped.json")


def domains(root: Path) -> list[str]:
    """The domains that have a train file."""
    return sorted(path.name.removesuffix("_train.json") for path in root.glob("annotations/*_train.json"))


def mean_std(root: Path, domain: str) -> tuple[RGB, RGB] | None:
    """Mean and std of a domain, from the pickle or else from the table above; None for a domain of neither.

    Raises DataError where the pickle is damaged, or holds anything but numbers by name.
    """
    path = root / PICKLE
    of_domain = read_mean_std(path).get(domain) if path.is_file() else None
    return of_domain or MEAN_STD.get(domain)


@once_per_version
def read_annotations(path: Path) -> Annotations:
    """Reads one annotation file, once per process and version of the file.

    Raises DataError that names the file and the entry that is not as it should be.
    """
    where = shown(path)
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where} is not a mapping with 'images', 'annotations' and 'categories'")
    files: dict[int, str] = {}
    for image in json_records(where, content, "images", {"id": [int], "file_name": [str]}):
        if image["id"] in files:
            raise DataError(f"{where}: two images have the id {image['id']}")
        files[image["id"]] = image["file_name"]
    categories: dict[int, str] = {}
    for category in json_records(where, content, "categories", {"id": [int], "name": [str, int]}):
        if category["id"] in categories:
            raise DataError(f"{where}: two categories have the id {category['id']}")
        categories[category["id"]] = str(category["name"])
    labels: dict[int, int] = {}
    for annotation in json_records(where, content, "annotations", {"image_id": [int], "category_id": [int]}):
        image_id, category_id = annotation["image_id"], annotation["category_id"]
        if labels.setdefault(image_id, category_id) != category_id:
            raise DataError(
                f"{where}: image {image_id} has two classes, {labels[image_id]} and {category_id}"
            )
    return Annotations(dict(sorted(files.items())), labels, dict(sorted(categories.items())))
