"""What a path may hold: a run, an artifact, an exported file; and what is said about anything else."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from perceptkit.cli import main
from perceptkit.compact import build
from perceptkit.errors import ExportError, SpecError
from perceptkit.runtime.load import load
from tests.compact import conftest as shared

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


@pytest.fixture
def exported(tmp_path_factory):
    """Of the same model as `artifact`."""
    return shared.exported(tmp_path_factory)


def test_a_run_and_its_artifact_are_the_same(artifact):
    of_run, of_artifact = (load(path, "cpu").predict(PICTURE) for path in (artifact.parent, str(artifact)))
    assert np.array_equal(of_run["depth"].metres, of_artifact["depth"].metres)
    assert of_run["room"].probabilities == of_artifact["room"].probabilities


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_file_gives_the_same_results(artifact, format, tmp_path_factory):
    exported = shared.exported(tmp_path_factory, format)
    expected, got = load(artifact, "cpu").predict(PICTURE), load(exported, "cpu").predict(PICTURE)
    assert list(got) == list(expected)
    for task, key in (("depth", "metres"), ("edges", "probability"), ("normals", "vectors")):
        np.testing.assert_allclose(got[task].values[key], expected[task].values[key], atol=1e-4)
    assert (got["seg"].mask == expected["seg"].mask).mean() > 0.999  # but for ties
    assert got["seg"].mask.shape == (48, 80) and got["seg"].classes == expected["seg"].classes
    for name, point in expected["points"].points.items():
        assert got["points"].points[name] == pytest.approx(point, abs=0.01)
    assert len(got["kinds"].points) == len(expected["kinds"].points)
    assert got["room"].probabilities == pytest.approx(expected["room"].probabilities, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_file_takes_batches_and_saves(format, tmp_path, tmp_path_factory):
    model = load(shared.exported(tmp_path_factory, format), "cpu")
    results = model.predict_many([PICTURE, PICTURE[:, :40], PICTURE[:20]], batch=3)
    assert [r["depth"].metres.shape for r in results] == [(48, 80), (48, 40), (20, 80)]
    assert (tmp_path / "picture_1.png") in results[1].save(tmp_path)


def test_an_exported_model_names_its_source(exported):
    with pytest.raises(ExportError, match="load its artifact"):
        load(exported).export("again.onnx")


def test_a_model_loads_under_inference_mode(artifact):
    with torch.inference_mode():
        result = load(artifact, "cpu").predict(PICTURE)
    outside = load(artifact, "cpu").predict(PICTURE)
    np.testing.assert_allclose(result["depth"].metres, outside["depth"].metres, atol=1e-6)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SpecError, match="is not finished: continue it with `perceptkit train --resume --out"):
        load(tmp_path)


def test_anything_else(tmp_path):
    with pytest.raises(SpecError, match="is no run, no artifact and no exported model"):
        load(tmp_path)
    with pytest.raises(SpecError, match=r"none\.onnx: no such file"):
        load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ExportError, match=r"text\.onnx: onnxruntime cannot read it"):
        load(tmp_path / "text.onnx")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ExportError, match=r"text\.pt2 is damaged"):
        load(tmp_path / "text.pt2")
    with pytest.raises(SpecError, match=r"none\.pt2: no such file"):
        load(tmp_path / "none.pt2")
    (tmp_path / "model.pth").write_text("hello")
    with pytest.raises(SpecError, match=r"model\.pth is no exported model: those end in \.onnx or \.pt2"):
        load(tmp_path / "model.pth")


def test_a_folder_of_exported_models_names_them(tmp_path):
    for name in ("model_seg.onnx", "model_room.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(
        SpecError, match=r"holds 2 exported models; name one: model_room.onnx, model_seg.onnx"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "meta"}, "'meta' has shapes and no numbers"),
        ({"device": "gpu"}, "'gpu' is not a device; cpu, cuda"),
        ({"precision": "fp8"}, "'fp8' is not a precision"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"device": "cpu", "cuda_graphs": True}, "cuda_graphs need a CUDA device, not cpu"),
    ],
    ids=str,
)
def test_options_that_cannot_be(artifact, options, message):
    with pytest.raises(SpecError, match=message):
        load(artifact, **options)


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_options_that_an_exported_file_has_not(format, tmp_path_factory):
    path = shared.exported(tmp_path_factory, format)
    with pytest.raises(SpecError, match="the precision of .* was fixed when it was exported"):
        load(path, precision="bf16")
    with pytest.raises(SpecError, match="cuda_graphs"):
        load(path, "cpu", cuda_graphs=True)


def test_onnx_runs_on_cpu_or_cuda(exported):
    with pytest.raises(SpecError, match="ONNX models run on cpu or cuda, not on 'mps'"):
        load(exported, "mps")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(SpecError, match="this onnxruntime has no CUDA: pip install onnxruntime-gpu"):
            load(exported, "cuda:0")


@pytest.mark.parametrize("format", ["artifact", "onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_threads(artifact, format, tmp_path_factory):
    before = torch.get_num_threads()
    path = artifact if format == "artifact" else shared.exported(tmp_path_factory, format)
    try:
        assert load(path, "cpu", threads=1).predict(PICTURE)["seg"].mask.shape == (48, 80)
        assert torch.get_num_threads() == (before if format == "onnx" else 1)
    finally:
        torch.set_num_threads(before)


def test_mixed_precision_of_an_artifact(artifact):
    exact, mixed = (load(artifact, "cpu", precision=p).predict(PICTURE) for p in ("32", "bf16"))
    assert (exact["seg"].mask == mixed["seg"].mask).mean() > 0.9
    np.testing.assert_allclose(mixed["depth"].metres, exact["depth"].metres, rtol=0.1, atol=0.05)


def test_a_damaged_artifact(artifact, tmp_path):
    for path in artifact.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match=r"manifest\.json is damaged"):
        load(tmp_path)


def tiny_onnx(path, **properties):
    shape = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("image", "out")]
    node = onnx.helper.make_node("Identity", ["image"], ["out"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", shape[:1], shape[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


def test_an_onnx_file_of_someone_else(tmp_path):
    with pytest.raises(SpecError, match="was not exported by perceptkit: its metadata has no manifest"):
        load(tiny_onnx(tmp_path / "other.onnx"))


@pytest.mark.parametrize("manifest", ["{", "[]", json.dumps({"format": 1})])
def test_an_onnx_file_with_a_damaged_manifest(tmp_path, manifest):
    with pytest.raises(ExportError, match="the manifest in .*broken.onnx is damaged"):
        load(tiny_onnx(tmp_path / "broken.onnx", perceptkit=manifest))


def test_loading_trains_and_downloads_nothing(artifact, monkeypatch):
    """The manifest may say `pretrained`: its own weights are what counts."""
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    network, _ = build.read(artifact)
    assert not network.training


def test_exported_for_size(artifact, exported, tmp_path, capsys):
    """`perceptkit export --optimize`: another arrangement of the same model, and its manifest says so."""
    out = tmp_path / "small"
    command = ["export", str(artifact), "--format", "artifact", "--optimize", "size", "--out", str(out)]
    assert main(command) == 0 and capsys.readouterr().out.startswith(str(out))
    told = {folder: json.loads((folder / "manifest.json").read_text()) for folder in (artifact, out)}
    assert [manifest["optimize"] for manifest in told.values()] == ["latency", "size"]
    expected, got = load(artifact, "cpu").predict(PICTURE), load(out, "cpu").predict(PICTURE)
    assert abs(got["depth"].metres - expected["depth"].metres).max() < 1e-4
    with pytest.raises(ExportError, match="cannot be exported again; load its artifact"):
        load(exported).optimized("size")
    with pytest.raises(SpecError, match="'speed' is nothing to optimise for; choose one of latency, size"):
        load(artifact, "cpu").optimized("speed")


def test_some_tasks_run_their_own_path_only(artifact):
    whole, some = load(artifact, "cpu"), load(artifact, "cpu", tasks=["room", "depth"])
    expected, got = whole.predict(PICTURE), some.predict(PICTURE)
    assert list(got) == [task for task in expected if task in ("room", "depth")]
    assert np.array_equal(got["depth"].metres, expected["depth"].metres)
    assert len(some.network.nodes) <= len(whole.network.nodes)
    assert sum(p.numel() for p in some.network.parameters()) < sum(
        p.numel() for p in whole.network.parameters()
    )
    names = [name for name, _ in some.network.named_modules()]
    assert not any("task_seg" in name or "task_normals" in name for name in names)


def test_tasks_that_it_has_not_are_refused(artifact, exported):
    for tasks, word in ((["depht"], "depht"), ([], "nothing")):
        with pytest.raises(SpecError, match=f"{word} is no task of this model; it has"):
            load(artifact, tasks=tasks)
    with pytest.raises(SpecError, match="answers all of its tasks"):
        load(exported, tasks=["depth"])
