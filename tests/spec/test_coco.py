"""Tasks files of COCO: what is wrong with them and how to mend it, and what `check` says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptkit.cli import main
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from tests.coco_files import change, write_coco

DATA = "source: coco"
HELD = "source: coco, hold_out: 25%"
SEG = "seg: {type: segmentation}"
KP = "kp: {type: keypoints}"
PANOPTIC = "seg: {type: segmentation, target: 'annotations/panoptic_{split}.json'}"
INSTANCES = "annotations/instances_train2017.json"
PERSONS = "annotations/person_keypoints_train2017.json"


@pytest.fixture
def coco(tmp_path):
    write_coco(tmp_path / "data")
    return tmp_path


def load(folder: Path, data: str, tasks: str):
    """The tasks file whose root is the folder `data` beside it."""
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {{{data}, root: data, size: [32, 64]}}\ntasks: {{{tasks}}}\n"
    )
    return load_tasks(folder / "t.yaml")


def problems(folder: Path, data: str, tasks: str) -> list[str]:
    with pytest.raises(SpecProblems) as caught:
        load(folder, data, tasks)
    return [f"{p.key} {p.message}".replace(f"{folder}/", "") for p in caught.value.problems]


def check(folder: Path, data: str, tasks: str) -> tuple[list[str], list[str]]:
    """Problems and warnings."""
    report = check_files(load(folder, data, tasks))
    return tuple([m.replace(f"{folder}/", "") for m in found] for found in (report.problems, report.warnings))


@pytest.mark.parametrize(
    ("data", "tasks", "message"),
    [
        (DATA, "d: {type: depth}", "tasks.d.type COCO has no labels for depth; it has segmentation and keypoints"),
        (DATA, "e: {type: edges}",
         "tasks.e.type COCO has no labels for edges; it has segmentation and keypoints; edges"),
        (DATA, "seg: {type: segmentation, ignore_index: 0}", "ignore_index annotation files have no id of unlabelled"),
        (DATA, "seg: {type: segmentation, target: x.json}", "target one file has the labels of a split: a template as"),
        (DATA, "seg: {type: segmentation, target: '{split}/{id}.json'}", "target one file has the labels of a split"),
        (DATA, "seg: {type: segmentation, target: '{split}.csv'}", "tasks.seg.target annotation files end in .json"),
        (DATA, "seg: {type: segmentation, target: '{slit}.json'}", "target unknown placeholder {slit}; did you mean"),
        (DATA, "seg: {type: segmentation, target: 'annotations/instance_{split}.json'}",
         "tasks.seg.target there is no data/annotations/instance_train2017.json; did you mean"),
        (DATA, "seg: {type: segmentation, classes: 4}", "classes expected names of categories, not their number; drop"),
        (DATA, "seg: {type: segmentation, classes: [background, cta]}",
         "'cta' is no category of the annotation file; did you"),
        (DATA, "seg: {type: segmentation, classes: [cat]}", "one class leaves nothing to tell apart; add background"),
        (DATA, "seg: {type: segmentation, classes: none.txt}", "tasks.seg.classes no such file of class names"),
        (DATA, "kp: {type: keypoints, kinds: [noose, left_eye]}",
         "tasks.kp.kinds.0 'noose' is no keypoint of the annotation"),
        (DATA, "kp: {type: keypoints, names: [tail]}",
         "'tail' is no keypoint of the annotation file; there is left_eye, nose"),
        (DATA, "kp: {type: keypoints, target: 'annotations/instances_{split}.json'}", "tasks.kp.target no category of"),
        (DATA, "kp: {type: keypoints, kinds: [nose], flip_pairs: [[nose, ear]]}", "'ear' is not one of kinds: nose"),
        (f"{DATA}, images: 'x/{{split}}'", SEG, "data.images there is no folder data/x/train2017 of the pictures"),
        (f"{DATA}, images: '{{split}}/{{id}}'", SEG, "data.images is the folder of the pictures; the annotation files"),
        (f"{DATA}, images: '{{splt}}'", SEG, "data.images unknown placeholder {splt}; did you mean {split}?"),
        (f"{HELD}, splits: {{val: val2017}}", SEG, "data.hold_out data.splits names a val; give one of both"),
        ("source: coco, hold_out: 5%", SEG, "data.hold_out 0.05 of the pictures of train is less than one"),
        (f"{DATA}, splits: {{val: train2017}}", SEG, "data.splits.val val is 'train2017', what is trained on; results"),
        (f"{DATA}, train_on: [train, val]", SEG,
         "data.train_on val is test too; results on pictures that were trained"),
        (f"{DATA}, splits: {{train: train2014}}", SEG,
         "data.root there is no data/annotations/instances_train2014.json; did you mean"),
    ],
)  # fmt: skip
def test_keys(coco, data, tasks, message):
    found = problems(coco, data, tasks)
    assert any(message in problem for problem in found), found


def test_where_the_files_are(coco):
    shutil.move(coco / "data", coco / "inner")
    shutil.move(coco / "inner", coco / "data/inner")
    assert problems(coco, DATA, SEG)[0] == (
        "data.root there is no data/annotations/instances_train2017.json; data/inner has it: is data.root one folder "
        "too high?"
    )
    root = coco / "data/inner"
    (root / "images").mkdir()
    for word in ("train2017", "val2017"):
        (root / word).rename(root / "images" / word)
    shutil.move(root, coco / "moved")
    shutil.rmtree(coco / "data")
    shutil.move(coco / "moved", coco / "data")
    found = problems(coco, DATA, SEG)
    assert found[0] == (
        "data.root there is no folder data/train2017 of the pictures for train; write images: 'images/{split}'"
    )
    assert check(coco, f"{HELD}, images: 'images/{{split}}'", SEG)[0] == []


def test_nothing_else_raises_where_keys_are_invalid(coco):
    found = problems(coco, f"{DATA}, images: 3, splits: 3, hold_out: 7, occluded: x, train_on: []", SEG)
    assert len(found) >= 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("images"), "is not a mapping with 'images', 'annotations' and 'categories'"),
        (lambda c: c.update(annotations={}) or c.update(annotations="x"), "'annotations' is not a list"),
        (lambda c: c["images"][1].pop("height"), "images[1] has no 'height' that is a whole number"),
        (lambda c: c["images"][1].update(height=0), "images[1] is 60x0 pixels"),
        (lambda c: c["images"][1].update(id=1), "images[1] has the id 1 or the name 000000000002.png of another"),
        (lambda c: c["images"][1].update(file_name="../x.png"),
         "images[1] names ../x.png, which is not below data.images"),
        (lambda c: c["images"][1].update(file_name="/x.png"), "images[1] names /x.png, which is not below data.images"),
        (lambda c: c["categories"][1].update(id=1), "two categories have the id 1 or the name 'cat'"),
        (lambda c: c["categories"][1].pop("name"), "categories[1] has no 'name' that is text"),
        (lambda c: c["categories"][0].update(keypoints=3),
         "keypoints of the category 'person' are not a list of names"),
        (lambda c: c["annotations"][2].update(image_id=99),
         "annotations[2] is of image 99, which is not listed in 'images'"),
        (lambda c: c["annotations"][2].update(category_id=5),
         "annotations[2] is of category 5, which is not in 'categories'"),
        (lambda c: c["annotations"][2].pop("category_id"),
         "annotations[2] has no 'category_id' that is a whole number"),
    ],
)  # fmt: skip
def test_damaged_annotation_files(coco, edit, message):
    change(coco / "data" / INSTANCES, edit)
    (found,) = problems(coco, DATA, SEG)
    assert found == f"data.root data/{INSTANCES}{': ' if 'not a mapping' not in message else ' '}{message}"


def test_a_file_that_is_cut_off(coco):
    text = (coco / "data" / INSTANCES).read_text()
    (coco / "data" / INSTANCES).write_text(text[:500])
    (found,) = problems(coco, DATA, SEG)
    assert found.startswith(f"data.root data/{INSTANCES} is not JSON: ")
    change(
        coco / "data/annotations/instances_val2017.json",
        lambda c: (c["images"].clear(), c["annotations"].clear()),
    )
    (coco / "data" / INSTANCES).write_text(text)
    assert problems(coco, DATA, SEG) == [
        "data.root the annotation files list no pictures for val",
        "data.root the annotation files list no pictures for test",
    ]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "has no 'segmentation' that is polygons or run lengths (size and counts)"),
        ([[1, 2, 3, 4]], "has a polygon that is no [x, y, x, y, x, y, ...] of three points or more"),
        ([[1, 2, 3, 4, 5, None]], "has a polygon that is no [x, y, x, y, x, y, ...] of three points or more"),
        (
            {"size": [60, 40], "counts": [2400]},
            "has run lengths of size [60, 40]; its image is 40x60 (height x width)",
        ),
        ({"size": [40, 60], "counts": [2, 3]}, ": its run lengths add up to 5, not to 40 x 60 pixels"),
        ({"size": [40, 60], "counts": "0P"}, ": its run lengths are cut off"),
        ({"size": [40, 60], "counts": {}}, ": its run lengths are neither numbers nor text"),
    ],
)
def test_damaged_masks(coco, segmentation, message):
    change(coco / "data" / INSTANCES, lambda c: c["annotations"][0].update(segmentation=segmentation))
    (found,) = check(coco, HELD, SEG)[0]
    joint = "" if message.startswith(":") else " "
    assert found == f"seg: data/{INSTANCES}: annotation 100 of 000000000001.png{joint}{message}"


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([1, 2, 2], "has keypoints that are no [x, y, v, ...] of 3 points"),
        (["a"] * 9, "has keypoints that are no [x, y, v, ...] of 3 points"),
        ([1, 2, 3, *[0] * 6], ": nose has visibility 3; 0 is no label, 1 occluded, 2 visible"),
    ],
)
def test_damaged_points(coco, keypoints, message):
    change(coco / "data" / PERSONS, lambda c: c["annotations"][0].update(keypoints=keypoints))
    (found,) = check(coco, HELD, KP)[0]
    joint = "" if message.startswith(":") else " "
    assert found == f"kp: data/{PERSONS}: annotation 200 of 000000000001.png{joint}{message}"


def test_what_check_counts_and_finds(coco):
    problems, warnings = check(coco, HELD, f"{SEG}, {KP}, edges: {{type: edges, derive: [seg]}}")
    assert problems == [] and warnings == []
    report = check_files(load(coco, HELD, f"{SEG}, kp: {{type: keypoints, names: [nose]}}"))
    assert report.splits["train"].labels == {"seg": 3, "kp": 2}  # the second picture holds nobody
    assert report.splits["test"].labels == {"seg": 2, "kp": 1}
    pictures = coco / "data/train2017"
    (pictures / "000000000001.png").unlink()
    (pictures / "000000000002.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(pictures / "000000000003.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(pictures / "000000000004.png")
    change(coco / "data" / PERSONS, lambda c: c["annotations"][4].update(keypoints=[70, 1, 2, *[0] * 6]))
    problems, warnings = check(coco, HELD, f"{SEG}, {KP}")
    assert problems[0] == "train2017/000000000001.png is missing"
    assert problems[1].startswith("train2017/000000000002.png cannot be read: ")
    assert problems[2] == (
        "train2017/000000000003.png is 40x60 pixels; data/annotations/instances_train2017.json says 60x40, another "
        "shape: is it cut or turned since it was annotated?"
    )
    assert len(problems) == 4  # as above, by the file of the keypoints
    assert any("has 1 visible points outside its picture of 60x40 pixels" in warning for warning in warnings)
    assert any("000000000004.png is 30x20 pixels" in warning for warning in warnings)


def test_what_train_has_nothing_of(coco):
    (warning,) = check(coco, HELD, "kp: {type: keypoints, kinds: [nose]}")[1] or [""]
    assert warning == ""
    change(coco / "data" / INSTANCES, lambda c: c["annotations"].__delitem__(slice(None)))
    warnings = check(coco, DATA, SEG)[1]
    assert (
        "seg: train has nothing of person, cat, chair (data/annotations/instances_train2017.json)" in warnings
    )
    assert any(warning.startswith("val is test too") for warning in warnings)
    change(coco / "data" / PERSONS, lambda c: c["annotations"].clear())
    (found,) = check(coco, HELD, "kp: {type: keypoints, names: [nose]}")[0]
    assert found == f"kp: no picture of train has a label (data/{PERSONS})"


def test_damaged_panoptic_pictures(coco):
    folder = coco / "data/annotations/panoptic_train2017"
    assert check(coco, HELD, PANOPTIC) == ([], [])
    (folder / "000000000001.png").unlink()
    Image.fromarray(np.full((40, 60, 3), 9, np.uint8)).save(folder / "000000000003.png")
    first, second = check(coco, HELD, PANOPTIC)[0]
    assert first.startswith("seg: data/annotations/panoptic_train2017/000000000001.png cannot be read")
    assert second == (
        "seg: data/annotations/panoptic_train2017/000000000003.png holds the segment 592137, which "
        "data/annotations/panoptic_train2017.json does not list"
    )
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(folder / "000000000001.png")
    assert "has shape 40x60; expected a colour picture of segment ids" in check(coco, HELD, PANOPTIC)[0][0]
    change(folder.with_suffix(".json"), lambda c: c["annotations"][0].update(file_name="../x.png"))
    assert "annotations[0] names ../x.png, which is not below" in problems(coco, DATA, PANOPTIC)[0]


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["tasks.seg.target='annotations/panoptic_{split}.json'"],
        ["tasks.seg.classes=[background, person, cat]"],
        ["tasks.points={type: keypoints, names: [nose, left_eye, right_eye]}", "data.occluded=hide"],
    ],
)
def test_the_shipped_file_with_what_its_header_names(coco, capsys, changes):
    command = ["check", "coco", "--set", f"data.root={coco / 'data'}", "data.hold_out=25%", *changes]
    assert main(command) == 0, capsys.readouterr().out


def test_check_counts_pixels_and_points_of_each_class(coco):
    tasks = f"{SEG}, {KP}, edges: {{type: edges, derive: [seg]}}"
    report = check_files(load(coco, HELD, tasks))
    counts = report.as_json()["classes"]
    # pictures 1 and 3 of three; a cat of 6 x 6 and 2 x 2, on a chair of 20 x 10; a person of 10 x 5, a crowd of 10 rows
    assert counts["seg"]["train"]["cat"] == {"pictures": 2, "pixels": 2 * (36 + 4)}
    assert counts["seg"]["train"]["chair"] == {"pictures": 2, "pixels": 2 * (200 - 40)}
    assert counts["seg"]["train"]["person"] == {"pictures": 2, "pixels": 2 * 50}
    assert counts["seg"]["train"]["background"]["pixels"] == 3 * 40 * 60 - 2 * (200 + 50 + 10 * 60 - 5 * 5)
    assert counts["kp"]["train"]["nose"] == {"pictures": 2, "points": 4}
    assert counts["kp"]["train"]["right_eye"] == {"pictures": 2, "points": 2}
    assert "seg: pictures with each class" in str(report)


def only(content: dict, images: list[dict]) -> None:
    """Leaves some images, with their annotations."""
    numbers = [image["id"] for image in images]
    content["images"] = images
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in numbers]


def test_edges_are_derived_where_all_that_they_are_of_is_labelled(coco):
    other = "more: {type: segmentation, target: 'annotations/more_{split}.json', classes: [cat, background]}"
    for word in ("train2017", "val2017"):
        whole = coco / f"data/annotations/instances_{word}.json"
        part = coco / f"data/annotations/more_{word}.json"
        shutil.copy(whole, part)
        change(part, lambda c: only(c, c["images"][:1]))
    change(coco / "data" / INSTANCES, lambda c: only(c, c["images"][1:]))
    edges = f"{SEG}, {other}, edges: {{type: edges, derive: [seg, more]}}"
    report = check_files(load(coco, DATA, edges))
    assert report.splits["train"].labels == {"seg": 3, "more": 1, "edges": 0}
    assert any(m.startswith("edges: no picture of train has a label") for m in report.problems)
