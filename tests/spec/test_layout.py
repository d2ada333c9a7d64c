"""Tasks files of NYUv2, Cityscapes and Taskonomy: what is wrong with them and how to mend it, and what `check` says."""

import json
import shutil

import numpy as np
import pytest

from perceptkit.errors import DataError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.layout_table import layout_entries
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from tests.layout_files import (
    save,
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_nyuv2_mtan,
    write_taskonomy,
)

SEG = "seg: {type: segmentation, classes: %d}"
VOID = "seg: {type: segmentation, classes: %d, ignore_index: -1}"


def load(folder, data, tasks):
    """The tasks file whose root is the folder `data` beside it."""
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {{{data}, root: data, size: [32, 64]}}\ntasks: {{{tasks}}}\n"
    )
    return load_tasks(folder / "t.yaml")


def problems(folder, data, tasks):
    with pytest.raises(SpecProblems) as caught:
        load(folder, data, tasks)
    return [f"{p.key} {p.message}".replace(f"{folder}/", "") for p in caught.value.problems]


@pytest.fixture
def nyuv2(tmp_path):
    write_nyuv2(tmp_path / "data")
    return tmp_path


@pytest.fixture
def mtan(tmp_path):
    write_nyuv2_mtan(tmp_path / "data")
    return tmp_path


def test_class_counts_are_not_mixed_up(nyuv2):
    assert problems(nyuv2, "source: nyuv2", SEG % 13) == [
        "tasks.seg.classes 13 classes are declared; AdaShare's NYUv2 has 40; layout: mtan has 13"
    ]
    shutil.rmtree(nyuv2 / "data")
    write_nyuv2_mtan(nyuv2 / "data")
    assert problems(nyuv2, "source: nyuv2, layout: mtan", VOID % 40) == [
        "tasks.seg.classes 40 classes are declared; MTAN's NYUv2 has 13; layout: adashare has 40"
    ]
    assert problems(nyuv2, "source: nyuv2, layout: mtan", SEG % 13) == [
        "tasks.seg.ignore_index MTAN's NYUv2 has -1 for unlabelled pixels; write ignore_index: -1"
    ]


def test_labels_of_the_other_form_are_refused(mtan):
    """40-class labels where 13 classes belong: `check` names file and ids."""
    save(mtan / "data/val/label/1.npy", np.full((48, 64), 39, np.int64))
    report = check_files(load(mtan, "source: nyuv2, layout: mtan", VOID % 13))
    assert report.problems == ["val/label/1.npy holds class id 39; 13 classes are declared; -1 is ignored"]


def test_the_layout_that_lies_there(mtan):
    assert problems(mtan, "source: nyuv2", SEG % 40) == [
        "data.root data looks like MTAN's NYUv2, not AdaShare's NYUv2; write layout: mtan"
    ]
    shutil.move(mtan / "data", mtan / "inner")
    shutil.move(mtan / "inner", mtan / "data/inner")
    (hint,) = problems(mtan, "source: nyuv2, layout: mtan", VOID % 13)
    assert hint == "data.root data is one folder too high; data/inner is MTAN's NYUv2"
    shutil.rmtree(mtan / "data/inner")
    (hint,) = problems(mtan, "source: cityscapes, layout: official", SEG % 19)
    assert hint == (
        "data.root data is not the official Cityscapes; expected the folders leftImg8bit, gtFine and disparity"
    )
    write_taskonomy(mtan / "data")
    (hint,) = problems(mtan, "source: cityscapes, layout: official", SEG % 19)
    assert (
        hint
        == "data.root data looks like Tiny-Taskonomy, not the official Cityscapes; write source: taskonomy"
    )


def test_tasks_that_have_no_labels(nyuv2):
    tasks = (
        "edges: {type: edges}, kp: {type: keypoints, kinds: [a]}, seg: {type: segmentation, target: 'x.png'}"
    )
    no_labels = "AdaShare's NYUv2 has no labels for {}; it has segmentation, normals, depth"
    assert problems(nyuv2, "source: nyuv2", tasks) == [
        f"tasks.edges.type {no_labels.format('edges')}, and edges can derive from the first ones: derive: [...]",
        f"tasks.kp.type {no_labels.format('keypoints')}",
        "tasks.seg.classes missing key: AdaShare's NYUv2 has 40",
        "tasks.seg.target AdaShare's NYUv2 knows where its labels are; drop the key",
    ]
    derived = f"{SEG % 40}, sn: {{type: normals}}, edges: {{type: edges, derive: [seg, sn]}}"
    report = check_files(load(nyuv2, "source: nyuv2", derived))
    assert not report.problems and report.splits["train"].labels == {"seg": 4, "sn": 4, "edges": 4}


def test_taskonomy_wants_the_name_of_a_map(tmp_path):
    write_taskonomy(tmp_path / "data")
    tasks = "a: {type: response}, b: {type: response, target: keypoints3d}, e: {type: response, target: edge_texture}"
    assert problems(tmp_path, "source: taskonomy", tasks) == [
        "tasks.a.target expected which map to learn: keypoints2d or edge_texture",
        "tasks.b.target expected which map to learn: keypoints2d or edge_texture",
    ]


def test_the_official_tree_has_no_two_classes(tmp_path):
    write_cityscapes_official(tmp_path / "data")
    assert problems(tmp_path, "source: cityscapes, layout: official", SEG % 2) == [
        "tasks.seg.classes 2 classes are declared; the official Cityscapes has 19 or 7; layout: adashare has 2"
    ]
    names = "seg: {type: segmentation, classes: [flat, construction, object, nature, sky, human, vehicle]}"
    report = check_files(load(tmp_path, "source: cityscapes, layout: official, hold_out: 20%", names))
    assert not report.problems and not report.warnings
    assert [counts.images for counts in report.splits.values()] == [5, 1, 3]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (
            "splits: {test: train1}",
            "data.splits.test test is 'train1', what is trained on; results on it say nothing",
        ),
        (
            "splits: {val: test}, train_on: [train, val]",
            "data.train_on val is test too; results on pictures that were trained on say nothing",
        ),
        ("hold_out: 0.2, splits: {val: train2}", "data.hold_out data.splits names a val; give one of both"),
        (
            "layout: mtan, lists: x.json",
            "data.lists MTAN's NYUv2 is read from folders, not from lists; drop the key",
        ),
    ],
)
def test_splits_that_say_nothing(nyuv2, data, found):
    assert found in problems(nyuv2, f"source: nyuv2, {data}", SEG % 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "data/nyu_v2_3task.json is not JSON: "),
        ("[]", "data/nyu_v2_3task.json is not a mapping of lists: train, train1, train2, test"),
        ('{"train1": [["a.png"]]}', "train1[0] has 1 paths; expected 4: img, seg, normal_mask, depth"),
        ('{"train1": [[1, 2, 3, 4]]}', "train1[0] is not a list of paths (img, seg, normal_mask, depth)"),
        ('{"train1": [["a", "b", "c", "../d"]]}', "train1[0] names ../d, which is not below the root"),
        ('{"train1": [["/a", "b", "c", "d"]]}', "train1[0] names /a, which is not below the root"),
        ('{"mine": []}', "has no list 'train1' but mine; name them in data.splits"),
        ('{"train1": [], "train2": [], "test": []}', "data holds no picture"),
    ],
)
def test_damaged_lists(nyuv2, content, message):
    (nyuv2 / "data/nyu_v2_3task.json").write_text(content)
    (found,) = problems(nyuv2, "source: nyuv2", SEG % 40)
    assert found.startswith("data.root ") and message in found


def test_files_that_are_absent_or_damaged(nyuv2):
    root = nyuv2 / "data"
    (root / "img/0000.png").unlink()
    (root / "seg/0001.png").unlink()
    (root / "depth/0002.npy").write_bytes(b"")
    save(root / "normal_mask/0003.png", np.full((48, 64, 3), 128, np.uint8))
    save(root / "depth/0003.npy", np.full((48, 64), -2.0, np.float32))
    report = check_files(
        load(nyuv2, "source: nyuv2", f"{SEG % 40}, sn: {{type: normals}}, d: {{type: depth}}")
    )
    assert report.splits["train"].labels == {"seg": 3, "sn": 4, "d": 4}
    first, second, third = report.problems
    assert first == "img/0000.png is missing" and second.startswith("depth/0002.npy cannot be read: ")
    assert third == "depth/0003.npy holds negative depth (-2 m); 0 means invalid"
    assert report.warnings == ["normal_mask/0003.png has no valid normal"]


def test_a_sample_is_opened(nyuv2):
    (nyuv2 / "data/seg/0001.png").write_bytes(b"")
    loaded = load(nyuv2, "source: nyuv2", SEG % 40)
    assert not check_files(loaded, sample=1).problems
    assert check_files(loaded, everything=True).problems


def test_without_lists_only_test_has_pictures(tmp_path):
    write_nyuv2(tmp_path / "data", lists=False)
    report = check_files(load(tmp_path, "source: nyuv2", SEG % 40))
    assert {split: counts.images for split, counts in report.splits.items()} == {"test": 8}
    assert (
        len(report.problems) == 2 and "without which all pictures are of the list test" in report.problems[0]
    )


def test_val_that_is_test_is_warned_of(tmp_path):
    write_cityscapes_mtan(tmp_path / "data")
    report = check_files(load(tmp_path, "source: cityscapes, layout: mtan", VOID % 7))
    (warning,) = report.warnings
    assert warning.startswith("val is test too") and not report.problems
    assert not check_files(
        load(tmp_path, "source: cityscapes, layout: mtan, hold_out: 0.2", VOID % 7)
    ).warnings


def test_a_split_without_labels(nyuv2):
    shutil.rmtree(nyuv2 / "data/depth")
    (nyuv2 / "data/nyu_v2_3task.json").write_text(
        json.dumps(
            {part: [["img/0000.png", "seg/0000.png", "n", "depth/0000.npy"]] for part in ("train1", "test")}
        )
    )
    loaded = load(nyuv2, "source: nyuv2", "d: {type: depth}")
    report = check_files(loaded)
    assert "d: no picture of train has a label (depth/0000.npy)" in report.problems
    assert "d: no picture of test has a label (depth/0000.npy)" in report.warnings
    with pytest.raises(DataError, match="has no list 'train2' but train1, test"):
        layout_entries(loaded.spec.data, "val")


def test_eight_bits_where_sixteen_carry_the_meaning(tmp_path):
    write_taskonomy(tmp_path / "data")
    for domain in ("depth_zbuffer", "edge_texture"):
        file = f"allensville/{domain}/point_0_view_0_domain_{domain}.png"
        save(tmp_path / "data" / file, np.full((32, 32), 3, np.uint8))
    tasks = "d: {type: depth}, e: {type: response, target: edge_texture}"
    report = check_files(load(tmp_path, "source: taskonomy", tasks))
    assert len(report.problems) == 2
    assert report.problems[0].endswith(
        "depth_zbuffer.png has shape 32x32 and values of type uint8; expected a 16-bit grey picture"
    )


def test_nothing_else_raises_where_keys_are_invalid(nyuv2):
    found = problems(
        nyuv2, "source: nyuv2, layout: x, splits: 3, hold_out: 7, lists: 1, train_on: []", SEG % 40
    )
    assert len(found) >= 5


def test_what_depth_holds_is_known(tmp_path):
    depth = "depth: {type: depth}"
    write_taskonomy(tmp_path / "data")
    assert load(tmp_path, "source: taskonomy", depth).spec.tasks["depth"].kind == "log16"
    shutil.rmtree(tmp_path / "data")
    write_cityscapes_mtan(tmp_path / "data")
    city = "source: cityscapes, layout: mtan"
    assert load(tmp_path, city, depth).spec.tasks["depth"].kind == "inverse"
    assert load(tmp_path, city, "depth: {type: depth, kind: inverse}").spec.tasks["depth"].kind == "inverse"
    assert problems(tmp_path, city, "depth: {type: depth, kind: metric}") == [
        "tasks.depth.kind 'source: cityscapes' has inverse depth; drop the key"
    ]


def test_distances_and_inverse_ones_are_not_one_task(tmp_path):
    write_cityscapes_mtan(tmp_path / "data")
    (tmp_path / "t.yaml").write_text(
        "name: t\nsources:\n  rooms: {source: scenes, size: [32, 64]}\n"
        "  city: {source: cityscapes, layout: mtan, root: data, size: [32, 64]}\ntasks: {depth: {type: depth}}\n"
    )
    with pytest.raises(SpecProblems) as caught:
        load_tasks(tmp_path / "t.yaml")
    assert [f"{p.key} {p.message}" for p in caught.value.problems] == [
        "sources.city depth is inverse depth here, and metric in the source 'rooms'; give it a task of its own"
    ]
