"""`data.exclude`: splits without the pictures that a fix list names, wherever splits are read, counted or checked."""

import re
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.stage_steps import count_pictures, count_train
from perceptkit.tasks.table import build_tasks
from perceptkit.train.leaving_out import excluded_in_words
from tests.coco_files import write_coco
from tests.layout_files import (
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_nyuv2_mtan,
    write_taskonomy,
)
from tests.listed_files import write_decathlon
from tests.packed_files import write_parquet, write_shards

FOLDER = '{source: folder, root: data, image: "{split}/{id}.jpg", size: [32, 32]}'
TASKS = f"""\
name: t
data: {FOLDER}
tasks:
  seg: {{type: segmentation, target: "seg/{{split}}/{{id}}.png", classes: 3}}
"""
RECIPE = """\
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: hard}
stages: [{name: retrain, epochs: 1}]
loader: {batch: 2, workers: 0}
"""
EXCLUDE = ["data.exclude=bad.txt"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures 0 to 4 in every split; 2 of train is 3 of val, and the label of 4 of train has no such class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in (split, f"seg/{split}"):
            (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(5):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / f"data/{split}/{k}.jpg")
            Image.fromarray(picture[..., 0] // 100).save(tmp_path / f"data/seg/{split}/{k}.png")
    (tmp_path / "data/train/2.jpg").write_bytes((tmp_path / "data/val/3.jpg").read_bytes())
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "data/seg/train/4.png")
    (tmp_path / "t.yaml").write_text(TASKS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(split="train", *overrides):
    spec = load_tasks("t.yaml", overrides).spec
    source = open_train if split == "train" else open_split
    tasks = build_tasks(spec)
    return list((source(spec, tasks) if split == "train" else source(spec, tasks, split)).ids)


def test_what_check_found_is_excluded_and_check_is_clean(folder, capsys):
    assert main(["check", "t.yaml", "--fix-list", "bad.txt"]) != 0
    assert [line.split("\t")[:2] for line in (folder / "bad.txt").read_text().splitlines()] == [
        ["train", "4"],
        ["train", "2"],
    ]
    loaded = load_tasks("t.yaml", EXCLUDE)
    report = check_files(loaded, everything=True)
    assert report.problems == report.warnings == [] and not report.bad
    assert {split: counts.images for split, counts in report.splits.items()} == {
        "train": 3,
        "val": 5,
        "test": 5,
    }
    assert ids("train", *EXCLUDE) == ["0", "1", "3"] and ids("val", *EXCLUDE) == ["0", "1", "2", "3", "4"]
    assert count_train(loaded.spec) == 3 and count_pictures(loaded.spec, "val") == 5
    assert excluded_in_words(loaded.spec) == ["train: 2 pictures excluded (data.exclude)"]


def test_a_run_says_how_many_and_its_settings_keep_which(folder):
    (folder / "bad.txt").write_text("train\t4\ntest\t0\twhy\n")
    run = pk.train("t.yaml", "r.yaml", folder / "run", overrides=EXCLUDE, quiet=True)
    log = (run.path / "log.txt").read_text()
    assert "train: 1 picture excluded (data.exclude)" in log and "val:" not in log
    assert "test: 1 picture excluded (data.exclude)" in log
    assert "- '4'" in (run.path / "resolved.yaml").read_text()


def test_comments_blank_lines_and_ids_without_a_reason(folder):
    (folder / "bad.txt").write_text("# mine\n\ntrain\t0\nval\t1\tis  dark\tand more\n")
    assert load_tasks("t.yaml", EXCLUDE).spec.first.exclude == {"train": ["0"], "val": ["1"]}
    assert ids("train", *EXCLUDE) == ["1", "2", "3", "4"] and ids("val", *EXCLUDE) == ["0", "2", "3", "4"]


def test_ids_in_the_tasks_file_and_beside_a_limit(folder):
    chosen = ids("train", "data.limit=3")
    left = ids("train", "data.limit=3", f"data.exclude={{train: ['{chosen[0]}']}}")
    assert left == chosen[1:]


def test_the_file_lies_beside_the_tasks_file(folder, tmp_path_factory, monkeypatch):
    (folder / "bad.txt").write_text("train\t0\n")
    (folder / "t.yaml").write_text(TASKS.replace("32]}", "32], exclude: bad.txt}", 1))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_tasks(folder / "t.yaml").spec.first.exclude == {"train": ["0"]}


def test_ids_of_no_picture_are_a_warning_of_check(folder):
    (folder / "bad.txt").write_text("train\t7\ntrain\t8\ntrain\t4\n")
    report = check_files(load_tasks("t.yaml", EXCLUDE))
    assert "data.exclude lists '7' and 1 more, but train has no such picture" in report.warnings


def test_all_of_a_split(folder):
    (folder / "bad.txt").write_text("".join(f"val\t{k}\n" for k in range(5)))
    with pytest.raises(DataError, match=re.escape("val: 'exclude' lists all of its 5 pictures")):
        ids("val", *EXCLUDE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train\t0\nmine\n",
            "bad.txt: line 2 is no picture; expected a split and an id with a tab between them",
        ),
        ("train 0\n", "bad.txt: line 1 is no picture"),
        ("train\t\twhy\n", "bad.txt: line 1 is no picture"),
        ("dev\t0\n", "bad.txt: line 1 has the split 'dev'; expected train, val, test"),
    ],
)
def test_a_line_that_is_none_of_a_list(folder, text, message):
    (folder / "bad.txt").write_text(text)
    with pytest.raises(SpecProblems, match=re.escape(message)):
        load_tasks("t.yaml", EXCLUDE)


def test_sources_share_a_list_or_have_one_each(folder):
    text = TASKS.replace(
        f"data: {FOLDER}", f"sources:\n  a: {FOLDER}\n  b: {FOLDER}".replace("32]}", "32], exclude: bad.txt}")
    )
    (folder / "t.yaml").write_text(text)
    (folder / "bad.txt").write_text("train\ta/4\ntrain\tb/0\ntrain\t1\n")
    assert ids() == ["a/0", "a/2", "a/3", "b/2", "b/3", "b/4"]
    loaded = load_tasks("t.yaml")
    assert count_train(loaded.spec) == 6
    assert excluded_in_words(loaded.spec) == ["train: 4 pictures excluded (data.exclude)"]
    assert not any("no such picture" in warning for warning in check_files(loaded).warnings)


def test_a_leak_from_one_source_into_another(folder, capsys):
    """What is trained on in one place and measured on in another is found, listed and left out."""
    there = folder / "there"
    shutil.copytree(folder / "data", there)
    for k, path in enumerate(sorted(there.rglob("*.jpg"))):
        Image.fromarray(np.full((32, 32, 3), 10 * k, np.uint8)).save(path)
    (there / "val/1.jpg").write_bytes((folder / "data/train/0.jpg").read_bytes())
    other = FOLDER.replace("root: data", "root: there")
    (folder / "t.yaml").write_text(TASKS.replace(f"data: {FOLDER}", f"sources:\n  a: {FOLDER}\n  b: {other}"))
    main(["check", "t.yaml", "--fix-list", "bad.txt"])
    said = "a: train/0.jpg ('0' of train) is 'b/1' of val too, byte for byte (b: val/1.jpg)"
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    assert "train\ta/0\tis 'b/1' of val too (b: val/1.jpg)\n" in (folder / "bad.txt").read_text()
    by_source = [f"sources.{name}.exclude=bad.txt" for name in "ab"]
    report = check_files(load_tasks("t.yaml", by_source))
    assert not any("byte for byte" in warning for warning in report.warnings)
    assert ids("train", *by_source) == ["a/1", "a/3", "b/0", "b/1", "b/2", "b/3"]


def test_labels_in_a_csv_of_an_excluded_picture(folder):
    (folder / "data/train.csv").write_text("id,label\n0,x\n1,y\n2,x\n3,y\n4,z\n")
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {FOLDER}\ntasks:\n"
        '  kind: {type: classification, target: "{split}.csv", classes: [x, y]}\n'
    )
    assert any("'z'" in problem for problem in check_files(load_tasks("t.yaml")).problems)
    without = load_tasks("t.yaml", ["data.exclude={train: ['2', '4']}"])
    report = check_files(without)
    assert not report.problems and not any("no such picture" in warning for warning in report.warnings)
    assert open_train(without.spec, build_tasks(without.spec)).label(0, "kind") == 0
    assert ids("train", "data.exclude={train: ['2', '4']}") == ["0", "1", "3"]


@pytest.mark.parametrize("source", ["imagefolder", "csv"])
def test_other_sources(folder, source):
    for split in ("train", "val", "test"):
        lines = ["path,kind"]
        for k, name in enumerate(("x", "y")):
            (folder / f"other/{split}/{name}").mkdir(parents=True)
            for i in range(2):
                file = f"{split}/{name}/{i}.jpg"
                (folder / "other" / file).write_bytes((folder / f"data/test/{2 * k + i}.jpg").read_bytes())
                lines.append(f"{file},{name}")
        (folder / f"other/{split}.csv").write_text("\n".join(lines))
    keys = "file: '{split}.csv', " if source == "csv" else ""
    first = "train/x/0.jpg" if source == "csv" else "x/0.jpg"
    (folder / "t.yaml").write_text(
        f"name: t\ndata: {{source: {source}, root: other, {keys}size: [32, 32]}}\n"
        "tasks: {kind: {type: classification}}\n"
    )
    whole = ids()
    (folder / "bad.txt").write_text(f"train\t{first}\n")
    assert ids("train", *EXCLUDE) == [image_id for image_id in whole if image_id != first] and len(whole) == 4
    loaded = load_tasks("t.yaml", EXCLUDE)
    assert count_train(loaded.spec) == 3 and check_files(loaded).splits["train"].images == 3


SEG40 = "seg: {type: segmentation, classes: 40}"
SEG13 = "seg: {type: segmentation, classes: 13, ignore_index: -1}"
SEG19 = "seg: {type: segmentation, classes: 19, ignore_index: -1}"
FIXED = {
    "coco": (write_coco, "coco", "seg: {type: segmentation}, kp: {type: keypoints}"),
    "nyuv2": (write_nyuv2, "nyuv2", SEG40),
    "nyuv2, folders": (partial(write_nyuv2, lists=False), "nyuv2", SEG40),
    "nyuv2, mtan": (write_nyuv2_mtan, "nyuv2, layout: mtan", SEG13),
    "cityscapes": (partial(write_cityscapes_mtan, lists=True), "cityscapes", SEG19),
    "cityscapes, mtan": (write_cityscapes_mtan, "cityscapes, layout: mtan", SEG19),
    "cityscapes, official": (write_cityscapes_official, "cityscapes, layout: official", SEG19),
    "taskonomy": (write_taskonomy, "taskonomy", "sn: {type: normals}"),
    "decathlon": (write_decathlon, "decathlon, domain: gtsrb", "kind: {type: classification}"),
    "webdataset": (
        write_shards,
        "webdataset, shards: '{split}-*.tar'",
        "room: {type: classification, target: cls, classes: 3}, depth: {type: depth, target: depth.npy}",
    ),
    "huggingface": (
        write_parquet,
        "huggingface, files: 'data/{split}-*.parquet'",
        "room: {type: classification}, seg: {type: segmentation, classes: 3}",
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_sources_whose_files_have_fixed_names_or_hold_many(name, tmp_path, monkeypatch):
    write, source, tasks = FIXED[name]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data")
    (tmp_path / "t.yaml").write_text(
        f"name: t\ndata: {{source: {source}, root: data, size: [32, 64]}}\ntasks: {{{tasks}}}\n"
    )
    split = "test" if name == "nyuv2, folders" else "train"
    whole = ids(split)
    out = [whole[1], whole[-1]]
    (tmp_path / "bad.txt").write_text("".join(f"{split}\t{image_id}\twhy\n" for image_id in out))
    left = [image_id for image_id in whole if image_id not in out]
    assert ids(split, *EXCLUDE) == left and len(left) == len(whole) - 2
    loaded = load_tasks("t.yaml", EXCLUDE)
    report = check_files(loaded, everything=True)
    assert report.splits[split].images == report.splits[split].opened == len(left)
    assert not any("no such picture" in warning for warning in report.warnings)
    assert count_pictures(loaded.spec, split) == len(left)
    assert excluded_in_words(loaded.spec) == [f"{split}: 2 pictures excluded (data.exclude)"]
    both = [open_split(load_tasks("t.yaml", o).spec, build_tasks(loaded.spec), split) for o in ([], EXCLUDE)]
    for image_id in left:  # pictures keep their own labels
        one, other = (source.load(source.ids.index(image_id)) for source in both)
        assert np.array_equal(one.image, other.image) and one.id == other.id == image_id
        assert all(np.array_equal(one.targets[task], other.targets[task]) for task in one.targets)
