"""One ONNX file for all tasks: the same numbers on onnxruntime, at any batch and size, readable without perceptkit."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from perceptkit.compact import export_onnx
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.export import export_network
from perceptkit.compact.program import export_program, size_multiple
from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.spec.recipe import BackboneSpec
from tests.compact import conftest as shared
from tests.compact.conftest import SIZE, lone, manifest_of, network, plan_of
from tests.data.conftest import make_tasks


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


def noise(batch, height, width):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize(
    "shape", [(1, *SIZE), (2, *SIZE), (5, *SIZE), (1, 32, 32), (2, 96, 160), (1, 224, 64)]
)
def test_same_numbers_for_every_task_type_at_any_batch_and_size(compacted, exported, shape):
    """Measured: 1e-6 at most; 6e-6 for tf_efficientnet_lite0."""
    network, manifest = compacted
    image = noise(*shape)
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


def test_metadata_in_plain_words(exported):
    told = {entry.key: entry.value for entry in onnx.load(str(exported)).metadata_props}
    assert json.loads(told["classes.room"]) == ["hall", "bath", "attic"]
    assert json.loads(told["mean"]) == [0.5, 0.4, 0.3] and json.loads(told["std"]) == [0.2, 0.25, 0.3]
    assert told["unit.depth"] == "m" and told["sizes"] == "multiples of 32" and told["size"] == "[64, 64]"
    assert "RGB" in told["input"] and "(x / 255 - mean) / std" in told["input"]
    assert told["tasks"].startswith("seg: segmentation, edges: edges")


def test_onnxruntime_alone_tells_what_the_outputs_are(exported):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    for output in session.get_outputs():
        shape, colon, meaning = told[f"output.{output.name}"].partition("): ")
        axes = shape.removeprefix("(").split(", ")
        assert colon and meaning and len(axes) == len(output.shape) and axes[1] == str(output.shape[1])
    assert told["output.depth"].startswith("(batch, 1, height, width): depth in m;")
    assert told["output.room"].startswith("(batch, 3): one logit per class; softmax")
    assert told["output.points"].startswith("(batch, 6, height / 4, width / 4): 3 maps of heat logits")
    assert "not of length 1, in camera axes" in told["output.normals"] and "sigmoid" in told["output.edges"]
    assert [key for key in told if key.startswith("unit.")] == [
        "unit.depth"
    ]  # the others are of decoded values


@pytest.mark.slow
def test_following_the_words_on_log_depth_gives_metres(tmp_path):
    tasks = make_tasks(far={"type": "depth", "log": True}, facing={"type": "normals", "frame": "opengl"})
    net = build_supernet(BackboneSpec(name="test_resnet", weights="none"), shared.HEADS, tasks, SIZE).eval()
    plan = shared.plan_of(net, "none")
    manifest = shared.manifest_of(net, plan)
    path = export_network(compact_and_fold(net, plan, SIZE), manifest, tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["output.far"].endswith("natural logarithm of the depth in m; exp gives the depth")
    assert "unit.far" not in told and "y and z with the other sign" in told["output.facing"]

    far, facing = session.run(["far", "facing"], {"image": noise(1, *SIZE).numpy()})
    decode = {name: task.decode for name, task in tasks.items()}
    metres = decode["far"](torch.from_numpy(far), SIZE, SIZE).metres
    assert np.exp(far[0, 0]) == pytest.approx(metres, rel=1e-5)
    vectors = decode["facing"](torch.from_numpy(facing), SIZE, SIZE).vectors
    by_hand = facing[0] / np.linalg.norm(facing[0], axis=0) * np.array([1, -1, -1])[:, None, None]
    assert by_hand.transpose(1, 2, 0) == pytest.approx(vectors, abs=1e-5)


def test_axes_have_names(exported):
    graph = onnx.load(str(exported)).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["image"] == ["batch", 3, "height", "width"] and shapes["seg"] == [
        "batch",
        9,
        "height",
        "width",
    ]
    assert shapes["points"] == ["batch", 6, "points_height", "points_width"] and shapes["room"] == [
        "batch",
        3,
    ]


def test_the_file_is_valid_and_complete(exported):
    onnx.checker.check_model(str(exported))
    assert sorted(path.name for path in exported.parent.iterdir()) == ["model.onnx", "parity.json"]
    report = json.loads((exported.parent / "parity.json").read_text())["model.onnx"]
    assert report["format"] == "onnx" and report["bound"] == 1e-4
    assert report["heads"].keys() == {"seg", "edges", "depth", "normals", "points", "kinds", "room"}
    assert all(row["max_abs"] <= 1e-4 for row in report["heads"].values())
    assert report["sizes"] == {"multiple_of": 32, "default": [64, 64]}
    assert set(report["compared_on"]["batches"]) == {1, 2, 3}
    assert [96, 64] in report["compared_on"]["images"] and [32, 64] in report["compared_on"]["images"]


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


@pytest.mark.parametrize(
    ("name", "size", "multiple"),
    [
        ("test_resnet", (96, 128), 32),
        ("test_resnet", (240, 320), 16),
        ("test_resnet", (100, 64), 4),
        ("test_vit", (64, 64), 32),
    ],
)
def test_sizes_come_in_steps_that_hold_the_model_s_own(name, size, multiple):
    assert size_multiple(network(name), size) == multiple


def test_patches_of_14_decide():
    class Embed(torch.nn.Module):
        patch_size = (14, 14)

    assert size_multiple(torch.nn.Sequential(Embed()), (224, 280)) == 14


def test_patches_that_overlap_do_not():
    class Embed(torch.nn.Module):
        patch_size = (7, 7)

        def __init__(self):
            super().__init__()
            self.proj = torch.nn.Conv2d(3, 8, 7, stride=4, padding=3)

    assert size_multiple(torch.nn.Sequential(Embed()), (64, 96)) == 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pvt_v2_b0", "vit_tiny_patch16_224"])
def test_transformers_whose_positions_follow_the_size_take_any(tmp_path, name):
    net = network(name, chosen=("seg", "room"))
    plan = plan_of(net, "all")
    compact = compact_and_fold(net, plan, SIZE)
    export_network(compact, manifest_of(net, plan, name), tmp_path / "model.onnx", "onnx")
    report = json.loads((tmp_path / "parity.json").read_text())["model.onnx"]
    assert report["sizes"] == {"multiple_of": 32, "default": [64, 64]}


@pytest.mark.slow
def test_a_network_of_one_size_is_not_traced_for_hours(tmp_path):
    net = network("hiera_tiny_224", chosen=("room",))
    plan = plan_of(net, "all")
    compact, manifest = compact_and_fold(net, plan, SIZE), manifest_of(net, plan, "hiera_tiny_224")
    export_network(compact, manifest, tmp_path / "model.onnx", "onnx")
    sizes = json.loads((tmp_path / "parity.json").read_text())["model.onnx"]["sizes"]
    assert sizes["fixed"] == [64, 64] and "made for this size" in sizes["reason"]


def test_a_reason_is_in_words():
    why, torchs = (
        export_onnx._why_fixed,
        "Constraints violated (32*height_steps)! ... TORCH_LOGS\n  - specialized",
    )
    assert why(ValueError(torchs), "swin_tiny").startswith("swin_tiny computes with numbers that were made")
    assert why(RuntimeError("The size of tensor a (6) must match"), "hiera").startswith("hiera computes with")
    assert why(RuntimeError("windows of 7\nand more"), "x") == "windows of 7"


@pytest.mark.slow
def test_a_backbone_of_one_size_is_exported_so_and_says_why(tmp_path, monkeypatch):
    def fixed(*args, multiple=None):
        if multiple is not None:
            raise RuntimeError("windows of 7\nand more")
        return export_program(*args)

    monkeypatch.setattr(export_onnx, "export_program", fixed)
    path = export_network(*lone(), tmp_path / "model.onnx", "onnx")
    report = json.loads((tmp_path / "parity.json").read_text())["model.onnx"]
    assert report["sizes"] == {"fixed": [64, 64], "reason": "windows of 7"}
    assert onnx.load(str(path)).metadata_props[5].value == "[64, 64]"
    assert run(path, noise(3, *SIZE))["room"].shape == (3, 3)
    with pytest.raises(Exception, match="(?i)dimension"):
        run(path, noise(1, 32, 32))


@pytest.mark.slow
def test_fp16_takes_and_gives_float32(tmp_path):
    small, manifest = lone()
    path = export_network(small, manifest, tmp_path / "half.onnx", "onnx", precision="fp16")
    report = json.loads((tmp_path / "parity.json").read_text())["half.onnx"]
    assert report["precision"] == "fp16" and report["bound"] == pytest.approx(0.00977, rel=1e-2)
    assert any(
        tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in onnx.load(str(path)).graph.initializer
    )
    assert run(path, noise(2, *SIZE))["room"].dtype == torch.float32


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=rf"needs {package}: pip install 'perceptkit\[export\]'"):
        export_network(*lone(), tmp_path / "model.onnx", "onnx")
