"""`perceptkit check` of shards and parquet files: counts, problems of keys and of what the files hold."""

import json

import numpy as np
import pytest

from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.packed import packed_classes
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.stage_steps import count_pictures
from tests.packed_files import class_map, grey, npy, png, sample, write_parquet, write_shards, write_tar

SHARDS = 'source: webdataset, root: data, shards: "{split}-*.tar"'
PARQUET = 'source: huggingface, root: data, files: "data/{split}-*.parquet"'
SEG = "seg: {type: segmentation, target: seg.png, classes: 3}"
ROOM = "room: {type: classification, target: 'json:room'}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shards(folder):
    return write_shards(folder / "data")


@pytest.fixture
def parquet(folder):
    pytest.importorskip("datasets")
    return write_parquet(folder / "data")


def load(data=SHARDS, tasks=SEG, size="size: [32, 32]"):
    with open("t.yaml", "w") as file:
        file.write(f"name: t\ndata: {{{data}, {size}}}\ntasks: {{{tasks}}}\n")
    return load_tasks("t.yaml")


def problems(data=SHARDS, tasks=SEG):
    with pytest.raises(SpecProblems) as caught:
        load(data, tasks)
    return [f"{problem.key} {problem.message}" for problem in caught.value.problems]


ALL = f"""{SEG}, {ROOM}, depth: {{type: depth, target: depth.npy}}, edges: {{type: edges, derive: [seg, depth]}},
 number: {{type: classification, target: cls}}, place: {{type: embedding, target: cls, dims: 4}},
 tags: {{type: classification, target: "json:tags", multi_label: true, classes: [old]}},
 points: {{type: keypoints, target: "json:points", kinds: [a, b]}}"""


def test_check_of_shards(shards):
    report = check_files(load(tasks=ALL))
    assert not report.problems and not report.warnings
    tasks = ("seg", "room", "depth", "edges", "number", "place", "tags", "points")
    assert report.splits["train"].labels == dict.fromkeys(tasks, 7)
    assert report.splits["val"].labels == dict.fromkeys(tasks, 8)
    assert {split: counts.images for split, counts in report.splits.items()} == dict.fromkeys(
        report.splits, 8
    )
    # numbers 0 to 7 without 1, modulo 3: bath 0, 3, 6; hall 4, 7; attic 2, 5
    assert report.as_json()["classes"]["room"]["train"] == {
        "attic": {"pictures": 2}, "bath": {"pictures": 3}, "hall": {"pictures": 2},
    }  # fmt: skip
    assert report.as_json()["classes"]["seg"]["train"]["1"] == {"pictures": 2, "pixels": 2 * 23 * 32}
    assert report.as_json()["classes"]["points"]["train"] == {
        "a": {"pictures": 4, "points": 4}, "b": {"pictures": 3, "points": 3},
    }  # fmt: skip


def test_check_of_parquet_files(parquet):
    tasks = """seg: {type: segmentation, classes: 3}, depth: {type: depth}, kind: {type: classification},
     room: {type: classification}, place: {type: embedding, target: kind, dims: 4},
     tags: {type: classification, multi_label: true}, points: {type: keypoints, kinds: [a, b]}"""
    report = check_files(load(PARQUET, tasks))
    assert not report.problems and not report.warnings
    assert report.splits["train"].labels == dict.fromkeys(report.splits["val"].labels, 7)
    # the order is that of the ClassLabel, not of the alphabet
    assert report.as_json()["classes"]["room"]["train"] == {
        "bath": {"pictures": 3}, "hall": {"pictures": 2}, "attic": {"pictures": 2},
    }  # fmt: skip
    spec = load(PARQUET, tasks).spec
    assert packed_classes("kind", spec.tasks["kind"], spec.data) == ["a", "b"]
    assert packed_classes("tags", spec.tasks["tags"], spec.data) == ["old", "big"]


def test_names_in_another_order_are_names(parquet):
    spec = load(PARQUET, "room: {type: classification, classes: [attic, bath, hall]}").spec
    report = check_files(load(PARQUET, "room: {type: classification, classes: [attic, bath, hall]}"))
    assert packed_classes("room", spec.tasks["room"], spec.data) == ["attic", "bath", "hall"]
    assert report.as_json()["classes"]["room"]["train"]["bath"] == {"pictures": 3} and not report.problems
    report = check_files(load(PARQUET, "room: {type: classification, classes: [attic, bath]}"))
    assert report.problems[0].startswith(
        "room: data/data/train-00001-of-00002.parquet: row 0, room has the label 'hall', which is not one of"
    )


def test_splits_and_limit(shards, folder):
    one = 'source: webdataset, root: data, shards: {train: "{train,val}-{000000..000001}.tar", val: "test-000000.tar"'
    spec = load(f'{one}, test: "test-000001.tar"}}').spec
    assert [count_pictures(spec, split) for split in ("train", "val", "test")] == [16, 4, 4]
    spec = load(f"{SHARDS}, limit: {{train: 3}}").spec
    assert [count_pictures(spec, split) for split in ("train", "val", "test")] == [3, 8, 8]
    for path in (folder / "data").glob("val*"):
        path.rename(path.with_name(path.name.replace("val", "dev")))
    spec = load(f"{SHARDS}, splits: {{train: train, val: dev, test: dev}}").spec
    assert count_pictures(spec, "val") == 8


@pytest.mark.parametrize(
    ("data", "tasks", "message"),
    [
        (SHARDS.replace("-*", "s-*"), SEG,
         "data.shards no files for train: nothing matches data/trains-*.tar; there is"),
        (SHARDS.replace("-*", "-{000000..000002}"), SEG,
         "data.shards data/train-000002.tar cannot be read: No such file"),
        (SHARDS.replace("{split}", "{slit}"), SEG,
         "data.shards unknown placeholder {slit}; did you mean {split}?"),
        (SHARDS.replace("{split}", "train"), SEG,
         "data.shards must hold {split}, or be a mapping: shards: {train: ..."),
        (f"{SHARDS}, splits: {{train: train, val: train, test: test}}", SEG,
         "data.splits.val the same word as train"),
        ("source: webdataset, root: data, shards: {train: train-*.tar, val: val-*.tar}", SEG,
         "data.shards.test missing key"),
        ("source: webdataset, root: data, shards: {train: '*.tar', val: val-*.tar, test: test-*.tar}", SEG,
         "data.shards.val val-000000.tar is a file of train too; results on what was trained on"),
        ("source: webdataset, root: data, shards: 3", SEG,
         "data.shards expected a pattern of file names, or one by split"),
        (f"{SHARDS}, image: ';'", SEG, "data.image names no ending"),
        (SHARDS, SEG.replace("seg.png", "png"),
         "tasks.seg.target 'png' may be a picture by data.image; write data.image"),
        (SHARDS, SEG.replace("seg.png", "sg.png"),
         "tasks.seg.target no sample of train has 'sg.png'; did you mean 'seg.png'?"),
        (SHARDS, "seg: {type: segmentation, classes: 3}",
         "tasks.seg.target missing key: the ending of the labels, as seg.png"),
        (SHARDS, "seg: {type: segmentation, target: seg.png}",
         "tasks.seg.classes missing key: a number of classes"),
        (SHARDS, "d: {type: depth, target: cls}",
         "tasks.d.target depth labels are members that end in png or npy, not in 'cls'"),
        (SHARDS, "p: {type: keypoints, target: cls, kinds: [a]}",
         "tasks.p.target keypoints labels are JSON, not 'cls'"),
        (SHARDS, "c: {type: classification, target: seg.png}",
         "tasks.c.target classification labels are text or JSON, not"),
        (SHARDS, "c: {type: classification, target: 'cls:x'}",
         "tasks.c.target only JSON has fields: json:FIELD"),
        (SHARDS, "c: {type: classification, target: 'json:x'}",
         "tasks.c.target train has no labels to take the classes from (the"),
        (SHARDS, "c: {type: classification, target: cls, classes: [a]}",
         "tasks.c.classes one class leaves nothing to tell apart"),
        (SHARDS, f"{SEG}, e: {{type: edges, derive: [seg], target: x}}",
         "tasks.e.derive give either 'target' or 'derive'"),
    ],
)  # fmt: skip
def test_keys(shards, data, tasks, message):
    found = problems(data, tasks)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("data", "tasks", "message"),
    [
        (PARQUET, "rom: {type: classification}",
         "tasks.rom.target there is no column 'rom'; did you mean 'room'?"),
        (PARQUET, "c: {type: classification, target: xyz}",
         "there is no column 'xyz'; there is seg, depth, room, kind"),
        (PARQUET.replace("data/{", "{"), "room: {type: classification}",
         "data.files no files for train: nothing matches"),
        (f"{PARQUET}, image: img", "room: {type: classification}", "data.image there is no column 'img'"),
    ],
)  # fmt: skip
def test_keys_of_parquet(parquet, data, tasks, message):
    found = problems(data, tasks)
    assert any(message in problem for problem in found), found


def test_nothing_else_raises_where_keys_are_invalid(shards):
    found = problems("source: webdataset, root: 3, shards: [], splits: 3, image: {}, limit: x, train_on: []")
    assert len(found) >= 5


def test_damaged_shards_are_told_with_the_data(shards, folder):
    path = folder / "data/val-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    (found,) = problems()
    assert found.startswith("data.shards data/val-000001.tar is damaged in 0012.")


def damaged(folder):
    """Train: 0 broken picture, 1 fine, 2 class id 7, 3 broken array, 4 no picture, 5 unknown room, 6 two labels."""
    members = []
    for i in range(7):
        of_one = {
            "png": png(grey(i)),
            "seg.png": png(class_map(i)),
            "depth.npy": npy(np.ones((24, 32), np.float32)),
        }
        of_one["json"] = json.dumps({"room": "bath"}).encode()
        if i == 0:
            of_one["png"] = of_one["png"][:30]
        if i == 2:
            of_one["seg.png"] = png(np.full((24, 32), 7, np.uint8))
        if i == 3:
            of_one["depth.npy"] = of_one["depth.npy"][:90]
        if i == 4:
            del of_one["png"]
        if i in (5, 6):
            of_one["json"] = json.dumps({"room": "bth" if i == 5 else ["bath", "hall"]}).encode()
        members += [(f"{i}.{ending}", content) for ending, content in of_one.items()]
    write_shards(folder / "data")
    for path in (folder / "data").glob("train*"):
        path.unlink()
    write_tar(folder / "data/train-0.tar", members)
    rooms = "{type: classification, target: 'json:room', classes: [bath, hall, attic]}"
    return f"{SEG}, depth: {{type: depth, target: depth.npy}}, room: {rooms}"


WHERE = "data/train-0.tar: "


def test_damaged_samples(folder):
    tasks = damaged(folder)
    report = check_files(load(tasks=tasks), everything=True)
    found = sorted(report.problems)
    assert found[0].startswith(f"{WHERE}0.png cannot be read: ")
    assert found[1] == f"{WHERE}2.seg.png holds class id 7; 3 classes are declared; 255 is ignored"
    assert found[2].startswith(f"{WHERE}3.depth.npy cannot be read: ")
    assert found[3] == (
        f"{WHERE}4 has no picture (jpg or jpeg or png or webp), only seg.png, depth.npy, json; "
        "data.image names its ending"
    )
    assert found[4] == (
        f"room: {WHERE}5.json, room has the label 'bth', which is not one of the classes; did you mean 'bath'?"
    )
    assert found[5] == (
        f"room: {WHERE}6.json, room holds ['bath', 'hall']; expected one label, or multi_label: true"
    )
    assert len(found) == 6
    report.write_fix_list(folder / "bad.txt")
    rows = [line.split("\t") for line in (folder / "bad.txt").read_text().splitlines()]
    assert sorted(row[1] for row in rows) == [f"train-0/{i}" for i in (0, 2, 3, 4, 5, 6)]
    skipping = check_files(load(f"{SHARDS}, on_bad: skip", tasks), everything=True)
    assert not skipping.problems and sum("left out (data.on_bad: skip)" in w for w in skipping.warnings) == 6


def test_pictures_in_two_splits(shards, folder):
    write_tar(folder / "data/val-9.tar", [(f"x.{e}", c) for e, c in sample(5).items()])
    report = check_files(load())
    (found,) = [warning for warning in report.warnings if "byte for byte" in warning]
    assert found == (
        "data/train-000001.tar: 0005.png ('train-000001/0005' of train) is 'val-9/x' of val too, byte for byte "
        "(data/val-9.tar: x.png)"
    )
    test_too = 'source: webdataset, root: data, shards: {train: "train-*.tar", val: "test-*.tar", test: "test-*.tar"}'
    assert not [w for w in check_files(load(test_too)).warnings if "byte for byte" in w]


def test_a_split_without_labels(shards, folder):
    write_tar(folder / "data/none-0.tar", [("0.png", png(grey(99)))])
    data = f"{SHARDS}, splits: {{train: train, val: none, test: test}}"
    warnings = check_files(load(data, f"{SEG}, {ROOM}")).warnings
    assert "seg: no picture of val has a label (KEY.seg.png)" in warnings
    assert "room: no picture of val has a label (the field json:room)" in warnings
