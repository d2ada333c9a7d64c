"""A split without the pictures that cannot be read."""

import re

import numpy as np
import pytest
from PIL import Image

from perceptkit.data.readable import Readable, unreadable
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks

TASKS = """\
name: t
data: {source: folder, root: data, image: "{split}/{id}.jpg", size: [32, 32], on_bad: skip}
tasks:
  seg: {type: segmentation, target: "seg/{split}/{id}.png", classes: 3}
"""


@pytest.fixture
def root(tmp_path):
    """Pictures 0 to 5 in every split. Of train 1 is truncated, 2 empty, and the label of 4 has no such class."""
    for i, split in enumerate(("train", "val", "test")):
        for folder in (split, f"seg/{split}"):
            (tmp_path / "data" / folder).mkdir(parents=True)
        for k in range(6):
            picture = np.full((24, 24, 3), 40 * k + 10 * i, np.uint8)
            Image.fromarray(picture).save(tmp_path / f"data/{split}/{k}.jpg")
            Image.fromarray(np.full((24, 24), k % 3, np.uint8)).save(tmp_path / f"data/seg/{split}/{k}.png")
    train = tmp_path / "data/train"
    (train / "1.jpg").write_bytes((train / "1.jpg").read_bytes()[:-40])
    (train / "2.jpg").write_bytes(b"")
    Image.fromarray(np.full((24, 24), 9, np.uint8)).save(tmp_path / "data/seg/train/4.png")
    (tmp_path / "t.yaml").write_text(TASKS)
    return tmp_path


def opened(root, *overrides, left_out=None):
    spec = load_tasks(root / "t.yaml", overrides).spec
    return open_split(spec, build_tasks(spec), "train", left_out=left_out)


def test_what_is_left_keeps_its_order_and_its_pixels(root):
    whole, source = opened(root, "data.on_bad=error"), opened(root)
    assert list(source.ids) == ["0", "3", "5"] and len(source) == 3
    for index, of_whole in enumerate((0, 3, 5)):
        ours, theirs = source.load(index), whole.load(of_whole)
        assert ours.id == theirs.id
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.targets["seg"], theirs.targets["seg"])


def test_the_reasons_are_what_training_would_stop_at(root):
    whole = opened(root, "data.on_bad=error")
    reasons = unreadable(whole, "train")
    assert list(reasons) == ["1", "2", "4"]
    for index, image_id in enumerate(whole.ids):
        if image_id in reasons:
            with pytest.raises(DataError, match=re.escape(reasons[image_id])):
                whole.load(index)
    assert "truncated" in reasons["1"].lower() and "holds class id 9" in reasons["4"]


def test_what_is_known_is_not_looked_for_again(root):
    assert list(opened(root, left_out={"train": {"0": "why"}}).ids) == ["1", "2", "3", "4", "5"]


def test_two_splits_to_train_on(root):
    spec = load_tasks(root / "t.yaml", ["data.train_on=[train,val]"]).spec
    joined = open_train(spec, build_tasks(spec))
    assert list(joined.ids) == ["0", "3", "5", *"012345"] and joined.load(3).id == "0"


def test_nothing_left(root):
    with pytest.raises(DataError, match="train: none of its 6 pictures can be read; the first: no"):
        Readable(opened(root, "data.on_bad=error"), dict.fromkeys("012345", "no"), "train")
