"""ONNX in 8 bits: smaller, close, measured on real targets, and refused where it computes no number."""

import json

import onnx
import pytest
import torch

from perceptkit.compact import quantize as module
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.export import export_network
from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.quality import warnings_of
from perceptkit.compact.quantize import export_int8
from perceptkit.errors import ExportError, SpecError
from tests.compact.conftest import SIZE, lone, manifest_of, network, plan_of

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


def dense():
    """A model of two heads that are fused, and its manifest."""
    net = network(chosen=("seg", "depth"))
    plan = plan_of(net, "all")
    return compact_and_fold(net, plan, SIZE), manifest_of(net, plan)


def measured(*worse):
    """Metrics of calls in a row: of float32, then one by one of the files that are tried; `worse` in percent of seg."""
    calls = iter((0, *worse))

    def measure(forward):
        percent = next(calls)
        return {"seg": {"miou": 0.5 * (1 - percent / 100)}, "depth": {"abs_rel": 0.4}}

    return measure


def floats(path):
    """Convolutions whose weights are no 8-bit numbers."""
    graph = onnx.load(str(path)).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    return sum(
        node.op_type == "Conv" and made.get(node.input[1]) != "DequantizeLinear" for node in graph.node
    )


@pytest.mark.slow
def test_a_head_that_loses_too_much_stays_in_float(tmp_path):
    """5 % is allowed: 8 % are lost, 2 % with the head in float. Another 2 % from the start is nothing to mend."""
    fine = export_int8(*dense(), tmp_path / "fine.onnx", pictures(1), measured(2), TOLD)
    mended = export_int8(*dense(), tmp_path / "mended.onnx", pictures(1), measured(8, 2), TOLD)
    entries = json.loads((tmp_path / "parity.json").read_text())
    assert [entries[p.name]["float_heads"] for p in (fine, mended)] == [[], ["seg"]]
    assert all(entries[p.name]["ok"] and entries[p.name]["lost"] == {} for p in (fine, mended))
    assert entries["mended.onnx"]["accuracy"]["seg"]["miou"]["int8"] == pytest.approx(0.49)
    assert floats(mended) == floats(fine) + 1  # the fused first convolution
    assert entries["mended.onnx"]["bytes"] == mended.stat().st_size > fine.stat().st_size
    open_onnx(mended)[0](pictures()[0])


@pytest.mark.slow
@pytest.mark.parametrize("tries, kept, drop", [((8, 6), ["seg"], 6.0), ((8, 9), [], 8.0)])
def test_what_is_lost_all_the_same_is_recorded_and_warned_of(tmp_path, tries, kept, drop):
    """The better of the two files is written."""
    path = export_int8(*dense(), tmp_path / "m.onnx", pictures(1), measured(*tries), TOLD)
    entry = json.loads((tmp_path / "parity.json").read_text())["m.onnx"]
    assert path.is_file() and entry["ok"] is False and entry["max_drop"] == 5 and entry["float_heads"] == kept
    assert entry["lost"]["seg"]["drop"] == pytest.approx(drop) and list(entry["lost"]) == ["seg"]
    (line,) = warnings_of(entry)
    after = 0.5 * (1 - drop / 100)
    assert line.startswith(
        f"in int8 seg loses {drop:.1f} % of its miou (0.5000 -> {after:.4f}), more than the 5 %"
    )
    assert "--pictures, 8 now" in line and "--per-task" in line
    assert ("left in float already" in line) == bool(kept)


@pytest.mark.slow
def test_more_may_be_allowed(tmp_path):
    export_int8(*dense(), tmp_path / "m.onnx", pictures(1), measured(8), TOLD, max_drop=10)
    entry = json.loads((tmp_path / "parity.json").read_text())["m.onnx"]
    assert entry["ok"] and entry["max_drop"] == 10 and entry["float_heads"] == []


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
    with pytest.raises(SpecError, match="--max-drop is a percentage, 0 or more, not -1"):
        export_int8(*lone(), tmp_path / "m.onnx", pictures(), measure, TOLD, max_drop=-1)
