"""Shards and parquet files as a source: every target by hand, the same batches however they are loaded."""

import re

import numpy as np
import pytest
import torch

from perceptkit.cli import main
from perceptkit.data.loader import make_loader
from perceptkit.data.sources import find_left_out, open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks
from tests.packed_files import png, write_parquet, write_shards, write_tar

DATA = {
    "webdataset": 'source: webdataset, root: data, shards: "{split}-*.tar"',
    "huggingface": 'source: huggingface, root: data, files: "data/{split}-*.parquet"',
}
TARGETS = {
    "webdataset": {
        "seg": "target: seg.png, ", "depth": "target: depth.npy, ", "room": "target: 'json:room', ",
        "tags": "target: 'json:tags', ", "points": "target: 'json:points', ", "place": "target: cls, ",
    },
    "huggingface": {"place": "target: room, "},
}  # fmt: skip
KEYS = {
    "seg": "type: segmentation, classes: 3",
    "depth": "type: depth",
    "edges": "type: edges, derive: [seg]",
    "room": "type: classification, classes: [bath, hall, attic]",
    "tags": "type: classification, multi_label: true, classes: [old, big]",
    "points": "type: keypoints, kinds: [a, b]",
    "place": "type: embedding, dims: 4",
}


@pytest.fixture(params=sorted(DATA))
def source(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    if request.param == "huggingface":
        pytest.importorskip("datasets")
        write_parquet(tmp_path / "data")
    else:
        write_shards(tmp_path / "data")
    of_source = TARGETS[request.param]
    tasks = "\n".join(f"  {name}: {{{of_source.get(name, '')}{keys}}}" for name, keys in KEYS.items())
    text = f"name: t\ndata: {{{DATA[request.param]}, size: [48, 64]}}\ntasks:\n{tasks}\n"
    (tmp_path / "t.yaml").write_text(text)
    return request.param


def split(name="train", *overrides):
    spec = load_tasks("t.yaml", overrides).spec
    return open_split(spec, build_tasks(spec), name)


def test_targets(source):
    train = split()
    assert len(train) == 8 and len(set(train.ids)) == 8
    for i in (6, 0, 3):
        of_one = train.load(i)
        assert of_one.image.shape == (48, 64, 3) and (of_one.image == i).all()
        targets = of_one.targets
        assert targets["seg"].shape == (48, 64) and (targets["seg"][2:] == i % 3).all()
        assert (targets["seg"][:2] == -1).all()
        assert (targets["depth"] == 1 + i).all() and targets["depth"].shape == (1, 48, 64)
        assert targets["edges"][0, 2:].max() == 0
        assert int(targets["room"]) == i % 3
        # twice the size: x = i + 0.5 becomes (i + 1) * 2 - 0.5, y = 2 becomes 2.5 * 2 - 0.5
        assert targets["points"][0].tolist() == [2 * i + 1.5, 4.5, i % 2]
        assert (targets["points"][1:, 2] == -1).all()
    tags = [train.load(i).targets["tags"].tolist() for i in (2, 3)]
    by_source = {"webdataset": [[0, 0], [1, 0]], "huggingface": [[1, 0], [0, 1]]}
    assert tags == by_source[source]


def test_what_is_absent_is_a_missing_label(source):
    train = split()
    of_one = train.load(1)
    for name, task in train.tasks.items():
        assert np.array_equal(of_one.targets[name], task.missing((48, 64)), equal_nan=True), name
    assert (of_one.image == 1).all()


def test_labels_without_pictures(source):
    train = split()
    assert [train.label(i, "room") for i in range(4)] == [0, -1, 2, 0]
    # ids sorted: 0, 1, 2 of the shards; attic, bath, hall of the column
    place = {"webdataset": [0, -1, 2, 0], "huggingface": [1, -1, 0, 1]}
    assert [train.label(i, "place") for i in range(4)] == place[source]


def batches(source, **changes):
    settings = {
        "batch": 4, "workers": 0, "augment": None, "mean": [0, 0, 0], "std": [1, 1, 1], "seed": 3, "epoch": 2,
        "shuffle": True, "drop_last": True,
    }  # fmt: skip
    loader = make_loader(source, range(len(source)), source.tasks, **{**settings, **changes})
    return [batch.image_BCHW for batch in loader]


def test_batches_follow_from_seed_epoch_and_index(source):
    expected = batches(split())
    assert not torch.equal(expected[0], batches(split(), epoch=3)[0])
    for other in (batches(split()), batches(split(), workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(expected, other, strict=True))
    assert torch.equal(batches(split(), start_batch=1)[0], expected[1])  # as after a resume
    ranks = [batches(split(), batch=2, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(expected, *ranks, strict=True):
        assert torch.equal(whole[0::2], first) and torch.equal(whole[1::2], second)


def test_train_on_and_limit(source):
    spec = load_tasks("t.yaml", ["data.train_on=[train, val]"]).spec
    assert len(open_train(spec, build_tasks(spec))) == 16
    assert [split("train", "data.limit=2").load(i).image.max() for i in range(2)] == [0, 6]


def test_no_pictures_that_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data")
    seg = "seg: {type: segmentation, target: seg.png, classes: 3}"
    shards = '{source: webdataset, root: data, size: [32, 32], shards: "{split}-*.tar", on_bad: skip}'
    (tmp_path / "t.yaml").write_text(f"name: t\ndata: {shards}\ntasks: {{{seg}}}\n")
    label = png(np.zeros((24, 32), np.uint8))
    bad = [("b.png", b"no picture"), ("b.seg.png", label), ("c.seg.png", label), ("d.png", label[:40])]
    write_tar(tmp_path / "data/train-9.tar", [*bad, ("e.png", label), ("e.seg.png", b"")])
    spec = load_tasks("t.yaml").spec
    tasks = build_tasks(spec)
    left_out = find_left_out(spec, tasks)
    assert list(left_out["train"]) == ["train-9/b", "train-9/c", "train-9/d", "train-9/e"]
    assert left_out["val"] == {}
    assert re.match(r"data/train-9.tar: b.png: not a readable picture \(", left_out["train"]["train-9/b"])
    assert left_out["train"]["train-9/c"].startswith("data/train-9.tar: c has no picture")
    assert left_out["train"]["train-9/e"].startswith("data/train-9.tar: e.seg.png cannot be read")
    assert len(open_split(spec, tasks, "train")) == 8
    stopping = load_tasks("t.yaml", ["data.on_bad=error"]).spec
    with pytest.raises(DataError, match=r"train-9.tar: c has no picture"):
        open_split(stopping, tasks, "train").load(9)


@pytest.mark.slow
def test_dry_run(source, capsys):
    changes = ["backbone={name: test_resnet, weights: none}", "loader.batch=2", "loader.workers=0"]
    command = ["train", "t.yaml", "--recipe", "hard", "--dry-run", "--set", *changes]
    assert main(command) == 0, capsys.readouterr().err
