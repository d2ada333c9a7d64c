"""Tasks files of class folders and of the decathlon: what they list, what is wrong with them, what `check` says."""

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import pytest

from perceptkit.errors import DataError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.decathlon import MEAN_STD, PICKLE
from perceptkit.spec.listed import Listed, listed_classes, listed_pictures, spread, spread_by_class, thinned
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from tests.listed_files import label_test_split, save, write_class_folders, write_decathlon


def load(folder: Path, data: str, task: str = "{type: classification}"):
    """The tasks file with `data`, whose root is the folder `data` beside it."""
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {{{data}, root: data, size: [32, 32]}}\ntasks:\n  kind: {task}\n"
    )
    return load_tasks(folder / "t.yaml")


def problems(folder: Path, data: str, task: str = "{type: classification}") -> list[str]:
    with pytest.raises(SpecProblems) as caught:
        load(folder, data, task)
    return [f"{p.key} {p.message}".replace(f"{folder}/", "") for p in caught.value.problems]


FOLDERS = "source: imagefolder"
GTSRB = "source: decathlon, domain: gtsrb"


@pytest.fixture
def folders(tmp_path):
    write_class_folders(tmp_path / "data")
    return tmp_path


@pytest.fixture
def gtsrb(tmp_path):
    write_decathlon(tmp_path / "data")
    return tmp_path


def test_class_folders(folders):
    spec = load(folders, FOLDERS).spec
    assert spec.data.root == folders / "data" and spec.data.mean is None
    assert listed_classes(spec.tasks["kind"], spec.data) == ["bird", "cat"]
    pictures = listed_pictures(spec.data, "val")
    assert [(p.id, p.label) for p in pictures] == [
        ("bird/0.png", "bird"), ("bird/1.png", "bird"), ("cat/0.png", "cat"), ("cat/1.png", "cat"),
    ]  # fmt: skip
    assert pictures[3].path == folders / "data/val/cat/1.png"


def test_limit_takes_pictures_of_all_classes(folders):
    data = load(folders, f"{FOLDERS}, limit: 2").spec.data
    assert [p.id for p in listed_pictures(data, "train")] == ["bird/0.png", "cat/0.png"]
    data = load(folders, f"{FOLDERS}, limit: {{train: 1}}").spec.data
    assert [len(listed_pictures(data, split)) for split in ("train", "val")] == [1, 4]
    assert spread([], 3) == [] and spread([1, 2], 3) == [1, 2] and spread(range(10), 3) == [0, 3, 6]


@pytest.mark.parametrize("most", [20, 50, 100, 200, 500, 1000, 2500, 5000, 8000, 9000])
def test_limit_mixes_classes_whose_ids_count_through_them(most):
    """As CIFAR-10's: 0000-airplane, 0000-automobile, ... Every k-th of them is an airplane where 10 divides k."""
    ids = [f"{number:04}-{label}" for number in range(1000) for label in "abcdefghij"]
    found = thinned(ids, most, "test")
    assert len(set(found)) == most and found == sorted(found) == thinned(ids, {"test": most}, "test")
    counts = Counter(name[-1] for name in found)
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= max(2, most // 40)
    assert thinned(ids, {"train": most}, "test") == ids == thinned(ids, 10_000, "test")


def test_thinned_by_hand():
    # two parts of five, the second at .618 of its length; three parts of 3, 3 and 4 at 0, .618 and .236
    assert thinned(list(range(10)), 2, "val") == [0, 5 + 3]
    assert thinned(list(range(10)), 3, "val") == [0, 3 + 1, 6 + 0]
    assert thinned(list(range(10)), 8, "val") == [1, 2, 3, 4, 5, 6, 7, 9]  # 0 and 8 are left out
    assert thinned([], 3, "val") == []


def test_limit_gives_every_class_its_share_in_any_order():
    """Eight cats and four dogs, a dog at every third place: every third of them alone would be dogs."""
    pictures = [Listed(str(i), Path(f"{i}.png"), "dog" if i % 3 == 0 else "cat") for i in range(12)]
    found = spread_by_class(pictures, 6)
    assert [int(p.id) for p in found] == [0, 1, 4, 6, 7, 10]  # cats 1 4 7 10 of 1 2 4 5 7 8 10 11, dogs 0 6
    assert spread_by_class(pictures, 99) == pictures
    unknown = [Listed(str(i), Path("x"), None) for i in range(4)]
    assert spread_by_class(unknown, 2) == [unknown[0], unknown[2]]


def test_declared_classes_give_the_order(folders):
    spec = load(folders, FOLDERS, "{type: classification, classes: [cat, bird]}").spec
    assert listed_classes(spec.tasks["kind"], spec.data) == ["cat", "bird"]
    (folders / "names.txt").write_text("cat\nbird\n")
    spec = load(folders, FOLDERS, "{type: classification, classes: names.txt}").spec
    assert listed_classes(spec.tasks["kind"], spec.data) == ["cat", "bird"]


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ("[bird, cow]", "'cow' is not in the data and 'cat' is missing"),
        ("[bird]", "'cat' is missing"),
        ("[bird, cat, cow, dog]", "'cow', 'dog' are not in the data"),
        ("2", "'0', '1' are not in the data and 'bird', 'cat' are missing"),
    ],
)
def test_declared_classes_must_be_those_of_train(folders, classes, reason):
    found = problems(folders, FOLDERS, f"{{type: classification, classes: {classes}}}")
    assert found == [f"tasks.kind.classes {reason}; drop the key for the 2 classes of the data"]


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("val", "make it, or write splits: {train: train, val: test, test: test}"),
        ("test", "make it, or write splits: {train: train, val: val, test: val}"),
        ("train", "there is 'test', 'val'"),
    ],
)
def test_a_split_without_folder(folders, missing, hint):
    shutil.rmtree(folders / "data" / missing)
    assert problems(folders, FOLDERS) == [f"data.root data does not hold a folder {missing}; {hint}"]


def test_a_split_that_is_called_otherwise(folders):
    (folders / "data/val").rename(folders / "data/Validation")
    (hint,) = problems(folders, FOLDERS)
    splits = "splits: {train: train, val: Validation, test: test}"
    assert hint == f"data.root data does not hold a folder val; make it, or write {splits}"
    assert len(listed_pictures(load(folders, f"{FOLDERS}, {splits}").spec.data, "val")) == 4


def test_the_root_is_one_folder_too_high(tmp_path):
    write_class_folders(tmp_path / "data/pets")
    assert problems(tmp_path, FOLDERS) == [
        "data.root data does not hold folders train, val, test; data/pets does"
    ]


def test_pictures_without_class_folders(folders):
    shutil.rmtree(folders / "data/val/bird")
    shutil.move(folders / "data/val/cat/1.png", folders / "data/val/1.png")
    shutil.rmtree(folders / "data/val/cat")
    assert problems(folders, FOLDERS) == [
        "data.root data/val holds no folders of classes, but pictures beside each other; a CSV of labels goes "
        "with 'source: folder'"
    ]
    (folders / "data/val/1.png").rename(folders / "data/val/notes.txt")
    assert problems(folders, FOLDERS) == ["data.root data/val holds no folders of classes"]


def test_a_split_without_pictures_and_a_class_that_train_lacks(folders):
    for picture in (folders / "data/val").rglob("*.png"):
        picture.rename(picture.with_suffix(".gif"))
    save(folders / "data/test/zebra/1.png")
    first, second = problems(folders, FOLDERS)
    assert first.startswith(
        "data.root no pictures for val: nothing in data/val/bird and the like ends in .png, "
    )
    assert second == "data.root data/test has a class that train does not have: 'zebra'"


def test_one_class_is_none(tmp_path):
    write_class_folders(tmp_path / "data", ["only"])
    assert problems(tmp_path, FOLDERS) == [
        "data.root one class leaves nothing to tell apart; expected at least 2"
    ]


@pytest.mark.parametrize("source", [FOLDERS, GTSRB])
def test_nothing_else_raises_where_keys_are_invalid(folders, source):
    found = problems(folders, f"{source}, splits: 3, limit: 0, domain: 7, train_on: []")
    assert found and not any("Traceback" in line for line in found)


def test_train_on_a_folder_that_is_tested(folders):
    shutil.rmtree(folders / "data/test")
    splits = "splits: {train: train, val: val, test: val}"
    assert problems(folders, f"{FOLDERS}, train_on: [train, val], {splits}") == [
        "data.train_on val is the folder of test too; results on pictures that were trained on say nothing"
    ]
    assert load(folders, f"{FOLDERS}, train_on: [train], {splits}")


def test_check_finds_gaps_and_broken_pictures(folders):
    (folders / "data/train/cat/1.png").write_bytes(b"no picture")
    shutil.rmtree(folders / "data/val/cat")
    (folders / "data/train/empty").mkdir()
    report = check_files(load(folders, FOLDERS))
    assert [(c.images, c.labels, c.opened) for c in report.splits.values()] == [
        (4, {"kind": 4}, 4), (2, {"kind": 2}, 2), (4, {"kind": 4}, 4),
    ]  # fmt: skip
    assert report.problems[0] == "kind: train has no picture of the class empty"
    assert report.problems[1].startswith("train/cat/1.png cannot be read: ") and len(report.problems) == 2
    assert report.warnings == [
        "kind: val has no picture of 2 classes cat, empty",
        "kind: test has no picture of the class empty",
    ]


def test_the_decathlon(gtsrb):
    spec = load(gtsrb, GTSRB).spec
    assert listed_classes(spec.tasks["kind"], spec.data) == ["TrafficSign1", "TrafficSign10", "TrafficSign2"]
    assert (spec.data.mean, spec.data.std) == MEAN_STD["gtsrb"]
    first = listed_pictures(spec.data, "train")[0]
    assert first == ("50200001", gtsrb / "data/data/gtsrb/train/a/000001.jpg", "TrafficSign2")
    assert [p.label for p in listed_pictures(spec.data, "test")] == [None] * 6


def test_what_is_written_wins_over_the_domains_mean(gtsrb):
    data = load(gtsrb, f"{GTSRB}, mean: [0, 0, 0], std: [1, 1, 1]").spec.data
    assert (data.mean, data.std) == ((0, 0, 0), (1, 1, 1))


def test_check_names_the_file_that_would_hold_test_labels(gtsrb):
    report = check_files(load(gtsrb, GTSRB))
    assert not report.problems
    where = gtsrb / "data/annotations/gtsrb_test.json"
    assert report.warnings == [f"kind: no picture of test has a label (they would be in {where})"]
    label_test_split(gtsrb / "data")
    report = check_files(load(gtsrb, GTSRB))
    assert report.splits["test"].labels == {"kind": 6}
    assert report.warnings == ["kind: test has no picture of 2 classes TrafficSign10, TrafficSign2"]


def test_check_names_missing_pictures_and_labels_of_none(gtsrb):
    (gtsrb / "data/data/gtsrb/train/a/000001.jpg").unlink()
    path = gtsrb / "data/annotations/gtsrb_val.json"
    content = json.loads(path.read_text())
    gone = content["images"].pop()
    path.write_text(json.dumps(content))
    report = check_files(load(gtsrb, GTSRB), sample=0)
    assert report.problems == ["data/gtsrb/train/a/000001.jpg is missing"]
    assert report.warnings[0] == f"{path} labels the image {gone['id']}, but there is no such image"


def test_a_domain_that_is_not_there(gtsrb):
    (found,) = problems(gtsrb, "source: decathlon, domain: gtrsb")
    assert found == "data.domain there is no data/annotations/gtrsb_train.json; did you mean 'gtsrb'?"


def test_files_of_a_domain_that_cannot_be_read(gtsrb):
    (gtsrb / "data/annotations/gtsrb_val.json").unlink()
    path = gtsrb / "data/annotations/gtsrb_test_stripped.json"
    path.write_text(json.dumps({"images": []}))
    (gtsrb / "data" / PICKLE).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert problems(gtsrb, GTSRB) == [
        "data.domain data/annotations/gtsrb_val.json cannot be read: No such file or directory",
        "data.domain no pictures for test: data/annotations/gtsrb_test_stripped.json lists none",
        f"data.domain data/{PICKLE} names os.system; only numbers, text, lists and arrays of floats are read; delete "
        "it for the published numbers, or give mean and std",
    ]


def test_a_pickle_that_is_not_asked_is_not_read(gtsrb):
    (gtsrb / "data" / PICKLE).write_bytes(b"nonsense")
    assert load(gtsrb, f"{GTSRB}, mean: [0, 0, 0], std: [1, 1, 1]")
    content = {"gtsrbmean": [0.5] * 3, "gtsrbstd": [0.25] * 3}
    (gtsrb / "data" / PICKLE).write_bytes(pickle.dumps(content))
    assert load(gtsrb, GTSRB).spec.data.std == (0.25,) * 3


def test_a_label_that_train_does_not_have(gtsrb):
    path = gtsrb / "data/annotations/gtsrb_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 9
    path.write_text(json.dumps(content))
    (found,) = problems(gtsrb, GTSRB)
    assert found.startswith("data.domain data/annotations/gtsrb_val.json: image 5020")
    assert found.endswith("is of class 9, which train does not have")


def test_the_reader_raises_the_same(gtsrb):
    data = load(gtsrb, GTSRB).spec.data
    (gtsrb / "data/annotations/gtsrb_train.json").write_text("{")
    with pytest.raises(DataError, match="gtsrb_train.json is not JSON"):
        listed_pictures(data, "train")
