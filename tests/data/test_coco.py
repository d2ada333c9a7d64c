"""COCO from its own files: every value that a target holds, worked out by hand."""

import numpy as np
import pytest
import torch

from perceptkit.cli import main
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.spec.stage_steps import count_pictures
from perceptkit.tasks.table import build_tasks
from tests.coco_files import POINTS, as_text, change, run_lengths, write_coco

DATA = "source: coco, size: [40, 60]"
SEG = "seg: {type: segmentation}"
KP = "kp: {type: keypoints}"
NAMED = "kp: {type: keypoints, names: [nose, left_eye, right_eye]}"


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Of tests that change nothing."""
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder / "data")
    return folder


def load(folder, data, tasks, name="t"):
    path = folder / f"{name}.yaml"
    path.write_text(f"name: t\ndata: {{{data}, root: data}}\ntasks: {{{tasks}}}\n")
    spec = load_tasks(path).spec
    return spec, build_tasks(spec)


def targets(folder, data, tasks, index=0):
    spec, built = load(folder, data, tasks)
    return open_split(spec, built, "train").load(index).targets


def test_segmentation(coco):
    spec, tasks = load(coco, DATA, SEG)
    assert tasks["seg"].labels == ["background", "person", "cat", "chair"]
    source = open_split(spec, tasks, "train")
    assert list(source.ids) == [f"{i:012}.png" for i in (1, 2, 3, 4)]
    sample = source.load(2)
    assert (sample.image == 3).all()
    expected = np.zeros((40, 60), np.int64)
    expected[10:20, 10:30] = 3  # the chair,
    expected[12:18, 12:18] = 2  # on it the cat, of two parts,
    expected[12:14, 20:22] = 2
    expected[30:] = -1  # a crowd,
    expected[25:35, 50:55] = 1  # and before it a person
    seg = sample.targets["seg"]
    assert seg.dtype == np.int64 and (seg == expected).all()
    assert (source.load(1).targets["seg"] == 0).all()  # nothing in it: all background


def test_categories_that_are_not_declared(coco):
    seg = targets(coco, DATA, "seg: {type: segmentation, classes: [chair, background]}")["seg"]
    # the cat hides the chair and is background, as is the person before the crowd
    assert (
        (seg[10:12, 10:30] == 0).all() and (seg[12:18, 12:18] == 1).all() and (seg[25:35, 50:55] == 1).all()
    )
    assert (seg[35:] == -1).all() and (seg[:10] == 1).all()
    seg = targets(coco, DATA, "seg: {type: segmentation, classes: [chair, cat]}")["seg"]
    assert (seg[:10] == -1).all() and (seg[25:35, 50:55] == -1).all() and (seg[12:18, 12:18] == 1).all()


def test_panoptic(coco):
    task = "seg: {type: segmentation, target: 'annotations/panoptic_{split}.json'%s}"
    spec, tasks = load(coco, DATA, task % "")
    assert tasks["seg"].labels == ["cat", "grass"]  # by category id, 17 and 193
    source = open_split(spec, tasks, "train")
    expected = np.full((40, 60), -1)
    expected[20:36] = 1
    expected[22:26, 3:9] = 0
    assert (source.load(0).targets["seg"] == expected).all()
    assert (source.load(1).targets["seg"] == -1).all()  # has no annotation
    seg = targets(coco, DATA, task % ", classes: [background, cat]")["seg"]
    assert (seg == np.where(expected == 1, 0, np.where(expected == 0, 1, -1))).all()


def test_points_of_all_persons_by_kind(coco):
    spec, tasks = load(coco, DATA, KP)
    assert tasks["kp"].labels == POINTS and not tasks["kp"].has_names
    assert spec.tasks["kp"].flip_pairs == [("left_eye", "right_eye")] and tasks["kp"].flip_index == [0, 2, 1]
    source = open_split(spec, tasks, "train")
    points = source.load(0).targets["kp"]
    # the larger person first; its occluded eye counts, the one without label does not
    expected = [[29.5, 19.5, 0], [31, 18, 1], [5, 6, 0], [4, 5, 1], [6, 5, 2]]
    assert points[:5].tolist() == expected and (points[5:, 2] == -1).all()
    nobody = source.load(1).targets["kp"]
    assert (nobody[:, 2] == -1).all() and bool(tasks["kp"].is_labelled(torch.from_numpy(nobody)[None]))
    points = targets(coco, f"{DATA}, occluded: hide", "kp: {type: keypoints, kinds: [left_eye, nose]}")["kp"]
    assert points[:3].tolist() == [[29.5, 19.5, 1], [5, 6, 1], [4, 5, 0]] and (points[3:, 2] == -1).all()


def test_points_of_the_largest_person_by_name(coco):
    spec, tasks = load(coco, DATA, NAMED)
    source = open_split(spec, tasks, "train")
    assert source.load(0).targets["kp"].tolist() == [[29.5, 19.5, 2], [31, 18, 2], [0, 0, 0]]
    assert not tasks["kp"].is_labelled(torch.from_numpy(source.load(1).targets["kp"])[None])
    hidden = targets(coco, f"{DATA}, occluded: hide", NAMED)["kp"]
    assert hidden.tolist() == [[29.5, 19.5, 2], [31, 18, 1], [0, 0, 0]]
    # the largest that has any of the names: of the larger person this eye has no label
    only = targets(coco, DATA, "kp: {type: keypoints, names: [right_eye]}")["kp"]
    assert only.tolist() == [[6, 5, 2]]


def test_labels_follow_the_size_of_the_annotations(coco):
    """Twice as large: the centre of pixel 5 is at 2 * 5.5 - 0.5 then."""
    both = targets(coco, "source: coco, size: [80, 120]", f"{SEG}, {NAMED}")
    assert both["kp"][0].tolist() == [59.5, 39.5, 2]
    assert (both["seg"][20:24, 20:60] == 3).all() and (both["seg"][24:36, 24:36] == 2).all()


def test_many_persons_are_cut_off_after_the_largest(tmp_path):
    root = write_coco(tmp_path / "data")
    file = root / "annotations/person_keypoints_train2017.json"

    def crowd(content):
        person = content["annotations"][0]
        content["annotations"] = [{**person, "id": i, "area": i} for i in range(1, 101)]
        for found in content["annotations"]:
            found["keypoints"] = [found["area"] / 10, 0, 2, 1, 1, 2, 2, 2, 2]

    change(file, crowd)
    points = targets(tmp_path, DATA, KP)["kp"]
    # 256 points hold 85 persons of three, from the largest on
    assert (points[:, 2] >= 0).sum() == 255 and points[0, 0] == 10 and points[252, 0] == pytest.approx(1.6)


def test_pictures_that_one_file_does_not_list(tmp_path):
    root = write_coco(tmp_path / "data")
    change(root / "annotations/person_keypoints_train2017.json", lambda content: content["images"].pop(1))
    spec, tasks = load(tmp_path, DATA, f"{KP}, {SEG}, edges: {{type: edges, derive: [seg]}}")
    source = open_split(spec, tasks, "train")
    assert list(source.ids) == [f"{i:012}.png" for i in (1, 3, 4, 2)]
    found = source.load(3).targets
    assert np.isnan(found["kp"]).all() and (found["seg"] == 0).all()
    edges = source.load(0).targets["edges"]
    assert edges[0, 10, 15] == 1 or edges[0, 9, 15] == 1  # the chair's upper side


def test_splits(coco):
    spec, tasks = load(coco, f"{DATA}, hold_out: 25%", SEG)
    sizes = [len(open_split(spec, tasks, name)) for name in ("train", "val", "test")]
    assert sizes == [3, 1, 2] == [count_pictures(spec, name) for name in ("train", "val", "test")]
    assert open_split(spec, tasks, "val").ids == ["000000000004.png"]
    assert len(open_split(spec, {}, "test")) == 2 and not open_split(spec, {}, "test").load(0).targets
    assert len(open_train(*load(coco, f"{DATA}, limit: 1", SEG))) == 1


def test_files_of_other_names(tmp_path):
    """As tools export them: a folder for each split that holds its pictures and its file."""
    root = tmp_path / "data"
    write_coco(root, {"train": 1, "valid": 11, "test": 21})
    for word in ("train", "valid", "test"):
        (root / f"annotations/instances_{word}.json").rename(root / word / "_annotations.coco.json")
    data = f"{DATA}, splits: {{train: train, val: valid, test: test}}"
    spec, tasks = load(tmp_path, data, "seg: {type: segmentation, target: '{split}/_annotations.coco.json'}")
    assert [int(open_split(spec, tasks, s).load(0).image[0, 0, 0]) for s in ("train", "val", "test")] == [
        1,
        11,
        21,
    ]


def test_run_lengths_there_and_back():
    from perceptkit.spec.coco_masks import counts_of_text, runs_mask

    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        mask = rng.random((37, 53)) < share
        counts = run_lengths(mask)
        assert counts_of_text(as_text(counts)) == counts
        assert (runs_mask(counts, (37, 53)) == mask).all()
    long = [0, 100000, 3, 70000, 1, 2]
    assert counts_of_text(as_text(long)) == long


def test_files_that_changed_since_the_check(tmp_path):
    root = write_coco(tmp_path / "data")
    spec, tasks = load(tmp_path, DATA, SEG)
    source = open_split(spec, tasks, "train")
    (root / "train2017/000000000001.png").unlink()
    with pytest.raises(DataError, match=r"000000000001.png: no such file"):
        source.load(0)
    change(root / "annotations/instances_train2017.json", lambda content: content["images"].clear())
    with pytest.raises(DataError, match=r"annotations\[0\] is of image 1, which is not listed"):
        open_split(spec, tasks, "train")
    change(root / "annotations/instances_train2017.json", lambda content: content["annotations"].clear())
    with pytest.raises(DataError, match="no pictures for train in "):
        open_split(spec, tasks, "train")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[], ["tasks.points={type: keypoints, names: [nose, left_eye]}"]])
def test_dry_run_of_the_shipped_tasks_file(coco, capsys, changes):
    small = [
        "backbone={name: test_resnet, weights: none}",
        "heads.channels=8",
        "loader.batch=2",
        "loader.workers=0",
    ]
    changes = [*changes, *small, f"data.root={coco / 'data'}", "data.size=[64, 64]", "data.hold_out=25%"]
    assert main(["train", "coco", "--recipe", "hard", "--dry-run", "--set", *changes]) == 0, (
        capsys.readouterr().err
    )
