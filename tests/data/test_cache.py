"""Decoded pictures that are kept: the same bits, shared by workers, never stale, within a limit."""

import multiprocessing
import re

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.data import cache
from perceptkit.data.cache import DiskCache, RamCache, Records, keep_decoded
from perceptkit.data.loader import make_loader
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.spec.recipe import AugmentSpec, LoaderSpec
from perceptkit.tasks.table import build_tasks

TASKS = """\
name: t
data: {source: folder, root: data, image: "{split}/{id}.png", size: [32, 40]}
tasks:
  seg: {type: segmentation, target: "seg/{split}/{id}.png", classes: 3}
  depth: {type: depth, target: "depth/{split}/{id}.npy"}
"""
SAMPLE = 32 * 40 * (3 + 4 + 4)
"""Bytes: colours, class ids of 32 bits, depth."""


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("", "seg/", "depth/"):
            (tmp_path / f"data/{kind}{split}").mkdir(parents=True)
        for i in range(4):
            rng = np.random.default_rng(i)
            values = rng.integers(0, 256, (50, 60, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / f"data/{split}/{i}.png")
            Image.fromarray(values[..., 0] % 3).save(tmp_path / f"data/seg/{split}/{i}.png")
            np.save(tmp_path / f"data/depth/{split}/{i}.npy", rng.random((50, 60)))
    (tmp_path / "t.yaml").write_text(TASKS)
    return tmp_path


def opened(folder, *overrides, **loader):
    spec = load_tasks(folder / "t.yaml", overrides).spec
    tasks = build_tasks(spec)
    sources = {"train": open_train(spec, tasks), "val": open_split(spec, tasks, "val")}
    said = keep_decoded(LoaderSpec(**loader), sources, folder / "run/cache")
    return sources["train"], tasks, said


def epoch(source, tasks, workers=0, number=0):
    settings = {"augment": AugmentSpec(hflip=0.5, rotate=20), "mean": (0,) * 3, "std": (1,) * 3, "seed": 0}
    return list(
        make_loader(
            source,
            range(len(source)),
            tasks,
            batch=2,
            workers=workers,
            epoch=number,
            shuffle=True,
            drop_last=False,
            **settings,
        )  # fmt: skip
    )


def equal(a, b):
    return torch.equal(a.image_BCHW, b.image_BCHW) and all(
        torch.equal(a.targets[name], b.targets[name]) for name in a.targets
    )


def drop_files(folder):
    """What is still read afterwards comes from a cache in memory."""
    for path in (folder / "data/train").iterdir():
        path.unlink()


@pytest.mark.parametrize("kind", ["ram", "disk", "auto", "none"])
def test_a_cache_changes_no_bit(folder, kind):
    plain, tasks, _ = opened(folder, cache="none")
    source, _, _ = opened(folder, cache=kind)
    for number in (0, 0, 1):
        made = epoch(source, tasks, number=number)
        assert all(map(equal, epoch(plain, tasks, number=number), made))
        assert made[0].targets["seg"].dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_shared_by_workers_and_outlives_them(folder, workers):
    source, tasks, _ = opened(folder, cache="ram")
    first = epoch(source, tasks, workers)
    drop_files(folder)
    assert all(map(equal, first, epoch(source, tasks, workers)))
    assert all(map(equal, first, epoch(source, tasks)))  # also without them


def _load(source, index, found):
    found.put(source.load(index).image)


@pytest.mark.slow
def test_memory_is_shared_with_processes_that_are_not_forked(folder):
    source, _, _ = opened(folder, cache="ram")
    kept = source.load(1).image
    drop_files(folder)
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=_load, args=(source, 1, found))
    process.start()
    assert np.array_equal(found.get(timeout=120), kept)
    process.join()


def test_what_is_kept_cannot_be_spoilt(folder):
    source, _, _ = opened(folder, cache="ram")
    first = source.load(0)
    again = source.load(0)
    again.image[:] = 0
    again.targets.pop("seg")
    with pytest.raises(ValueError, match="read-only"):
        again.targets["depth"][:] = 0
    assert np.array_equal(source.load(0).image, first.image) and "seg" in source.load(0).targets


def test_the_limit_keeps_the_first(folder):
    source, _, said = opened(folder, cache="ram", cache_limit=2 * SAMPLE + 100)
    assert [source.load(i).id for i in range(4)] == list("0123")
    assert said.endswith("2 of 8 are kept in memory, shared by workers (loader.cache: ram)")
    drop_files(folder)
    assert source.load(1).id == "1"
    with pytest.raises(DataError, match=r"2\.png: no such file"):
        source.load(2)


def test_what_is_said_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 12_400_000_000)
    said = opened(folder)[2]
    assert said == (
        "decoded pictures take about 112.6 kB (train 56.3 kB, val 56.3 kB); 12.4 GB of memory are free: "
        "all are kept in memory, shared by workers (loader.cache: auto)"
    )
    assert 8 * SAMPLE == 112_640
    assert opened(folder, cache="none")[2].endswith("none is kept (loader.cache: none)")
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 3 * SAMPLE)
    assert "3 of 8 are kept" in opened(folder)[2]  # a quarter of what is free
    assert "6 of 8 are kept" in opened(folder, cache="ram")[2]  # half of it


def test_files_are_found_by_a_later_run_until_they_are_stale(folder, monkeypatch):
    source, tasks, said = opened(folder, cache="disk")
    assert "of the disk are free: all are kept in" in said
    first = epoch(source, tasks)
    files = sorted((folder / "run/cache").rglob("*.npy"))
    assert len(files) == 4 and not list((folder / "run/cache").rglob(".*"))
    later, _, _ = opened(folder, cache="disk")
    monkeypatch.setattr(type(later), "decode", lambda *_: pytest.fail("was kept"))
    assert all(map(equal, first, epoch(later, tasks)))
    monkeypatch.undo()
    Image.fromarray(np.full((50, 60, 3), 9, np.uint8)).save(folder / "data/train/2.png")
    np.save(folder / "data/depth/train/3.npy", np.full((50, 60), 7.0))
    assert (later.load(2).image == 9).all() and (later.load(3).targets["depth"] == 7).all()
    assert (later.load(2).image == 9).all()
    now = sorted((folder / "run/cache").rglob("*.npy"))
    assert len(now) == 4 and len(set(now) & set(files)) == 2  # the stale ones went


def test_other_settings_read_no_older_files(folder):
    source, _, _ = opened(folder, cache="disk")
    depth = source.load(0).targets["depth"]
    scaled, _, _ = opened(folder, "tasks.depth.scale=2", cache="disk")
    np.testing.assert_allclose(scaled.load(0).targets["depth"], depth / 2)
    small, _, _ = opened(folder, "data.size=[32,32]", cache="disk")
    assert small.load(0).image.shape == (32, 32, 3)


def test_a_damaged_file_is_decoded_anew(folder):
    source, _, _ = opened(folder, cache="disk")
    whole = source.load(0).image
    (file,) = (folder / "run/cache").rglob("*.npy")
    for damage in (b"", file.read_bytes()[:-50], b"not an array"):
        file.write_bytes(damage)
        assert np.array_equal(source.load(0).image, whole)


def test_a_folder_that_cannot_be_written(folder):
    (folder / "file").write_text("")
    source, _, _ = opened(folder, cache="disk", cache_dir=str(folder / "file/below"))
    with pytest.raises(DataError, match=r"cannot be kept there .*loader\.cache_dir"):
        source.load(0)


def test_what_is_left_out_and_what_is_joined(folder):
    (folder / "data/train/1.png").write_bytes(b"")
    source, _, _ = opened(folder, "data.on_bad=skip", "data.train_on=[train,val]", cache="ram")
    assert len(source) == 7
    images = [source.load(i).image for i in range(7)]
    drop_files(folder)
    assert all(np.array_equal(source.load(i).image, image) for i, image in enumerate(images))


def test_a_sample_of_another_shape_is_not_kept(folder):
    source, tasks, _ = opened(folder, cache="none")
    sample = source.load(0)
    records = Records(tasks, (32, 32))
    assert Records(tasks, (32, 40)).fits(sample) and not records.fits(sample)
    kept = RamCache(records, source.ids, 4)
    kept.put(0, sample)
    assert kept.get(0) is None
    DiskCache(records, source, folder / "other", 4).put(0, sample)
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    "loader, message",
    [
        ({"cache_limit": "many"}, "expected a size, as 512MB or 4GB"),
        ({"cache_dir": "x"}, "is for 'cache: disk'; drop it, or write cache: disk"),
        ({"cache": "none", "cache_limit": "1GB"}, "drop it, or write cache: ram"),
    ],
)
def test_refused(loader, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoaderSpec(**loader)


def test_sizes():
    assert LoaderSpec(cache_limit="512MB").cache_limit == 512_000_000
    assert LoaderSpec(cache_limit="1.5 GB").cache_limit == 1_500_000_000
    assert LoaderSpec(cache_limit=7).cache_limit == 7
