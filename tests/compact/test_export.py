"""One ONNX file for all tasks: the same numbers on onnxruntime, at any batch, with the manifest inside."""

import json

import onnx
import onnxruntime
import pytest
import torch

from perceptkit.compact import build, export
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.export import FORMATS, export_network
from perceptkit.errors import ExportError, SpecError
from tests.compact import conftest as shared
from tests.compact.conftest import SIZE, manifest_of, network, plan_of


@pytest.fixture
def compacted():
    return shared.compacted()


@pytest.fixture
def exported(tmp_path_factory):
    return shared.exported(tmp_path_factory)


def run(path, image):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, {"image": image.numpy()})), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_same_numbers_for_every_task_type_at_any_batch(compacted, exported, batch):
    """Measured: 1e-6 at most; 6e-6 for tf_efficientnet_lite0."""
    network, manifest = compacted
    image = torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = network(image)
    got = run(exported, image)
    assert list(got) == list(manifest.tasks)
    for task in expected:
        assert got[task].shape == expected[task].shape
        assert (got[task] - expected[task]).abs().max() <= 1e-4


def test_the_manifest_travels_in_the_file(compacted, exported):
    properties = {entry.key: entry.value for entry in onnx.load(str(exported)).metadata_props}
    told = json.loads(properties["perceptkit"])
    assert told == json.loads(json.dumps(compacted[1].to_dict()))
    assert Manifest.from_dict(told).tasks["room"].labels == ["hall", "bath", "attic"]


def test_the_file_is_valid_and_complete(exported):
    onnx.checker.check_model(str(exported))
    assert sorted(path.name for path in exported.parent.iterdir()) == ["model.onnx", "parity.json"]
    report = json.loads((exported.parent / "parity.json").read_text())
    assert report["format"] == "onnx" and report["bound"] == 1e-4
    assert report["heads"].keys() == {"seg", "edges", "depth", "normals", "points", "kinds", "room"}
    assert all(row["max_abs"] <= 1e-4 for row in report["heads"].values())


def test_no_gate_is_left_in_the_file(compacted, exported):
    """Each convolution is there at most once for every input that it has, and there is no norm."""
    operators = [node.op_type for node in onnx.load(str(exported)).graph.node]
    assert "BatchNormalization" not in operators and "If" not in operators
    ran = []
    convolutions = [m for m in compacted[0].modules() if isinstance(m, torch.nn.Conv2d)]
    hooks = [m.register_forward_hook(lambda m, args, _: ran.append((m, args[0]))) for m in convolutions]
    compacted[0](torch.zeros(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    assert len(convolutions) <= operators.count("Conv") <= len({(m, id(x)) for m, x in ran})


def test_a_file_that_differs_never_gets_its_name(tmp_path, monkeypatch):
    net = network(chosen=("room",))
    plan = plan_of(net, "none")
    small, manifest = build.compact_and_fold(net, plan, SIZE), manifest_of(net, plan)
    (tmp_path / "model.onnx").write_text("the one before")
    session = export._session

    def wrong(path, tasks):
        run = session(path, tasks)
        return lambda image: {name: value + 0.01 for name, value in run(image).items()}

    monkeypatch.setattr(export, "_session", wrong)
    with pytest.raises(ExportError, match=r"model\.onnx does not reproduce the trained network \(room: 1\.0"):
        export_network(small, manifest, tmp_path / "model.onnx", "onnx")
    assert (tmp_path / "model.onnx").read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_artifact_of_an_artifact(compacted, tmp_path):
    small, manifest = compacted
    path = export_network(small, manifest, tmp_path / "copy", "artifact")
    again, read = build.read(path)
    assert read.to_dict() == json.loads(json.dumps(manifest.to_dict()))
    state = small.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert json.loads((path / "parity.json").read_text())["format"] == "artifact"


def test_unknown_format(compacted, tmp_path):
    with pytest.raises(SpecError, match="'tflite' is not a format; choose one of artifact, onnx"):
        export_network(*compacted, tmp_path / "model", "tflite")
    assert FORMATS == ("artifact", "onnx") and list(tmp_path.iterdir()) == []
