"""NYUv2, Cityscapes and Taskonomy from their own files: every value that a target holds, worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch

from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks
from tests.layout_files import (
    save,
    write_cityscapes_mtan,
    write_cityscapes_official,
    write_nyuv2,
    write_nyuv2_mtan,
    write_taskonomy,
)

NYU = "seg: {type: segmentation, classes: 40}, sn: {type: normals}, depth: {type: depth}"
NYU13 = "seg: {type: segmentation, classes: 13, ignore_index: -1}, sn: {type: normals}, depth: {type: depth}"
CITY = "seg: {type: segmentation, classes: 19, ignore_index: -1}, depth: {type: depth, unit: 1/m}"
TASKONOMY = (
    "seg: {type: segmentation, classes: 17}, sn: {type: normals}, depth: {type: depth}, "
    "kp: {type: response, target: keypoints2d}, edge: {type: response, target: edge_texture}"
)


def load(folder, data, tasks):
    """The tasks file whose root is the folder `data` beside it, and its tasks."""
    path = folder / "t.yaml"
    path.write_text(f"name: t\ndata: {{{data}, root: data}}\ntasks: {{{tasks}}}\n")
    spec = load_tasks(path).spec
    return spec, build_tasks(spec)


def split(folder, data, tasks, name):
    return open_split(*load(folder, data, tasks), name)


NYU_DATA = "source: nyuv2, size: [48, 64]"


def test_nyuv2_of_adashare(tmp_path):
    write_nyuv2(tmp_path / "data")
    source = split(tmp_path, NYU_DATA, NYU, "train")
    assert source.ids == [f"img/000{i}" for i in range(4)]
    sample = source.load(3)
    assert sample.image.dtype == np.uint8 and (sample.image == 30).all()
    assert (sample.targets["seg"][0] == -1).all() and (sample.targets["seg"][1:] == 3).all()
    # (127, 127, 0) is almost straight at the camera, x and y -1/255; the first column is white: invalid
    normal = sample.targets["sn"]
    assert (normal[:, :, 0] == 0).all()
    assert normal[:, 5, 5] == pytest.approx(np.array([-1, -1, -255]) / math.hypot(1, 1, 255), abs=1e-6)
    assert (sample.targets["depth"] == 2.5).all() and sample.targets["depth"].shape == (1, 48, 64)


def test_the_lists_of_nyuv2(tmp_path):
    write_nyuv2(tmp_path / "data")
    sizes = {name: len(split(tmp_path, NYU_DATA, NYU, name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 4, "val": 2, "test": 2}
    assert len(open_train(*load(tmp_path, f"{NYU_DATA}, train_on: [train, val]", NYU))) == 6
    reference = f"{NYU_DATA}, splits: {{train: train, val: test}}"
    assert len(split(tmp_path, reference, NYU, "train")) == 6
    assert split(tmp_path, reference, NYU, "val").ids == split(tmp_path, reference, NYU, "test").ids
    held = f"{NYU_DATA}, hold_out: 50%"
    assert split(tmp_path, held, NYU, "train").ids == ["img/0000", "img/0001", "img/0002"]
    assert split(tmp_path, held, NYU, "val").ids == ["img/0003", "img/0004", "img/0005"]
    assert len(split(tmp_path, f"{NYU_DATA}, limit: 1", NYU, "train")) == 1
    (tmp_path / "data/nyu_v2_3task.json").rename(tmp_path / "data/mine.json")
    assert len(split(tmp_path, f"{NYU_DATA}, lists: mine.json", NYU, "val")) == 2


def test_nyuv2_without_lists_is_all_test(tmp_path):
    root = write_nyuv2(tmp_path / "data", lists=False)
    (root / "depth/0002.npy").unlink()
    source = split(tmp_path, NYU_DATA, NYU, "test")
    assert source.ids == [f"img/000{i}" for i in range(8) if i != 2]
    with pytest.raises(DataError, match="no .*nyu_v2_3task.json, without which .* none of train1"):
        split(tmp_path, NYU_DATA, NYU, "train")


def test_nyuv2_of_mtan(tmp_path):
    write_nyuv2_mtan(tmp_path / "data")
    source = split(tmp_path, f"{NYU_DATA}, layout: mtan", NYU13, "train")
    assert source.ids[9:11] == ["train/9", "train/10"]  # by number, not by text
    sample = source.load(10)
    assert (sample.image == 26).all()  # 0.1 * 255 = 25.5, which is above it in float32
    assert (sample.targets["seg"][0] == -1).all() and (sample.targets["seg"][1:] == 10).all()
    assert (sample.targets["depth"] == 2).all()
    assert (sample.targets["sn"][:, 0] == 0).all() and (sample.targets["sn"][2, 1:] == -1).all()
    assert split(tmp_path, f"{NYU_DATA}, layout: mtan", NYU13, "test").ids == ["val/0", "val/1"]


def test_raw_bytes_as_normals(tmp_path):
    root = write_nyuv2(tmp_path / "data")
    normal = np.full((48, 64, 3), (30, 40, 0), np.uint8)
    normal[0] = 3, 4, 255
    save(root / "normal_mask/0000.png", normal)
    tasks = "sn: {type: normals, encoding: raw_u8}"
    target = split(tmp_path, NYU_DATA, tasks, "train").load(0).targets["sn"]
    assert target[:, 1, 1] == pytest.approx([0.6, 0.8, 0])
    assert (target[:, 0] == 0).all()  # a byte of 255 marks what is invalid


CITY_DATA = "source: cityscapes, size: [32, 64]"


@pytest.mark.parametrize("classes", [2, 7, 19])
def test_cityscapes_of_mtan(tmp_path, classes):
    write_cityscapes_mtan(tmp_path / "data")
    tasks = CITY.replace("19", str(classes))
    sample = split(tmp_path, f"{CITY_DATA}, layout: mtan", tasks, "train").load(5)
    assert sample.image[0, 0].tolist() == [0, 128, 128]  # RGB of 0, 0.5, 0.5; halves go to the even number
    assert (sample.targets["seg"][0] == -1).all() and (sample.targets["seg"][1:] == 5 % classes).all()
    assert sample.targets["depth"].shape == (1, 32, 64)
    assert sample.targets["depth"][0, 3, 3] == pytest.approx(0.05)


def test_cityscapes_of_adashare(tmp_path):
    write_cityscapes_mtan(tmp_path / "data", lists=True)
    assert split(tmp_path, CITY_DATA, CITY, "train").ids == [f"train/image/{i}" for i in range(4)]
    assert split(tmp_path, CITY_DATA, CITY, "test").ids == ["val/image/0", "val/image/1"]


def test_the_official_cityscapes(tmp_path):
    write_cityscapes_official(tmp_path / "data")
    data = f"{CITY_DATA}, layout: official"
    source = split(tmp_path, data, CITY, "train")
    assert source.ids[:2] == ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019"]
    assert len(source) == 6
    targets = source.load(1).targets
    assert [int(targets["seg"][row, 0]) for row in (0, 7, 14, 21, 31)] == [-1, -1, 0, 13, 10]
    # disparity (513 - 1) / 256 = 2 px; 0 is invalid
    assert targets["depth"][0, 0, 0] == 0 and targets["depth"][0, 1, 0] == 2
    seven = split(tmp_path, data, CITY.replace("19", "7"), "train").load(1).targets["seg"]
    assert [int(seven[row, 0]) for row in (0, 7, 14, 21, 31)] == [-1, -1, 0, 6, 4]


@pytest.mark.parametrize("hosted", [False, True])
def test_taskonomy_in_both_orders_of_paths(tmp_path, hosted):
    write_taskonomy(tmp_path / "data", hosted=hosted)
    source = split(tmp_path, "source: taskonomy, size: [32, 32]", TASKONOMY, "train")
    assert source.ids[2] == "allensville/rgb/point_2_view_0_domain_rgb"
    targets = source.load(2).targets
    assert (source.load(2).image == 20).all()
    # classes: 0 and 1 become 0, all others lose 1
    assert [int(source.load(i).targets["seg"][0, 0]) for i in range(4)] == [0, 0, 1, 2]
    assert targets["depth"][0, 0, 0] == pytest.approx(0.5)  # log(1 + 255) / log(65536) = 8 / 16
    assert (source.load(0).targets["depth"] == 0).all()  # from 64500 on invalid
    # 164 / 65536 / 0.005 = 0.50049 of the range from -1 to 1; 60000 / 65536 is cut off at 0.08
    assert targets["kp"][0, 0, 0] == pytest.approx(2 * 164 / 65536 / 0.005 - 1, abs=1e-6)
    assert (targets["edge"] == 1).all() and targets["edge"].shape == (1, 32, 32)
    assert targets["sn"][2, 0, 0] == pytest.approx(-1, abs=1e-4)
    small = "source: taskonomy, size: [32, 32], splits: {test: test_small}"
    assert len(split(tmp_path, small, TASKONOMY, "test")) == 1


def test_a_label_without_file_is_missing(tmp_path):
    root = write_nyuv2(tmp_path / "data")
    (root / "seg/0001.png").unlink()
    (root / "depth/0001.npy").unlink()
    tasks = f"{NYU}, edges: {{type: edges, derive: [seg, sn]}}"
    spec, built = load(tmp_path, NYU_DATA, tasks)
    targets = open_split(spec, built, "train").load(1).targets
    assert (targets["seg"] == -1).all() and (targets["depth"] == 0).all() and (targets["edges"] == -1).all()
    losses = built["edges"].loss(torch.zeros(1, 1, 48, 64), torch.from_numpy(targets["edges"])[None])
    assert losses == 0


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("seg/0000.png", np.full((48, 64), 41, np.uint8), "holds class id 41; 40 classes are declared"),
        ("seg/0000.png", None, "cannot be read"),
        ("img/0000.png", None, "not a readable picture"),
        ("depth/0000.npy", np.full((48, 64), -1.0), "holds negative depth"),
        ("depth/0000.npy", np.zeros((48, 64, 3)), "has shape 48x64x3; expected one value per pixel"),
        (
            "normal_mask/0000.png",
            np.zeros((48, 64), np.uint8),
            "has shape 48x64; expected 3 values per pixel",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, values, message):
    root = write_nyuv2(tmp_path / "data")
    if values is None:
        (root / file).write_bytes((root / file).read_bytes()[:30])
    else:
        save(root / file, values)
    with pytest.raises(DataError, match=f"{file}.* {message}"):
        split(tmp_path, NYU_DATA, NYU, "train").load(0)


def test_nothing_is_unpickled(tmp_path):
    root = write_nyuv2_mtan(tmp_path / "data")
    np.save(root / "train/image/0.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(root / "train/label/1.npy", np.array([{"a": 1}], object), allow_pickle=True)
    source = split(tmp_path, f"{NYU_DATA}, layout: mtan", NYU13, "train")
    for i in (0, 1):
        with pytest.raises(DataError, match="allow_pickle=False"):
            source.load(i)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((48, 64, 3), 7.0), "holds values from 7 to 7; expected floats from 0 to 1, or bytes"),
        (np.full((3, 48, 64), 0.5), "has shape 3x48x64; expected a picture, height x width x 3 numbers"),
    ],
)
def test_a_picture_that_is_none(tmp_path, values, message):
    root = write_nyuv2_mtan(tmp_path / "data")
    np.save(root / "train/image/0.npy", values)
    with pytest.raises(DataError, match=f"train/image/0.npy {message}"):
        split(tmp_path, f"{NYU_DATA}, layout: mtan", NYU13, "train").load(0)


def test_a_list_that_changed_since_the_check(tmp_path):
    root = write_nyuv2(tmp_path / "data")
    spec, tasks = load(tmp_path, NYU_DATA, NYU)
    (root / "nyu_v2_3task.json").write_text(json.dumps({"train1": []}))
    with pytest.raises(DataError, match="no pictures for train in "):
        open_split(spec, tasks, "train")
