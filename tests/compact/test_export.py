"""What all formats have in common: a file is proved before it has its name, and a wrong choice is said so."""

import json
from dataclasses import replace

import pytest
import torch

from perceptkit.compact import build, export
from perceptkit.compact.export import FORMATS, export_network, file_name
from perceptkit.errors import ExportError, SpecError
from tests.compact.conftest import compacted, lone


def test_formats():
    assert list(FORMATS) == ["artifact", "torch", "aoti", "onnx"]
    assert len({format.file for format in FORMATS.values()}) == 4


def test_names_of_files():
    assert file_name("onnx") == "model.onnx" and file_name("artifact", "seg") == "artifact_seg"
    assert file_name("onnx", "seg", "int8") == "model_seg_int8.onnx"
    assert file_name("aoti", "bf16") == "model_aoti_bf16.pt2"


@pytest.mark.parametrize("off", [0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("format", ["torch", "aoti", "onnx"])
def test_a_file_that_differs_never_gets_its_name(tmp_path, monkeypatch, format, off):
    def write(network, manifest, path, precision, device):
        path.write_text("wrong")
        return (lambda image: {"room": network(image)["room"] + off}), [torch.zeros(1, 3, 64, 64)], {}

    monkeypatch.setitem(export.FORMATS, format, replace(FORMATS[format], write=write))
    path = tmp_path / FORMATS[format].file
    path.write_text("the one before")
    with pytest.raises(ExportError, match=rf"{path.name} does not reproduce the trained network \(room: "):
        export_network(*lone(), path, format)
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def write(network, manifest, path, precision, device):
        path.write_text("half")
        raise ExportError("no")

    monkeypatch.setitem(export.FORMATS, "torch", replace(FORMATS["torch"], write=write))
    with pytest.raises(ExportError):
        export_network(*lone(), tmp_path / "new/model.pt2", "torch")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_missing_head_is_a_mismatch(tmp_path, monkeypatch):
    write = lambda *_: (lambda image: {}, [torch.zeros(1, 3, 64, 64)], {})  # noqa: E731
    monkeypatch.setitem(export.FORMATS, "torch", replace(FORMATS["torch"], write=write))
    with pytest.raises(ExportError, match="room: inf"):
        export_network(*lone(), tmp_path / "model.pt2", "torch")


def test_artifact_of_an_artifact(tmp_path):
    small, manifest = compacted()
    path = export_network(small, manifest, tmp_path / "copy", "artifact")
    again, read = build.read(path)
    assert read.to_dict() == json.loads(json.dumps(build.counted(manifest, small).to_dict()))
    state = small.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert json.loads((path / "parity.json").read_text())["format"] == "artifact"


def test_what_training_wrote_is_not_replaced(tmp_path):
    small, manifest = compacted()
    build.write_verified(tmp_path, small, manifest, {"reference": "gated supernet"})
    with pytest.raises(SpecError, match="its proof would be lost"):
        export_network(small, manifest, tmp_path, "artifact")
    assert json.loads((tmp_path / "parity.json").read_text())["reference"] == "gated supernet"


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        (
            "model",
            {"format": "tflite"},
            "'tflite' is not a format; choose one of artifact, torch, aoti, onnx",
        ),
        (
            "model.onnx",
            {"format": "onnx", "precision": "fp8"},
            "'fp8' is not a precision; choose one of 32, bf16",
        ),
        ("model.onnx", {"format": "onnx", "precision": "bf16"}, "no bf16 convolutions: --precision fp16"),
        ("folder", {"format": "artifact", "precision": "fp16"}, "it has no --precision"),
        ("model.onnx", {"format": "onnx", "device": "cuda"}, "--device is for aoti"),
        ("model.pt2", {"format": "onnx"}, r"model\.pt2: a file of format onnx ends in \.onnx"),
        ("model.onnx", {"format": "aoti"}, r"model\.onnx: a file of format aoti ends in \.pt2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_choices_that_cannot_be(tmp_path, name, choices, message):
    with pytest.raises(SpecError, match=message):
        export_network(*lone(), tmp_path / name, **choices)
    assert list(tmp_path.iterdir()) == []
