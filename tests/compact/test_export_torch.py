"""A torch.export program: any batch, the same bits, and nothing in the file that is a pickle or code."""

import json
from zipfile import ZipFile

import pytest
import torch

from perceptkit.compact.export import export_network
from perceptkit.compact.pt2_file import inspect, open_torch
from tests.compact import conftest as shared
from tests.compact.conftest import SIZE, compacted, lone


@pytest.fixture
def exported(tmp_path_factory):
    return shared.exported(tmp_path_factory, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_same_numbers_without_perceptkit(exported, batch):
    network, manifest = compacted()
    image = torch.randn(batch, 3, *SIZE)
    with torch.no_grad():
        expected, got = network(image), torch.export.load(exported).module()(image)
    for task, value in zip(manifest.tasks, got, strict=True):
        assert torch.allclose(value, expected[task], atol=1e-5)


def test_the_manifest_is_inside(exported):
    kind, text = inspect(exported)
    assert kind == "torch" and json.loads(text) == json.loads(json.dumps(compacted()[1].to_dict()))
    extra = {"perceptkit.json": ""}
    torch.export.load(exported, extra_files=extra)
    assert extra["perceptkit.json"] == text


def test_no_pickle_is_in_the_file(exported):
    with ZipFile(exported) as archive:
        pickles = [info for info in archive.infolist() if info.filename.endswith((".pt", ".pkl"))]
    assert [info.file_size for info in pickles] in ([], [0])


def test_the_record(exported):
    report = json.loads((exported.parent / "parity.json").read_text())["model.pt2"]
    assert (
        report["format"] == "torch" and report["bound"] == 1e-4 and report["bytes"] == exported.stat().st_size
    )
    assert report["sizes"] == {"fixed": [64, 64]} and report["compared_on"]["batches"] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.078), ("fp16", 0.0098)])
def test_half_precision_runs_on_the_cpu(tmp_path, precision, bound):
    small, manifest = lone()
    path = export_network(small, manifest, tmp_path / "half.pt2", "torch", precision=precision)
    report = json.loads((tmp_path / "parity.json").read_text())["half.pt2"]
    assert report["precision"] == precision and report["bound"] == pytest.approx(bound, rel=1e-2)
    assert 0 < report["heads"]["room"]["max_abs"] < bound / 2
    image = torch.randn(3, 3, *SIZE)
    got = open_torch(path, ["room"])(image)["room"]
    assert got.dtype == torch.float32 and torch.allclose(got, small(image)["room"], atol=bound)
    assert (
        path.stat().st_size
        < 0.75 * export_network(small, manifest, tmp_path / "a.pt2", "torch").stat().st_size
    )
