"""Rows of parquet files: features, missing values, what is refused, and that nothing is fetched."""

import builtins
import os
import re
import socket

import numpy as np
import pytest

datasets = pytest.importorskip("datasets")

from perceptkit.errors import DataError, SpecError  # noqa: E402  # after the skip
from perceptkit.spec.huggingface import Rows  # noqa: E402
from perceptkit.spec.packed_arrays import as_array  # noqa: E402
from perceptkit.spec.tasks_file import TASK_SPECS  # noqa: E402
from tests.packed_files import class_map, grey, png, write_parquet  # noqa: E402


def spec(kind, **keys):
    return TASK_SPECS[kind].model_validate({"type": kind, **keys})


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """A cache of its own, and no way out: HF_HUB_OFFLINE is not what keeps us from the network."""

    def refuse(*args):
        raise AssertionError("something wants to connect")

    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    return sorted(write_parquet(tmp_path / "h", each=3).glob("data/train-*"))


def test_rows_by_their_place(files):
    rows = Rows(files, "image")
    assert rows.ids[2:4] == ["train-00000-of-00002/2", "train-00001-of-00002/0"]
    assert rows.where(4, "seg") == "h/data/train-00001-of-00002.parquet: row 1, seg"
    for i in (5, 0, 3):
        assert np.array_equal(as_array(rows.picture(i), ""), grey(i))
        assert rows.picture_size(i) == len(png(grey(i)))
        assert np.array_equal(
            as_array(rows.stored(i, "seg", spec("segmentation", classes=3)), ""), class_map(i)
        )
    assert np.array_equal(as_array(rows.stored(2, "depth", spec("depth")), ""), np.full((24, 32), 3.0))


def test_labels(files):
    rows = Rows(files, "image")
    room, tags = spec("classification"), spec("classification", multi_label=True)
    assert list(rows.all_stored("room", room)) == ["bath", None, "attic", "bath", "hall", "attic"]
    assert list(rows.all_stored("tags", tags))[:3] == [["old"], None, ["old"]]
    assert list(rows.all_stored("kind", room))[:3] == ["a", None, "a"]
    assert rows.class_names("room", room) == ["bath", "hall", "attic"]
    assert rows.class_names("tags", tags) == ["old", "big"]
    assert rows.class_names("kind", room) is None
    by_number = spec("classification", classes=3)
    assert list(rows.all_stored("room", by_number))[:3] == [0, None, 2]
    for task, of_task in {"room": room, "seg": spec("segmentation"), "depth": spec("depth")}.items():
        assert rows.labelled(task, of_task) == [True, False, True, True, True, True], task
    assert rows.stored(1, "seg", spec("segmentation")) is None


def test_bytes_without_features(tmp_path):
    """As pandas writes them: bytes, or the struct of an Image, and no word of datasets."""
    import pyarrow
    import pyarrow.parquet

    content = [png(grey(i)) for i in range(2)]
    table = pyarrow.table(
        {"image": [{"bytes": c, "path": None} for c in content], "raw": content, "n": [1, 2]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for column in ("image", "raw"):
        rows = Rows([tmp_path / "a.parquet"], column)
        assert [rows.picture(i) for i in range(2)] == content
        assert [rows.picture_size(i) for i in range(2)] == [len(c) for c in content]
    with pytest.raises(
        DataError, match=r"a.parquet: row 0, n holds int, no picture; data.image names the column"
    ):
        Rows([tmp_path / "a.parquet"], "n").picture(0)
    with pytest.raises(DataError, match=r"a.parquet has no column 'imag'; did you mean 'image'\?"):
        Rows([tmp_path / "a.parquet"], "imag").picture(0)


@pytest.mark.parametrize("path", ["https://example.com/1.png", "/etc/passwd", "../1.png", "absent.png"])
def test_pictures_that_are_elsewhere(tmp_path, path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": [{"bytes": None, "path": path}]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    message = (
        rf"a.parquet: row 0, image holds no picture but the path {re.escape(path)}; write the files with"
    )
    with pytest.raises(DataError, match=message):
        Rows([tmp_path / "a.parquet"], "image").picture(0)


def test_damaged_files(tmp_path, files):
    content = files[1].read_bytes()
    with pytest.raises(DataError, match="there is no file absent.parquet"):
        Rows([files[0], tmp_path / "absent.parquet"], "image")
    files[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=r"train-00001-of-00002.parquet is no parquet file, or damaged \(.*make it"
    ):
        Rows(files, "image")
    files[1].write_bytes(content[:200] + bytes(2000) + content[2200:])
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet is no parquet file, or damaged"):
        Rows(files, "image")
    write_parquet(tmp_path / "other", each=3, columns={"image": 0, "room": 0})
    files[1].write_bytes((tmp_path / "other/data/train-00001-of-00002.parquet").read_bytes())
    with pytest.raises(
        DataError, match=r"train-00001.* has the columns image, room; .*train-00000.* has image, seg"
    ):
        Rows(files, "image")


def test_classes_in_another_order(tmp_path):
    """Number 0 of the second file would be read as number 0 of the first."""
    for name, classes in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=classes)})
        rows = {"image": [{"bytes": png(grey(0)), "path": None}], "kind": [0]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / f"{name}.parquet"))
    with pytest.raises(
        DataError, match=r"b.parquet has other features or classes than a.parquet; write both"
    ):
        Rows([tmp_path / "a.parquet", tmp_path / "b.parquet"], "image")


def test_a_changed_file_is_read_anew(tmp_path, files):
    first = Rows(files, "image").picture(0)
    content = files[1].read_bytes()
    files[0].write_bytes(content)
    os.utime(files[0], ns=(1, 1))
    assert Rows(files, "image").picture(0) != first


def test_a_cache_that_cannot_be_written(tmp_path, files, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERCEPTKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"tables cannot be kept there .* point PERCEPTKIT_CACHE to a folder"):
        Rows(files, "image")


def test_without_the_package(files, monkeypatch):
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name="datasets")
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        SpecError, match=r"'source: huggingface' needs datasets: pip install 'perceptkit\[hf\]'"
    ):
        Rows(files, "image")
