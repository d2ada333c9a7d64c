"""tools/bench_data.py: both sides make the same of a file, a tiny run with its JSON, and memory that is flat."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench
import bench_data

from perceptkit.spec.load import load_tasks
from perceptkit.tasks.table import build_tasks


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    bench_data.write_scenes(root, 4, (96, 128))
    return root


@pytest.fixture
def sides(files):
    spec = load_tasks(files / "png.yaml", ["data.size=[48,64]"]).spec
    ours = bench_data.Ours(spec, build_tasks(spec))
    return ours, bench_data.Theirs(ours)


def test_both_sides_read_the_same_numbers(sides):
    ours, theirs = sides
    image, *labels = ours.decode(0)
    found = theirs.decode(0)
    np.testing.assert_array_equal(found["image"].permute(1, 2, 0), image)
    for name, values in zip(ours.tasks, labels, strict=True):
        stored = found[name].permute(1, 2, 0) if values.ndim == 3 else found[name][0]
        np.testing.assert_array_equal(stored, values)


def test_both_sides_resize_to_the_same_targets(sides):
    ours, theirs = sides
    sample, found = ours.resized(0), theirs.resized(0)
    image = found["image"].permute(1, 2, 0).numpy().astype(int)
    assert image.shape == sample.image.shape

    def gap(shift, axis):
        return np.abs(np.roll(image, shift, axis) - sample.image).mean()

    # areas and antialiased triangles weigh neighbours differently, but about the same place
    assert all(gap(0, axis) < gap(shift, axis) for axis in (0, 1) for shift in (-1, 1))
    assert (found["seg"].numpy() == sample.targets["seg"]).mean() > 0.9  # theirs takes another of two nearest
    assert found["seg"].dtype == torch.int64
    for name in ("depth", "normals", "edges"):
        assert found[name].shape == sample.targets[name].shape


def test_both_sides_make_batches_of_one_form(sides):
    ours, theirs = sides
    made, found = ours.batch([0, 1]), theirs.batch([0, 1])
    assert made.image_BCHW.shape == found["image"].shape == (2, 3, 48, 64)
    for name, target in made.targets.items():
        assert target.shape == found[name].shape and target.dtype == found[name].dtype


def test_flat():
    assert bench_data.is_flat([100, 200, 201, 207, 203])
    assert not bench_data.is_flat([100, 200, 201, 215, 203])
    assert bench_data.is_flat([100, 200, 201, 215, 203], 8) and not bench_data.is_flat(
        [100, 200, 201, 217, 203], 8
    )


@pytest.mark.slow
def test_a_tiny_run(files, tmp_path, capsys):
    out = tmp_path / "found.json"
    threads = torch.get_num_threads()
    tiny = ["--files", str(files), "--pictures", "4", "--pixels", "96", "128", "--batch", "2"]
    code = bench.main(["data", *tiny, "--rounds", "2", "--workers", "1", "--clock", "cpu", "--out", str(out)])
    torch.set_num_threads(threads)
    results = json.loads(out.read_text())["results"]
    assert len(results) == 2
    for found in results.values():
        assert {"decode", "decode, resize", "whole batch", "epoch, 1 workers"} <= found["ratios"].keys()
        assert {"decode seg", "move normals", "photometric"} <= found["profile_ms"].keys()
    medians = [level["median"] for found in results.values() for level in found["ratios"].values()]
    assert code == int(min(medians) < 1)
    assert "where our time goes" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_flat_over_five_epochs(files, tmp_path):
    out = tmp_path / "found.json"
    threads = torch.get_num_threads()
    tiny = [
        "--files",
        str(files),
        "--pictures",
        "4",
        "--pixels",
        "96",
        "128",
        "--batch",
        "2",
        "--image",
        "png",
    ]
    assert bench.main(["data", *tiny, "--rss", "--workers", "1", "--out", str(out)]) == 0
    torch.set_num_threads(threads)
    (found,) = json.loads(out.read_text())["results"].values()
    assert list(found) == ["0 workers", "1 workers"]
    assert all(len(of["main_mb"]) == len(of["worker_mb"]) == 5 and of["flat"] for of in found.values())
    assert min(found["1 workers"]["worker_mb"]) > 0
