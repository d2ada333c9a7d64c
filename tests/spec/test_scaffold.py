"""A folder becomes a tasks file that passes the check, every guess marked; without a folder, a template."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.scaffold import scaffold
from perceptkit.spec.scaffold_text import written
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.spec.yaml_source import read_yaml
from tests.listed_files import write_class_folders, write_decathlon

SPLITS = ("train", "val", "test")
HW = (40, 70)
RNG = np.random.default_rng(0)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def photo() -> np.ndarray:
    return RNG.integers(0, 255, (*HW, 3), dtype=np.uint8)


def ids(largest: int) -> np.ndarray:
    values = RNG.integers(0, largest + 1, HW, dtype=np.uint8)
    values[0, 0] = largest
    return values


def millimetres() -> np.ndarray:
    return RNG.integers(500, 6000, HW).astype(np.uint16)


def normals(z: float) -> np.ndarray:
    vectors = np.stack([RNG.normal(0, 0.3, HW), RNG.normal(0, 0.3, HW), np.full(HW, z)], axis=-1)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.rint((vectors + 1) * 127.5).astype(np.uint8)


def proposal(data: Path, out: Path) -> tuple[TasksFile, str]:
    """The loaded proposal, which passes the check of all files, and its text."""
    text = scaffold(data, out)
    out.mkdir(exist_ok=True)
    (out / "tasks.yaml").write_text(text)
    loaded = load_tasks(out / "tasks.yaml")
    report = check_files(loaded, everything=True)
    assert not report.problems, f"{text}\n{report}"
    return loaded.spec, text


def keys(task) -> dict:
    return task.model_dump(exclude_unset=True)


@pytest.fixture
def doom(tmp_path) -> Path:
    """Laid out as tasks/doom.yaml says."""
    root = tmp_path / "doom"
    for split in SPLITS:
        for i in range(2):
            save(root / split / f"rgb/{i:05}.png", photo())
            save(root / split / f"seg/{i:05}.png", ids(11))
            save(root / split / f"depth/{i:05}.png", millimetres())
            save(root / split / f"normal/{i:05}.png", normals(-1))
        points = {f"{i:05}": [[3.5, 2.0, 0], [9.0, 4.0, 1]] for i in range(2)}
        (root / split / "keypoints.json").write_text(json.dumps(points))
        (root / split / "index.json").write_text(json.dumps({"seed": 3}))
    return root


def test_a_folder_like_that_of_doom(doom, tmp_path):
    spec, text = proposal(doom, tmp_path / "tasks")
    assert "\n  root: ../doom " in text
    assert spec.name == "doom" and spec.data.image == "{split}/rgb/{id}.png"
    assert spec.data.size == (32, 64)
    assert {name: keys(task) for name, task in spec.tasks.items()} == {
        "seg": {"type": "segmentation", "target": "{split}/seg/{id}.png", "classes": 12},
        "depth": {"type": "depth", "target": "{split}/depth/{id}.png", "scale": 1000},
        "normal": {"type": "normals", "target": "{split}/normal/{id}.png", "frame": "camera"},
        "keypoints": {"type": "keypoints", "target": "{split}/keypoints.json", "kinds": ["kind0", "kind1"]},
    }
    assert "#   {split}/index.json: no mapping from names of pictures\n" in text
    assert "# edges: {type: edges, derive: [seg, depth, normal]}" in text


def test_every_guess_is_marked(doom, tmp_path):
    lines = scaffold(doom, tmp_path).splitlines()
    for i, line in enumerate(lines):
        if re.match(r"  (image|size):", line):
            assert "# ?" in line
        if ": {type:" in line and "#" not in line:
            assert lines[i - 1].startswith("  # ? ")


def test_names_beside_the_labels_are_used(doom, tmp_path):
    names = [f"class {i}" for i in range(12)]
    about = {"classes": names, "keypoint_kinds": ["on the floor", "yes"]}
    for split in SPLITS:
        (doom / split / "index.json").write_text(json.dumps(about))
    spec, text = proposal(doom, tmp_path / "tasks")
    assert spec.tasks["seg"].classes == names
    assert spec.tasks["keypoints"].kinds == ["on the floor", "yes"]
    assert "index.json: " not in text


def test_splits_below_the_kind_and_other_names_of_splits(tmp_path):
    root = tmp_path / "my data (1)"
    for split in ("training", "Validation"):
        for i in range(3):
            save(root / "images" / split / f"p{i}.jpg", photo())
            save(root / "labels" / split / f"p{i}.png", np.where(ids(3) == 3, 255, ids(2)).astype(np.uint8))
            save(root / "contours" / split / f"p{i}.png", ids(1) * np.uint8(255))
            save(root / "z" / split / f"p{i}.npy", RNG.uniform(1, 8, (1, *HW)).astype(np.float32))
            save(root / "normals" / split / f"p{i}.png", normals(1))
            (root / "points" / split).mkdir(parents=True, exist_ok=True)
            face = {"left eye": [1, 2, 2], "right eye": [5, 2, 1], "nose": [3, 4, 2]}
            (root / "points" / split / f"p{i}.json").write_text(json.dumps(face))
    with open(root / "rooms.csv", "w", newline="") as opened:
        csv.writer(opened).writerows([["id", "label"], ["p0", "bath"], ["p1", "hall"], ["p2", "hall"]])
    spec, _ = proposal(root, tmp_path / "tasks")
    assert spec.name == "my_data_1_"
    assert spec.data.splits == {"train": "training", "val": "Validation", "test": "Validation"}
    found = {name: keys(task) for name, task in spec.tasks.items()}
    targets = {name: task.pop("target") for name, task in found.items()}
    assert targets["points"] == "points/{split}/{id}.json" and targets["rooms"] == "rooms.csv"
    names = ["left eye", "right eye", "nose"]
    assert found == {
        "labels": {"type": "segmentation", "classes": 3},
        "contours": {"type": "edges"},
        "z": {"type": "depth", "scale": 1},
        "normals": {"type": "normals", "frame": "opengl"},
        "points": {"type": "keypoints", "names": names, "flip_pairs": [("left eye", "right eye")]},
        "rooms": {"type": "classification"},
    }


def test_pictures_and_labels_in_one_folder(tmp_path):
    root = tmp_path / "flat"
    for split in SPLITS:
        for i in range(2):
            save(root / split / f"{i:04}_rgb.png", photo())
            save(root / split / f"{i:04}_depth.png", millimetres())
            save(root / split / f"{i:04}_mask.png", ids(1))
    spec, _ = proposal(root, tmp_path)
    assert spec.data.image == "{split}/{id}_rgb.png"
    assert {name: (task.type, task.target) for name, task in spec.tasks.items()} == {
        "depth": ("depth", "{split}/{id}_depth.png"),
        "mask": ("segmentation", "{split}/{id}_mask.png"),
    }


def test_words_before_the_id(tmp_path):
    for split in SPLITS:
        save(tmp_path / f"data/a/{split}/left_01.png", photo())
        save(tmp_path / f"data/b/{split}/height_01.npy", RNG.uniform(1, 8, HW))
    spec, _ = proposal(tmp_path / "data", tmp_path)
    assert spec.data.image == "a/{split}/left_{id}.png"
    assert [(task.type, task.target) for task in spec.tasks.values()] == [
        ("depth", "b/{split}/height_{id}.npy")
    ]


def test_palette_pictures_give_their_indexes(tmp_path):
    for split in SPLITS:
        save(tmp_path / f"data/{split}/images/1.png", photo())
        picture = Image.fromarray(ids(4), mode="L").convert("P")
        picture.putdata(ids(4).ravel().tolist())
        (tmp_path / f"data/{split}/things").mkdir()
        picture.save(tmp_path / f"data/{split}/things/1.png")
    spec, _ = proposal(tmp_path / "data", tmp_path)
    assert keys(spec.tasks["things"])["classes"] == 5


def test_several_labels_and_a_csv_per_split(tmp_path):
    for split in SPLITS:
        for name in "ab":
            save(tmp_path / f"data/images/{split}/{name}.png", photo())
        (tmp_path / f"data/tags_{split}.csv").write_text("id,label\na,cat|dog\nb,\n")
    spec, _ = proposal(tmp_path / "data", tmp_path)
    assert keys(spec.tasks["tags"]) == {
        "type": "classification",
        "target": "tags_{split}.csv",
        "multi_label": True,
        "classes": ["cat", "dog"],
    }


def test_what_is_not_understood_is_listed(tmp_path):
    root = tmp_path / "data"
    coco = {"images": [], "annotations": []}
    for split in SPLITS:
        save(root / f"images/{split}/1.png", photo())
        save(root / f"colours/{split}/1.png", photo())
        save(root / f"instances/{split}/1.png", ids(3))
        save(root / f"seg/{split}/other.png", ids(3))
        (root / f"{split}.json").write_text(json.dumps(coco))
        (root / f"{split}.csv").write_text("id,price\n1,0.25\n")
    (root / "broken").mkdir()
    for split in SPLITS:
        (root / "broken" / split).mkdir()
        (root / f"broken/{split}/1.png").write_bytes(b"no picture")
    text = scaffold(root, tmp_path)
    told = dict(line[4:].split(": ", 1) for line in text.splitlines() if line.startswith("#   "))
    assert told["colours/{split}/{id}.png"].startswith("three channels that are no unit vectors")
    assert told["instances/{split}/{id}.png"].startswith("instances are no task type")
    assert told["seg/train/*.png"] == "1 file; no picture has this name"
    assert told["{split}.json"].startswith("COCO annotations")
    assert told["{split}.csv"].endswith("these are no classes")
    assert told["broken/{split}/{id}.png"].startswith("1.png cannot be read")
    assert "tasks: {}  # to fill in" in text


def test_no_splits(tmp_path):
    save(tmp_path / "data/images/1.png", photo())
    save(tmp_path / "data/depth/1.png", millimetres())
    text = scaffold(tmp_path / "data", tmp_path)
    assert "  # to do: image must hold {split}" in text
    assert 'depth: {type: depth, target: "depth/{id}.png", scale: 1000}' in text
    assert not read_yaml(text, "t.yaml").problems


def test_one_split_is_missing(tmp_path):
    save(tmp_path / "data/train/images/1.png", photo())
    text = scaffold(tmp_path / "data", tmp_path)
    assert "  splits: {train: train}  # to do: there is no folder for val, test" in text


def test_wrong_folders(tmp_path):
    with pytest.raises(SpecError, match="nowhere is no folder"):
        scaffold(tmp_path / "nowhere", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="file is a file"):
        scaffold(tmp_path / "file", tmp_path)
    with pytest.raises(DataError, match="holds no pictures"):
        scaffold(tmp_path, tmp_path)


def test_the_template_needs_a_root_only(tmp_path):
    for split in SPLITS:
        save(tmp_path / f"data/images/{split}/1.png", photo())
    text = scaffold(None, tmp_path).replace("path/to/data", "data")
    (tmp_path / "t.yaml").write_text(text)
    assert list(load_tasks(tmp_path / "t.yaml").spec.tasks) == ["seg"]
    uncommented = re.sub(r"^  # (?!splits)", "  ", text, flags=re.M)
    (tmp_path / "t.yaml").write_text(uncommented)
    (tmp_path / "data/place.csv").write_text("id,label\n1,a\n2,b\n")
    types = [task.type for task in load_tasks(tmp_path / "t.yaml").spec.tasks.values()]
    assert types == ["segmentation", "depth", "normals", "keypoints", "edges", "classification", "embedding"]


@pytest.mark.parametrize(
    "value", ["a", "a b", "off", "1e-3", "12", "true", "a: b", "#x", "é", 'q"', "", "-", "{id}"]
)
def test_written_values_are_read_back(value):
    read = read_yaml(f"x: [{written(value)}, {{k: {written(value)}}}]", "t.yaml")
    assert read.data == {"x": [value, {"k": value}]} and not read.problems


def test_folders_of_classes(tmp_path):
    root = write_class_folders(tmp_path / "pets")
    spec, text = proposal(root, tmp_path / "out")
    assert spec.data.source == "imagefolder" and spec.data.size == (32, 32)
    assert "# ? 2 folders of classes; labels: train 4, val 4, test 4\n  label: {type: classification}" in text


def test_folders_of_classes_with_other_splits(tmp_path):
    root = write_class_folders(tmp_path / "pets")
    (root / "val").rename(root / "valid")
    shutil.rmtree(root / "test")
    spec, text = proposal(root, tmp_path / "out")
    assert spec.data.splits == {"train": "train", "val": "valid", "test": "valid"}
    assert "# ? there is no folder for test; val stands in" in text


def test_class_folders_with_pictures_of_equal_names_that_are_no_labels(tmp_path):
    root = write_class_folders(tmp_path / "x_ray", ["normal", "pneumonia"], each=1)
    assert "source: folder" in scaffold(root, tmp_path)  # ambiguous: normals of the pictures `pneumonia`?
    (root / "train/normal/0.png").rename(root / "train/normal/7.png")
    spec, _ = proposal(root, tmp_path / "out")
    assert spec.data.source == "imagefolder"


def test_the_decathlon(tmp_path):
    root = write_decathlon(tmp_path / "decathlon-1.0")
    spec, text = proposal(root, tmp_path / "out")
    assert (spec.data.source, spec.data.domain, spec.data.size) == ("decathlon", "gtsrb", (72, 72))
    write_decathlon(root, "aircraft")
    assert "domain: aircraft  # ? there are aircraft, gtsrb\n" in scaffold(root, tmp_path)
