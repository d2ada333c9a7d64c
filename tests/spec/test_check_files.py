"""`check`: counts, samples, and the file and values that every fault names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.check_labels import check_dense
from perceptkit.spec.check_report import CheckReport
from perceptkit.spec.load import load_tasks
from perceptkit.spec.tasks_file import DepthSpec

HEAD = """
name: t
data: {source: folder, root: data, image: "{split}/{id}.png", size: [32, 32]}
tasks:
"""
H, W = 4, 6


def save(path: Path, values) -> None:
    """Writes an array as the picture or .npy that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.asarray(values)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    for i, split in enumerate(("train", "val", "test")):
        for image_id in ("1", "2"):
            values = np.full((H, W, 3), 10 * i + int(image_id), np.uint8)
            save(tmp_path / "data" / split / f"{image_id}.png", values)
    return tmp_path / "data"


def check(root: Path, tasks: str, **options) -> CheckReport:
    (root.parent / "t.yaml").write_text(HEAD + tasks)
    return check_files(load_tasks(root.parent / "t.yaml"), **options)


def one(report: CheckReport) -> str:
    """The only problem."""
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def label_all(root: Path, folder: str, values, ending: str = "png") -> None:
    for split in ("train", "val", "test"):
        save(root / folder / split / f"1.{ending}", values)


SEG = "  seg: {type: segmentation, target: seg/{split}/{id}.png, classes: 40}\n"
DEPTH = "  depth: {type: depth, target: depth/{split}/{id}.npy, max: 10}\n"
NORMALS = "  normals: {type: normals, target: normals/{split}/{id}.png}\n"


def test_counts_and_missing_labels(root):
    label_all(root, "seg", np.full((H, W), 255, np.uint8))
    save(root / "seg/train/1.png", np.zeros((H, W), np.uint8))
    save(root / "seg/train/stranger.png", np.zeros((H, W), np.uint8))
    report = check(root, SEG + "  edges: {type: edges, derive: [seg]}\n")
    assert (report.splits["train"].images, report.splits["train"].labels) == (2, {"seg": 1, "edges": 1})
    assert not report.problems and str(report).endswith("ok")
    assert report.warnings == ["seg/val/1.png has no labelled pixel", "seg/test/1.png has no labelled pixel"]


def test_edges_are_derived_where_all_that_they_are_of_is_labelled(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    for split in ("train", "val", "test"):
        save(root / f"depth/{split}/2.npy", np.ones((H, W), np.float32))
    report = check(root, SEG + DEPTH + "  edges: {type: edges, derive: [seg, depth]}\n")
    assert report.splits["train"].labels == {"seg": 1, "depth": 1, "edges": 0}
    assert one(report) == "edges: no picture of train has a label"


def test_the_share_of_the_only_class(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    assert "  0      1 (100 %)" in str(check(root, SEG))


def test_class_id_out_of_range(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    save(root / "seg/train/1.png", np.array([[0, 41, 255, 39]] * 4, np.uint8))
    report = check(root, SEG)
    assert one(report) == "seg/train/1.png holds class id 41; 40 classes are declared; 255 is ignored"
    with pytest.raises(DataError, match="1 problem:\n  seg/train/1.png holds class id 41"):
        report.raise_problems()


def test_many_class_ids(root):
    label_all(root, "seg", np.arange(50, 74, dtype=np.uint8).reshape(H, W))
    assert check(root, SEG).problems[0].startswith("seg/train/1.png holds class ids 50, 51, 52 and 21 more; ")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((H, W, 3), np.uint8), "has shape 4x6x3; expected one value per pixel"),
        (np.zeros((H, W, 4), np.uint8), "has shape 4x6x4; expected one value per pixel"),
    ],
)
def test_a_colour_picture_is_no_label_map(root, values, reason):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    save(root / "seg/train/1.png", values)
    assert one(check(root, SEG)) == f"seg/train/1.png {reason}"


def test_palette_and_sixteen_bit_labels(root):
    label_all(root, "seg", np.zeros((H, W), np.uint16))
    palette = Image.fromarray(np.full((H, W), 39, np.uint8)).convert("P")
    palette.putdata([39] * (H * W))
    palette.save(root / "seg/train/1.png")
    assert not check(root, SEG).problems


def test_size_mismatch_is_a_warning(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    save(root / "seg/train/1.png", np.zeros((2 * H, W), np.uint8))
    report = check(root, SEG)
    assert not report.problems
    assert report.warnings == ["seg/train/1.png is 6x8 pixels, its picture 6x4; both are resized"]


@pytest.mark.parametrize(
    ("values", "problem", "warning"),
    [
        ([[1.0, -2.0]], "holds negative depth (-2 m); 0 means invalid", None),
        ([[1.0, np.nan]], None, "holds NaN in 50 % of its pixels; they are invalid"),
        ([[1.0, np.inf]], None, "holds infinite depth in 50 % of its pixels; they are invalid"),
        ([[0.0, 0.0]], None, "has no valid depth"),
        (
            [[1000.0, 2000.0]],
            None,
            "is mostly invalid: its median is 1500 m, above max 10; is 'scale' right?",
        ),
        ([[1.0, 2.0]], None, None),
    ],
)
def test_depth(root, values, problem, warning):
    label_all(root, "depth", np.ones((H, W)), "npy")
    save(root / "depth/train/1.npy", np.repeat(np.repeat(np.array(values), 4, 0), 3, 1))
    report = check(root, DEPTH)
    assert report.problems == ([f"depth/train/1.npy {problem}"] if problem else [])
    assert report.warnings == ([f"depth/train/1.npy {warning}"] if warning else [])


@pytest.mark.parametrize(("invalid", "share"), [(1, "0.4"), (125, "50"), (249, "99.6"), (250, "100")])
def test_the_share_of_invalid_depth(root, invalid, share):
    values = np.ones(250)
    values[:invalid] = np.nan
    first, *_ = check_dense(DepthSpec(type="depth"), values.reshape(10, 25), 0)
    assert first.message == f"holds NaN in {share} % of its pixels; they are invalid"


def test_normals_in_the_wrong_frame(root):
    towards_viewer = np.full((H, W, 3), (128, 128, 0), np.uint8)  # camera axes: z = -1
    label_all(root, "normals", towards_viewer)
    assert not check(root, NORMALS).warnings
    report = check(root, NORMALS.replace("}\n", "}").replace("png}", "png, frame: opengl}"))
    assert "100 % of its normals point away from the viewer; is 'frame: opengl' right?" in report.warnings[0]


def test_normals_of_wrong_length(root):
    label_all(root, "normals", np.full((H, W, 3), (255, 255, 1), np.uint8))
    assert (
        check(root, NORMALS).problems[0].startswith("normals/train/1.png holds vectors of median length 1.7")
    )


def test_broken_files(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    label_all(root, "depth", np.ones((H, W)), "npy")
    (root / "seg/train/1.png").write_bytes(b"not a picture")
    np.save(root / "depth/train/1.npy", np.array([{}], object), allow_pickle=True)
    (root / "train/1.png").write_bytes((root / "train/2.png").read_bytes()[:40])
    problems = check(root, SEG + DEPTH).problems
    starts = [
        "train/1.png cannot be read: ",
        "seg/train/1.png cannot be read: ",
        "depth/train/1.npy cannot be read: ",
    ]
    assert len(problems) == 3
    assert all(p.startswith(start) for p, start in zip(problems, starts, strict=True)), problems


NAMED = "  kp: {type: keypoints, target: kp/{split}/{id}.json, names: [left, right]}\n"


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ('{"left": [1, 2, 2], "right": [0, 0, 0]}', None),
        ('{"left": [1, 2], "right": null}', None),
        ('{"left": [1]}', "left is [1]; expected [x, y] or [x, y, visibility]"),
        (
            '{"left": [1, 2, 3]}',
            "left has visibility 3; expected 0 (no label), 1 (hidden) or 2 (visible)",
        ),
        ('{"lft": [1, 2, 2]}', "has a point 'lft', which is not one of names; did you mean 'left'?"),
        ("[[1, 2, 2]]", "is not a mapping of names to [x, y, visibility]"),
        ('{"left": [1, NaN, 2]}', "left is [1, NaN, 2]; expected [x, y] or [x, y, visibility]"),
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_named_points(root, points, problem):
    for split in ("train", "val", "test"):
        (root / "kp" / split).mkdir(parents=True)
        (root / "kp" / split / "1.json").write_text("{}")
    (root / "kp/train/1.json").write_text(points)
    report = check(root, NAMED)
    assert report.problems == ([f"kp/train/1.json {problem}"] if problem else [])


def test_point_kinds_of_a_whole_split(root):
    for split in ("train", "val", "test"):
        (root / f"kp_{split}.json").write_text(json.dumps({"1": [[1, 2, 0]], "9": []}))
    (root / "kp_train.json").write_text(json.dumps({"1": [[1, 2, 1], "x", [1, 2, "corner"]], "2": []}))
    report = check(root, "  kp: {type: keypoints, target: kp_{split}.json, kinds: [corner]}\n")
    assert report.splits["train"].labels == {"kp": 2} and report.splits["val"].labels == {"kp": 1}
    assert report.problems == [
        "kp_train.json: 1 point 0 is of kind 1; expected one of: 0 (corner)",
        'kp_train.json: 1 point 1 is "x"; expected [x, y, kind]',
    ]
    assert report.warnings[0] == "kp_val.json labels '9', but there is no such picture"


def test_unknown_class_in_a_csv(root):
    (root / "room.csv").write_text("id,label\n1,kitchen\n2,kichen\n")
    report = check(root, "  room: {type: classification, target: room.csv, classes: [bath, kitchen]}\n")
    expected = "room.csv: 2 has the label 'kichen', which is not one of the classes; did you mean 'kitchen'?"
    assert set(report.problems) == {expected}


def test_a_file_for_all_splits_is_complained_of_once(root):
    (root / "rooms.csv").write_text("id,label\n1,hall\n2,kitchen\n")
    report = check(root, "  room: {type: classification, target: rooms.csv, classes: [kitchen, bath]}\n")
    assert "'hall'" in one(report)


def test_too_many_points(root):
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(json.dumps({"1": [[1, 1, "a"]] * 257}))
    report = check(root, "  p: {type: keypoints, target: '{split}.json', kinds: [a]}\n")
    assert (
        len(report.problems) == 3 and "has 257 points; a picture can have 256 at most" in report.problems[0]
    )


def test_no_label_at_all(root):
    label_all(root, "depth", np.ones((H, W)), "npy")
    report = check(root, SEG + DEPTH)
    assert one(report) == "seg: no picture of train has a label (seg/train/*.png)"
    assert len(report.warnings) == 2  # val, test


def test_a_sample_is_spread_and_said(root):
    for i in range(10):
        save(root / f"train/x{i}.png", np.zeros((H, W, 3), np.uint8))
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    report = check(root, SEG, sample=5)
    assert report.splits["train"].opened == 5
    assert "opened 5 of 12 pictures of train; --everything opens all" in str(report)
    assert check(root, SEG, everything=True, sample=5).splits["train"].opened == 12


def test_scenes_have_all_labels(tmp_path):
    (tmp_path / "t.yaml").write_text("name: x\ndata: {source: scenes}\ntasks: {d: {type: depth}}\n")
    report = check_files(load_tasks(tmp_path / "t.yaml"))
    assert {split: counts.images for split, counts in report.splits.items()} == {
        "train": 1000,
        "val": 200,
        "test": 300,
    }
    assert str(report).endswith("ok")


def test_val_that_is_trained_on_is_no_measure(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    (root.parent / "t.yaml").write_text(HEAD + SEG)
    report = check_files(load_tasks(root.parent / "t.yaml", ["data.train_on=[train,val]"]))
    assert report.warnings == [
        "val is trained on too (data.train_on): its metrics say nothing of new pictures"
    ]


def test_normals_of_which_some_are_no_unit_vectors(root):
    normals = np.zeros((10, 10, 3), np.float32)
    normals[..., 2] = -1
    normals[:2] *= 3  # a fifth
    label_all(root, "normals", normals, "npy")
    report = check(root, NORMALS.replace("png", "npy"))
    assert not report.problems
    assert "normals/train/1.npy 20 % of its normals are not of length 1 (encoding: signed)" in report.warnings


def test_a_picture_in_two_splits_is_named_with_both_ids(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    (root / "test/9.png").write_bytes((root / "train/2.png").read_bytes())
    report = check(root, SEG)
    assert not report.problems
    assert report.warnings == ["train/2.png ('2' of train) is '9' of test too, byte for byte (test/9.png)"]
    assert [bad[:2] for bad in report.bad] == [("train", "2")]


def test_leaks_are_looked_for_beyond_the_sample(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    (root / "val/9.png").write_bytes((root / "train/2.png").read_bytes())
    report = check(root, SEG, sample=1)
    assert report.splits["train"].opened == 1 and len(report.warnings) == 1


def test_classes_by_split(root):
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    save(root / "seg/train/2.png", np.repeat(np.array([[0, 0, 3, 3, 3, 255]], np.uint8), H, 0))
    (root / "room.csv").write_text("id,label\n1,kitchen\n2,1\n77,bath\n")
    room = "  room: {type: classification, target: room.csv, classes: [bath, kitchen]}\n"
    report = check(root, SEG.replace("40", "4") + room + NAMED.replace("kp/{split}/{id}", "kp"))
    found = report.as_json()["classes"]
    assert found["seg"]["train"]["3"] == {"pictures": 1, "pixels": 3 * H}
    assert found["seg"]["train"]["0"] == {"pictures": 2, "pixels": H * W + 2 * H}
    assert found["room"]["val"] == {"bath": {"pictures": 0}, "kitchen": {"pictures": 2}}
    lines = str(report).splitlines()
    assert "room: pictures with each class" in lines and "  kitchen      2    2     2" in lines


def test_points_of_a_whole_split_are_counted(root):
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(json.dumps({"1": [[1, 1, "a"], [2, 2, 1]], "2": [[0, 0, 0]]}))
    report = check(root, "  p: {type: keypoints, target: '{split}.json', kinds: [a, b]}\n")
    expected = {"a": {"pictures": 2, "points": 2}, "b": {"pictures": 1, "points": 1}}
    assert report.as_json()["classes"]["p"]["val"] == expected


@pytest.fixture
def broken(root) -> Path:
    """Train: a truncated picture with a sound label, and a sound picture with a label that is empty."""
    label_all(root, "seg", np.zeros((H, W), np.uint8))
    (root / "train/1.png").write_bytes((root / "train/1.png").read_bytes()[:40])
    (root / "seg/train/2.png").write_bytes(b"")
    return root


def test_the_fix_list(broken, tmp_path):
    report = check(broken, SEG)
    assert len(report.problems) == 2
    report.write_fix_list(tmp_path / "new/fix.tsv")
    rows = [line.split("\t") for line in (tmp_path / "new/fix.tsv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["train", "1"], ["train", "2"]]
    assert rows[0][2].startswith("train/1.png cannot be read: ")
    assert rows[1][2].startswith("seg/train/2.png cannot be read: ")


def test_what_will_be_left_out_is_no_problem(broken):
    label_all(broken, "normals", np.full((H, W, 3), (255, 255, 1), np.uint8))  # is read, but means nothing
    (broken.parent / "t.yaml").write_text(HEAD + SEG + NORMALS)
    report = check_files(load_tasks(broken.parent / "t.yaml", ["data.on_bad=skip"]))
    left_out = [warning for warning in report.warnings if warning.endswith("; left out (data.on_bad: skip)")]
    assert [warning.split(" ")[0] for warning in left_out] == ["train/1.png", "seg/train/2.png"]
    assert len(report.problems) == 3 and all("median length" in problem for problem in report.problems)
