"""Pictures with one class each, from both layouts, and several splits trained on as one."""

import numpy as np
import pytest
from PIL import Image

from perceptkit.data.cache import keep_decoded
from perceptkit.data.listed import ListedSource
from perceptkit.data.loader import make_loader
from perceptkit.data.sources import Joined, open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.spec.recipe import AugmentSpec, LoaderSpec
from perceptkit.tasks.table import build_tasks
from tests.listed_files import label_test_split, write_class_folders, write_decathlon

TASK = "tasks: {kind: {type: classification%s}}\n"


def load(folder, data, more=""):
    path = folder / "t.yaml"
    path.write_text(f"name: t\ndata: {{{data}, root: data, size: [32, 48]}}\n{TASK % more}")
    spec = load_tasks(path).spec
    return spec, build_tasks(spec)


def grey_and_class(source):
    """Of every sample: the grey value of its picture and its target."""
    samples = [source.load(i) for i in range(len(source))]
    return [(round(float(sample.image.mean())), int(sample.targets["kind"])) for sample in samples]


def test_class_folders(tmp_path):
    write_class_folders(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: imagefolder")
    source = open_split(spec, tasks, "train")
    assert grey_and_class(source) == [(0, 0), (1, 0), (10, 1), (11, 1)]
    sample = source.load(3)
    assert sample.id == "cat/1.png" and sample.image.shape == (32, 48, 3)
    assert sample.targets["kind"].dtype == np.int64 and sample.targets["kind"].shape == ()


def test_the_order_of_declared_classes(tmp_path):
    write_class_folders(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: imagefolder", ", classes: [cat, bird]")
    assert grey_and_class(open_split(spec, tasks, "test")) == [(0, 1), (1, 1), (10, 0), (11, 0)]


def test_the_decathlon_joins_by_image_id(tmp_path):
    write_decathlon(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: decathlon, domain: gtsrb")
    # the writer's grey value holds category 1, 2 or 3; JPEG keeps a constant grey
    for split in ("train", "val"):
        found = grey_and_class(open_split(spec, tasks, split))
        assert [grey % 10 - 1 for grey, _ in found] == [label for _, label in found]
    test = open_split(spec, tasks, "test")
    assert list(test.ids) == [str(i) for i in range(50200013, 50200019)]
    assert [label for _, label in grey_and_class(test)] == [-1] * 6  # stripped: masked, never a class
    label_test_split(tmp_path / "data")
    assert [label for _, label in grey_and_class(open_split(spec, tasks, "test"))] == [0] * 6


def test_train_on_train_and_val(tmp_path):
    write_class_folders(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: imagefolder, train_on: [train, val]")
    source = open_train(spec, tasks)
    assert isinstance(source, Joined) and len(source) == len(source.ids) == 8
    assert grey_and_class(source) == 2 * grey_and_class(open_split(spec, tasks, "val"))
    with pytest.raises(IndexError):
        source.load(8)
    spec, tasks = load(tmp_path, "source: imagefolder")
    assert isinstance(open_train(spec, tasks), ListedSource)


def test_files_that_changed_since_the_check(tmp_path):
    root = write_class_folders(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: imagefolder")
    (root / "val/cat").rename(root / "val/cow")
    with pytest.raises(DataError, match="val/cow/0.png is of the class 'cow', which kind does not have"):
        open_split(spec, tasks, "val")
    (root / "train/cat/0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="train/cat/0.png: not a readable picture"):
        open_split(spec, tasks, "train").load(2)
    for picture in (root / "test").rglob("*.png"):
        picture.unlink()
    with pytest.raises(DataError, match="no pictures for test in "):
        open_split(spec, {}, "test")


CROPPED = AugmentSpec(crop=(32, 32))


def write_ramps(folder, wide=64):
    """A domain whose pictures are 40 pixels high and `wide`, and have the number of the column as their grey."""
    write_decathlon(folder / "data")
    columns = np.broadcast_to(np.arange(wide, dtype=np.uint8)[None, :, None], (40, wide, 3))
    for picture in (folder / "data/data").rglob("*.jpg"):
        Image.fromarray(columns).save(picture, format="PNG")  # lossless, whatever it is called


def left_columns(folder, epochs, split="train", augment=CROPPED, workers=0, more=""):
    """Of every picture that is trained on: which column its window begins with, and whether it is one in a row."""
    path = folder / "t.yaml"
    path.write_text(
        f"name: t\ndata: {{source: decathlon, domain: gtsrb, root: data, size: [40, 40]{more}}}\n{TASK % ''}"
    )
    spec = load_tasks(path).spec
    tasks = build_tasks(spec)
    source = open_train(spec, tasks) if split == "train" else open_split(spec, tasks, split)
    keep_decoded(LoaderSpec(cache="ram"), {"train": source}, folder, whole=("train",) if augment else ())
    found = []
    for epoch in range(epochs):
        batches = make_loader(
            source, range(len(source)), tasks, batch=3, workers=workers, augment=augment, mean=(0, 0, 0),
            std=(1, 1, 1), seed=0, epoch=epoch, shuffle=False, drop_last=False,
        )  # fmt: skip
        for batch in batches:
            row_BW = (batch.image_BCHW[:, 0, 0] * 255).round().int()
            assert (row_BW.diff(dim=1) == 1).all()
            found += row_BW[:, 0].tolist()
    return found


@pytest.mark.slow
def test_training_crops_anywhere_in_the_picture_and_evaluation_takes_the_middle(tmp_path):
    """The middle is 40 of 64 columns, so windows of 32 in it would begin at 12 to 20."""
    write_ramps(tmp_path)
    found = left_columns(tmp_path, epochs=60)
    assert found == left_columns(tmp_path, epochs=60, workers=1)  # by seed, epoch and index alone
    assert set(found) == set(range(64 - 32 + 1))
    # 360 of 33 places: each 10.9 times, with a deviation of 3.3
    assert max(map(found.count, set(found))) < 10.9 + 5 * 3.3
    assert left_columns(tmp_path, epochs=1, augment=None) == [12] * 6
    assert left_columns(tmp_path, epochs=1, split="val", augment=None) == [12] * 6
    assert set(left_columns(tmp_path, epochs=1, augment=AugmentSpec(hflip=0.0))) == {12}


def test_what_is_trained_on_and_partly_labelled_is_cropped_alike(tmp_path):
    write_ramps(tmp_path)
    found = left_columns(tmp_path, epochs=10, more=", train_on: [train, val], on_bad: skip")
    assert len(found) == 120 and min(found) < 12 and max(found) > 20


def test_pictures_that_are_stretched_are_whole_already(tmp_path):
    write_class_folders(tmp_path / "data")
    spec, tasks = load(tmp_path, "source: imagefolder")
    source = open_split(spec, tasks, "train")
    assert source.load(0, whole=True).image.shape == source.load(0).image.shape == (32, 48, 3)
