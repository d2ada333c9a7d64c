"""`perceptkit init` knows data sets by what lies there; each proposal passes the check of all files."""

import json
import shutil

import numpy as np
import pytest

from perceptkit.spec import nyuv2
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import load_tasks
from perceptkit.spec.scaffold import scaffold
from tests.coco_files import write_coco
from tests.layout_files import (
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_nyuv2_mtan,
    write_taskonomy,
)
from tests.listed_files import save, write_decathlon
from tests.packed_files import grey, npy, png, sample, write_parquet, write_shards, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))


def proposal(data, out):
    """The loaded proposal, which passes the check of all files, and its text."""
    text = scaffold(data, out)
    out.mkdir(exist_ok=True)
    (out / "tasks.yaml").write_text(text)
    loaded = load_tasks(out / "tasks.yaml")
    report = check_files(loaded, everything=True)
    assert not report.problems, f"{text}\n{report}"
    return loaded.spec, text


def keys(spec):
    return {name: task.model_dump(exclude_unset=True) for name, task in spec.tasks.items()}


SEG40 = {
    "seg": {"type": "segmentation", "classes": 40},
    "normals": {"type": "normals"},
    "depth": {"type": "depth"},
}
INVERSE = {"type": "depth", "unit": "inverse depth", "kind": "inverse"}


@pytest.mark.parametrize(
    ("write", "source", "layout", "tasks"),
    [
        (write_nyuv2, "nyuv2", "adashare", SEG40),
        (write_nyuv2_mtan, "nyuv2", "mtan",
         {**SEG40, "seg": {"type": "segmentation", "classes": 13, "ignore_index": -1}}),
        (lambda root: write_cityscapes_mtan(root, lists=True), "cityscapes", "adashare",
         {"seg": {"type": "segmentation", "classes": 19, "ignore_index": -1}, "depth": INVERSE}),
        (write_cityscapes_mtan, "cityscapes", "mtan",
         {"seg": {"type": "segmentation", "classes": 19, "ignore_index": -1}, "depth": INVERSE}),
        (write_cityscapes_official, "cityscapes", "official",
         {"seg": {"type": "segmentation", "classes": 19}, "depth": {**INVERSE, "unit": "disparity"}}),
        (write_taskonomy, "taskonomy", None,
         {"seg": {"type": "segmentation", "classes": 17}, "normals": {"type": "normals"},
          "depth": {"type": "depth", "unit": "log depth", "kind": "log16"},
          "keypoints2d": {"type": "response", "target": "keypoints2d"},
          "edge_texture": {"type": "response", "target": "edge_texture"}}),
    ],
)  # fmt: skip
def test_layouts(tmp_path, write, source, layout, tasks):
    spec, text = proposal(write(tmp_path / "data"), tmp_path / "out")
    assert spec.data.source == source and getattr(spec.data, "layout", None) == layout
    assert keys(spec) == tasks
    assert "pictures: train " in text and ("val and test are the same pictures" in text) == (
        layout in ("mtan", "official")
    )


def test_layouts_without_some_labels(tmp_path):
    root = write_cityscapes_mtan(tmp_path / "data")
    for part in ("train", "val"):
        shutil.rmtree(root / part / "label_19")
        shutil.rmtree(root / part / "depth")
    spec, text = proposal(root, tmp_path / "out")
    assert keys(spec) == {"seg": {"type": "segmentation", "classes": 7, "ignore_index": -1}}
    assert "# ? or 2\n" in text


def test_libmtl_calls_the_seven_classes_label(tmp_path):
    root = write_cityscapes_mtan(tmp_path / "data")
    for part in ("train", "val"):
        (root / part / "label_7").rename(root / part / "label")
        for other in ("label_2", "label_19"):
            shutil.rmtree(root / part / other)
    assert not nyuv2.MTAN.is_here(root)
    spec, _ = proposal(root, tmp_path / "out")
    assert (spec.data.source, spec.data.layout) == ("cityscapes", "mtan")
    assert keys(spec) == {
        "seg": {"type": "segmentation", "classes": 7, "ignore_index": -1},
        "depth": INVERSE,
    }


def test_coco(tmp_path):
    spec, text = proposal(write_coco(tmp_path / "coco"), tmp_path / "out")
    assert keys(spec)["seg"] == {"type": "segmentation"}
    assert spec.tasks["points"].kinds == ["nose", "left_eye", "right_eye"]
    assert spec.data.splits is None and "`hold_out: 2%` takes val from train" in text
    assert "# ? 3 categories, and background; 4 pictures in train's file" in text
    assert "panoptic_train2017, panoptic_val2017: " in text


def test_coco_with_other_words(tmp_path):
    root = write_coco(tmp_path / "coco", {"train": 1, "valid": 11})
    for path in (root / "annotations").glob("person*"):
        path.unlink()
    (root / "images").mkdir()
    for word in ("train", "valid"):
        (root / word).rename(root / "images" / word)
    spec, text = proposal(root, tmp_path / "out")
    assert keys(spec) == {"seg": {"type": "segmentation"}} and spec.data.images == "images/{split}"
    assert spec.data.splits == {"train": "train", "val": "valid", "test": "valid"}
    assert "# ? there is no file for test; val stands in" in text


def test_coco_beside_the_pictures(tmp_path):
    """As Roboflow exports it."""
    root = write_coco(tmp_path / "coco", {"train": 1, "valid": 11})
    for word in ("train", "valid"):
        (root / f"annotations/instances_{word}.json").rename(root / word / "_annotations.coco.json")
    shutil.rmtree(root / "annotations")
    spec, _ = proposal(root, tmp_path / "out")
    assert keys(spec) == {"seg": {"type": "segmentation", "target": "{split}/_annotations.coco.json"}}


def test_the_decathlon_is_not_coco(tmp_path):
    spec, _ = proposal(write_decathlon(tmp_path / "d"), tmp_path / "out")
    assert spec.data.source == "decathlon"


ROWS = """file,part,kind,tags,price,same
a/1.png,training,oak,big|old,0.25,x
a/2.png,training,elm,,1.5,x
a/3.png,training,,?,2.75,x
b/4.png,validation,oak,old,0.1,x
"""


def test_a_csv_with_a_column_of_splits(tmp_path):
    for i, name in enumerate(("a/1", "a/2", "a/3", "b/4")):
        save(tmp_path / f"data/{name}.png", 10 * i)
    (tmp_path / "data/all.csv").write_text(ROWS)
    spec, text = proposal(tmp_path / "data", tmp_path / "out")
    assert (spec.data.source, spec.data.file, spec.data.image, spec.data.split) == (
        "csv",
        "all.csv",
        "file",
        "part",
    )
    assert spec.data.splits == {"train": "training", "val": "validation", "test": "validation"}
    assert keys(spec) == {
        "kind": {"type": "classification"},
        "tags": {"type": "classification", "multi_label": True, "classes": ["big", "old"]},
    }
    assert "# ? there is no row for test; val stands in" in text
    assert "#   column 'price': 4 different labels of 4 pictures; these are no classes" in text
    assert "#   column 'same': only one label, 'x'" in text


def test_a_csv_for_each_split(tmp_path):
    for i, split in enumerate(("train", "val", "test")):
        for k in range(2):
            save(tmp_path / f"data/p/{i}{k}.png", 10 * i + k)
        rows = [f"p/{i}{k}.png;{'ab'[k]}" for k in range(2)]
        (tmp_path / f"data/labels_{split}.csv").write_text("\n".join(["path;kind", *rows]))
    spec, _ = proposal(tmp_path / "data", tmp_path / "out")
    assert (spec.data.source, spec.data.file, spec.data.split) == ("csv", "labels_{split}.csv", None)
    assert keys(spec) == {"kind": {"type": "classification"}}


def test_a_csv_without_splits(tmp_path):
    save(tmp_path / "data/1.png")
    save(tmp_path / "data/2.png", 1)
    (tmp_path / "data/all.csv").write_text("path,kind\n1.png,a\n2.png,b\n")
    text = scaffold(tmp_path / "data", tmp_path)
    assert "  # to do: split: the column that says which of train, val and test a row is of" in text


def test_shards(tmp_path):
    spec, text = proposal(write_shards(tmp_path / "w", each=6), tmp_path / "out")
    assert (spec.data.source, spec.data.shards, spec.data.size) == ("webdataset", "{split}-*.tar", (32, 32))
    assert keys(spec) == {
        "seg": {"type": "segmentation", "target": "seg.png", "classes": 3},
        "depth": {"type": "depth", "target": "depth.npy", "scale": 1},
        "cls": {"type": "classification", "target": "cls"},
        "room": {"type": "classification", "target": "json:room"},
        "tags": {"type": "classification", "target": "json:tags", "multi_label": True, "classes": ["old"]},
        "points": {"type": "keypoints", "target": "json:points", "kinds": ["kind0", "kind1"]},
    }
    assert "  # ? 3 classes of 35 pictures\n  cls:" in text


def test_shards_in_folders_with_other_names(tmp_path):
    root = tmp_path / "w"
    face = json.dumps({"left eye": [1, 2, 2], "nose": [3, 4, 2]}).encode()
    for word in ("train", "valid"):
        members = []
        for i in range(4):
            depth = npy(np.linspace(1, 5, 24 * 32, dtype=np.float32).reshape(24, 32))
            members += [(f"{i}.rgb.png", png(grey(i + 9 * (word == "valid")))), (f"{i}.z.npy", depth)]
            members += [(f"{i}.face.json", face), (f"{i}.txt", f"a caption {i}".encode() * (i + 1))]
        write_tar(root / f"shards/{word}/0001.tar", members)
    spec, text = proposal(root, tmp_path / "out")
    assert spec.data.shards == "shards/{split}/*.tar" and spec.data.image == "rgb.png"
    assert spec.data.splits == {"train": "train", "val": "valid", "test": "valid"}
    assert {name: task["type"] for name, task in keys(spec).items()} == {
        "z": "depth", "face": "keypoints", "txt": "classification",
    }  # fmt: skip
    assert spec.tasks["face"].names == ["left eye", "nose"]


def test_parquet_files(tmp_path):
    pytest.importorskip("datasets")
    spec, text = proposal(write_parquet(tmp_path / "h", each=6), tmp_path / "out")
    assert (spec.data.source, spec.data.files) == ("huggingface", "data/{split}-*.parquet")
    assert keys(spec) == {
        "seg": {"type": "segmentation", "classes": 3},
        "depth": {"type": "depth", "scale": 1},
        "room": {"type": "classification"},
        "kind": {"type": "classification"},
        "tags": {"type": "classification", "multi_label": True},
        "points": {"type": "keypoints", "kinds": ["kind0", "kind1"]},
    }
    assert "# ? ClassLabels: bath, hall, attic\n  room:" in text


def test_archives_beside_the_pictures_are_no_shards(tmp_path):
    for split in ("train", "val", "test"):
        save(tmp_path / f"data/images/{split}/1.png", 5)
        save(tmp_path / f"data/images/{split}/2.png", 6)
        write_tar(tmp_path / f"data/{split}.tar", [(f"1.{ending}", c) for ending, c in sample(3).items()])
    assert "source: folder" in scaffold(tmp_path / "data", tmp_path)
