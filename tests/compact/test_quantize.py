"""ONNX in 8 bits: smaller, close, measured on real targets, and refused where it computes no number."""

import json

import onnx
import pytest
import torch

from perceptkit.compact import quantize as module
from perceptkit.compact.export import export_network
from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.quantize import export_int8
from perceptkit.errors import ExportError, SpecError
from tests.compact.conftest import SIZE, lone

TOLD = {"calibrated_on": {"split": "train", "pictures": 8}, "measured_on": "val"}


def pictures(batches=2):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 3, *SIZE, generator=generator) for _ in range(batches)]


def measure(forward):
    """A number that follows from the outputs."""
    return {"room": {"top1": float(forward(pictures()[0])["room"].abs().mean())}}


@pytest.mark.slow
def test_smaller_close_and_measured(tmp_path):
    small, manifest = lone()
    path = export_int8(small, manifest, tmp_path / "model_int8.onnx", pictures(), measure, TOLD)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model_int8.onnx", "parity.json"]
    report = json.loads((tmp_path / "parity.json").read_text())["model_int8.onnx"]
    exact = export_network(small, manifest, tmp_path / "model.onnx", "onnx")
    assert report["precision"] == "int8" and report["bound"] is None and report["measured_on"] == "val"
    assert report["bytes"] == path.stat().st_size < exact.stat().st_size == report["bytes_float32"]
    assert report["size_ratio"] == pytest.approx(report["bytes_float32"] / report["bytes"])
    values = report["accuracy"]["room"]["top1"]
    assert values["int8"] == pytest.approx(values["float32"], rel=0.1) and values["int8"] != values["float32"]

    (forward, metadata), (before, _) = open_onnx(path), open_onnx(exact)
    assert json.loads(metadata["perceptkit"])["name"] == "tiny" and metadata["classes.room"]
    assert metadata["sizes"] == "multiples of 32"
    image = pictures()[1]
    assert torch.allclose(forward(image)["room"], before(image)["room"], atol=0.2)
    assert forward(torch.randn(1, 3, 96, 64))["room"].shape == (1, 3)


@pytest.mark.slow
def test_the_last_layers_stay_in_float(tmp_path):
    path = export_int8(*lone(), tmp_path / "m.onnx", pictures(1), measure, TOLD)
    graph = onnx.load(str(path)).graph
    made = {name: node for node in graph.node for name in node.output}
    node = made[graph.output[0].name]
    assert node.op_type in ("Gemm", "MatMul", "Add")
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 5


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["output", "metric"])
def test_nonsense_never_gets_its_name(tmp_path, monkeypatch, lost):
    real = module.open_onnx
    calls = []

    def broken(path, *args):
        forward, metadata = real(path, *args)
        if lost == "output":
            return (lambda image: {"room": forward(image)["room"] * torch.nan}), metadata
        return forward, metadata

    def once(forward):
        calls.append(forward)
        return {"room": {"top1": float("nan") if len(calls) > 1 and lost == "metric" else 0.5}}

    monkeypatch.setattr(module, "open_onnx", broken)
    with pytest.raises(ExportError, match="in int8 (room gives values|there is no number for room/top1)"):
        export_int8(*lone(), tmp_path / "m.onnx", pictures(1), once, TOLD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_metric_without_labels_is_no_loss(tmp_path):
    nothing = lambda forward: {"room": {"top1": float("nan")}}  # noqa: E731
    assert export_int8(*lone(), tmp_path / "m.onnx", pictures(1), nothing, TOLD).is_file()


def test_calibration_needs_pictures(tmp_path):
    with pytest.raises(SpecError, match="--pictures must be at least 1"):
        export_int8(*lone(), tmp_path / "m.onnx", [], measure, TOLD)
    with pytest.raises(SpecError, match=r"ends in \.onnx"):
        export_int8(*lone(), tmp_path / "m.pt2", pictures(), measure, TOLD)
