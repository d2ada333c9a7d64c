"""`export` and `eval` from the shell and from Python, on a run: files, names, what is printed, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import perceptkit as pk
from perceptkit import cli
from perceptkit.compact import build
from perceptkit.compact.artifact import Manifest
from perceptkit.errors import ExportError, SpecError
from perceptkit.model import cost
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.tasks.table import build_tasks
from perceptkit.train.run_folder import start

TASKS = """\
version: 1
name: tiny
data: {source: folder, root: data, image: "{split}/rgb/{id}.png", size: [32, 32]}
tasks:
  seg: {type: segmentation, target: "{split}/seg/{id}.png", classes: 3}
  far: {type: depth, target: "{split}/far/{id}.npy"}
"""
RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 8}
sharing: {method: hard}
stages: [{name: retrain, epochs: 1}]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as training leaves it, with an untrained network."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("rgb", "seg", "far"):
            (folder / "data" / split / kind).mkdir(parents=True)
        for i in range(3):
            at = folder / "data" / split
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(at / f"rgb/{i}.png")
            Image.fromarray(rng.integers(0, 3, (32, 32), dtype=np.uint8)).save(at / f"seg/{i}.png")
            np.save(at / f"far/{i}.npy", rng.uniform(1, 5, (32, 32)).astype(np.float32))
    (folder / "tiny.yaml").write_text(TASKS)
    (folder / "recipe.yaml").write_text(RECIPE)
    loaded, how = load_tasks(folder / "tiny.yaml"), load_recipe(folder / "recipe.yaml")
    out = folder / "run"
    start(out, loaded.spec, how.spec, loaded.text, how.text, seed=0)
    tasks = build_tasks(loaded.spec)
    torch.manual_seed(0)
    net = build_supernet(how.spec.backbone, how.spec.heads, tasks, (32, 32)).eval()
    names = [block.name for block in net.blocks]
    plan = Plan.from_keep(list(tasks), names, [[i != 1 for i, _ in enumerate(names)], [True] * len(names)])
    manifest = Manifest(
        "tiny", how.spec.backbone, how.spec.heads, tasks, plan, "hard", (32, 32), net.mean, net.std,
        cost.table(net, plan, (32, 32)), {},
    )  # fmt: skip
    build.write_artifact(out / "artifact", net, manifest)
    return out


@pytest.fixture
def shell(capsys):
    """Runs a command; gives its exit code, stdout and stderr."""

    def shell(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return shell


def figures(out):
    """{task/metric: value} of what `eval` prints."""
    return {name: float(value) for name, value in (line.split("\t") for line in out.splitlines())}


@pytest.mark.parametrize(
    ("format", "name"), [pytest.param("onnx", "model.onnx", marks=pytest.mark.slow), ("torch", "model.pt2")]
)
def test_export_then_eval(run, shell, format, name):
    code, out, _ = shell("export", run, "--format", format)
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(run / "exports" / name)
    assert lines[1].startswith("read back and compared: largest difference") and lines[2].startswith(
        "takes any batch"
    )
    expected, got = shell("eval", run)[1], shell("eval", run / "exports" / name)[1]
    assert figures(got) == pytest.approx(figures(expected), abs=2e-3)


@pytest.mark.slow
def test_int8_with_the_run_s_own_data(run, shell):
    code, out, _ = shell("export", run, "--int8", "--pictures", "5")
    assert code == 0 and out.splitlines()[0] == str(run / "exports/model_int8.onnx")
    assert (
        out.splitlines()[1] == "calibrated on 3 pictures of train, measured on val:" and "far abs_rel" in out
    )
    entry = json.loads((run / "exports/parity.json").read_text())["model_int8.onnx"]
    assert entry["accuracy"]["seg"]["miou"].keys() == {"float32", "int8"} and entry["size_ratio"] > 1
    code, out, _ = shell("eval", run / "exports/model_int8.onnx", "--split", "val")
    assert figures(out)["far/abs_rel"] == pytest.approx(entry["accuracy"]["far"]["abs_rel"]["int8"], abs=1e-3)


@pytest.mark.slow
def test_int8_that_loses_too_much_is_written_and_warned_of(run, shell, tmp_path, monkeypatch):
    """Every other measurement is spoilt: that of the int8 files. Depth is better where AbsRel is lower."""
    from perceptkit.train import evaluate_model

    calls, real = [], evaluate_model.evaluate_forward

    def spoilt(*arguments):
        calls.append(arguments)
        found = real(*arguments)
        found["far"]["abs_rel"] *= 1 if len(calls) == 1 else 2
        return found

    monkeypatch.setattr(evaluate_model, "evaluate_forward", spoilt)
    code, out, err = shell("export", run, "--int8", "--out", tmp_path / "m.onnx", "--max-drop", "50")
    entry = json.loads((tmp_path / "parity.json").read_text())["m.onnx"]
    assert code == 0 and (tmp_path / "m.onnx").is_file() and len(calls) == 3  # once more with heads in float
    assert entry["ok"] is False and list(entry["lost"]) == ["far"] and entry["max_drop"] == 50
    told = entry["lost"]["far"]
    assert told["metric"] == "abs_rel" and told["drop"] == pytest.approx(100, abs=20)
    assert (
        err.startswith("warning: in int8 far loses ")
        and "(--pictures, 3 now)" in err
        and len(err.splitlines()) == 1
    )
    assert f"({told['float32']:.4f} -> {told['int8']:.4f})" in err and "warning" not in out


@pytest.mark.slow
def test_16_bits_are_compared_by_metrics_where_there_are_data(run, shell, tmp_path, monkeypatch):
    code, out, err = shell(
        "export", run, "--format", "torch", "--precision", "bf16", "--out", tmp_path / "a.pt2"
    )
    entry = json.loads((tmp_path / "parity.json").read_text())["a.pt2"]
    assert code == 0 and entry["measured_on"] == "val" and entry["max_drop"] == 5
    assert entry["heads"].keys() == {"seg", "far"} and entry["bound"] > 0.01  # the raw differences stay
    before, after = (
        pk.evaluate(run, split="val"),
        pk.evaluate(tmp_path / "a.pt2", run.parent / "tiny.yaml", "val"),
    )
    pair = entry["accuracy"]["far"]["abs_rel"]
    assert pair == pytest.approx(
        {"float32": before["far"]["abs_rel"], "bf16": after["far"]["abs_rel"]}, rel=1e-4
    )
    assert entry["ok"] == (not entry["lost"]) == ("warning" not in err) and "measured on val:" in out

    pk.export(run, tmp_path / "copy", format="artifact")  # it belongs to no run, so there are no data
    code, out, err = shell(
        "export", tmp_path / "copy", "--format", "torch", "--precision", "bf16", "--out", tmp_path / "b.pt2"
    )
    assert (
        code == 0 and err == "" and "metrics were not compared: " in out and "belongs to no run folder" in out
    )
    assert "accuracy" not in json.loads((tmp_path / "parity.json").read_text())["b.pt2"]


@pytest.mark.slow
def test_16_bits_that_lose_too_much_are_warned_of(run, tmp_path, monkeypatch):
    """From Python: as Python warns."""
    from perceptkit.train import evaluate_model

    results = iter([0.5, 0.25])
    monkeypatch.setattr(
        evaluate_model,
        "evaluate_forward",
        lambda *_: {"seg": {"miou": next(results)}, "far": {"abs_rel": 1.0}},
    )
    with pytest.warns(
        UserWarning, match=r"a\.pt2: in fp16 seg loses 50\.0 % of its miou .* use --precision bf16"
    ):
        pk.export(run, tmp_path / "a.pt2", format="torch", precision="fp16")
    entry = json.loads((tmp_path / "parity.json").read_text())["a.pt2"]
    assert entry["ok"] is False and entry["lost"]["seg"]["fp16"] == 0.25


@pytest.mark.slow
def test_arrangements_do_not_overwrite_each_other(run, shell):
    """Each has a name of its own, beside that of the model as it is."""
    names = ["artifact", "artifact_size", "artifact_latency"]
    for name, optimize in zip(names, ((), ("--optimize", "size"), ("--optimize", "latency")), strict=True):
        code, out, _ = shell("export", run, "--format", "artifact", *optimize)
        assert code == 0 and out.splitlines()[0] == str(run / "exports" / name)
    made = [pk.load(run / "exports" / name, "cpu").manifest.optimize for name in names]
    assert made == ["latency", "size", "latency"]
    code, out, _ = shell("export", run, "--format", "artifact", "--per-task", "--optimize", "size")
    assert out.splitlines()[0] == str(run / "exports/artifact_seg_size")


@pytest.mark.slow
def test_int8_per_task_measures_the_one_task(run, shell, tmp_path):
    code, _, _ = shell("export", run, "--int8", "--per-task", "--out", tmp_path)
    entries = json.loads((tmp_path / "parity.json").read_text())
    assert code == 0 and {name: list(entry["accuracy"]) for name, entry in entries.items()} == {
        "model_seg_int8.onnx": ["seg"],
        "model_far_int8.onnx": ["far"],
    }


@pytest.mark.slow
def test_a_model_per_task(run, tmp_path):
    folder = pk.export(run, tmp_path / "out", format="torch", per_task=True)
    assert sorted(path.name for path in folder.iterdir()) == ["model_far.pt2", "model_seg.pt2", "parity.json"]
    picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    whole = pk.load(run, "cpu").predict(picture)
    alone = pk.load(folder / "model_far.pt2", "cpu").predict(picture)
    assert list(alone) == ["far"]
    data = run.parent / "tiny.yaml"
    expected = pk.evaluate(run)["far"]
    assert pk.evaluate(folder / "model_far.pt2", data) == {"far": pytest.approx(expected, abs=1e-4)}
    np.testing.assert_allclose(alone["far"].metres, whole["far"].metres, atol=1e-4)


def test_an_artifact_outside_of_a_run_needs_data_for_int8(run, shell, tmp_path):
    pk.export(run, tmp_path / "copy", format="artifact")
    code, _, err = shell("export", tmp_path / "copy", "--int8")
    assert code == 2 and "belongs to no run folder: say which data with --data TASKS" in err
    for count in ("0", "-3"):
        told = ("--data", run.parent / "tiny.yaml", "--pictures", count)
        code, _, err = shell("export", tmp_path / "copy", "--int8", *told)
        assert code == 2 and "--pictures must be at least 1" in err
    assert not (tmp_path / "copy/exports/model_int8.onnx").exists()


def test_an_artifact_keeps_the_proof_of_training(run, shell, tmp_path):
    """And a copy tells what its own reading back found."""
    before = (run / "artifact/parity.json").read_bytes()
    code, _, err = shell("export", run, "--format", "artifact", "--out", run / "artifact")
    assert code == 2 and "training wrote; its proof would be lost. Export to another folder" in err
    assert (run / "artifact/parity.json").read_bytes() == before
    code, out, _ = shell("export", run, "--format", "artifact", "--out", tmp_path / "copy")
    told = json.loads((tmp_path / "copy/parity.json").read_text())
    assert code == 0 and out.splitlines()[1].startswith("read back and compared: largest difference 0.0e+00")
    assert told["format"] == "artifact" and told["bound"] == 0 and list(told["heads"]) == ["seg", "far"]


def test_a_model_per_task_is_told_of_file_by_file(run, shell, tmp_path):
    code, out, _ = shell("export", run, "--per-task", "--format", "artifact", "--out", tmp_path)
    lines = out.splitlines()
    assert code == 0 and lines[0::2] == [str(tmp_path / f"artifact_{task}") for task in ("seg", "far")]
    assert all(line.startswith("read back and compared") for line in lines[1::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "'tflite' is not a format; choose one of artifact, torch, aoti, onnx"),
        (["--format", "torch", "--int8"], "--int8 goes with --format onnx"),
        (["--int8", "--precision", "fp16"], "--int8 goes with --format onnx, and is a precision of its own"),
        (["--precision", "8"], "'8' is not a precision; choose one of 32, bf16, fp16"),
        (["--precision", "bf16"], "onnxruntime has no bf16 convolutions"),
        (["--format", "artifact", "--precision", "fp16"], "it has no --precision"),
        (["--format", "torch", "--out", "model.onnx"], "ends in .pt2"),
        (["--device", "cuda"], "--device is for aoti"),
        (["--int8", "--data", "nothing.yaml"], "nothing.yaml"),
        (["--format", "aoti", "--device", "cuda:99"], "device cuda:99 cannot be used here"),
        (["--format", "aoti", "--device", "gpu"], "'gpu' is not a device"),
        (["--max-drop", "3"], "--max-drop is for --int8 and --precision bf16 or fp16"),
        (["--int8", "--max-drop", "-3"], "--max-drop is a percentage, 0 or more, not -3"),
        (["--int8", "--max-drop", "nan"], "--max-drop is a percentage, 0 or more, not nan"),
        (["--per-task", "--out", "model.onnx"], "--out is a folder, and model.onnx ends in .onnx"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(run, shell, arguments, message):
    before = sorted((run / "exports").iterdir()) if (run / "exports").exists() else []
    code, out, err = shell("export", run, *arguments)
    assert code == 2 and out == "" and message in err
    assert (sorted((run / "exports").iterdir()) if (run / "exports").exists() else []) == before


@pytest.mark.slow
def test_an_exported_file_is_not_exported_again(run, tmp_path):
    (tmp_path / "m.onnx").write_text("")
    with pytest.raises(SpecError, match="is an exported file already; export its run or artifact"):
        pk.export(tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="load its artifact"):
        pk.load(pk.export(run, tmp_path / "m.pt2", format="torch"), "cpu").export(tmp_path / "again.onnx")


@pytest.mark.slow
def test_aoti_predicts_the_same(run, tmp_path, shell):
    """Takes minutes: everything is compiled."""
    code, out, _ = shell("export", run, "--format", "aoti", "--out", tmp_path / "compiled.pt2")
    assert code == 0 and "takes any batch of 32 x 32" in out
    model = pk.load(tmp_path / "compiled.pt2", threads=1)
    pictures = list(np.random.default_rng(1).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))
    for got, expected in zip(model.stream(pictures, 2), pk.load(run, "cpu").stream(pictures, 2), strict=True):
        np.testing.assert_allclose(got["far"].metres, expected["far"].metres, atol=1e-4)
        assert (got["seg"].mask == expected["seg"].mask).mean() > 0.999
    expected = shell("eval", run)[1]
    got = shell("eval", tmp_path / "compiled.pt2", "--data", run.parent / "tiny.yaml")[1]
    assert figures(got) == pytest.approx(figures(expected), abs=2e-3)


@pytest.mark.parametrize("flag", [("--pictures", "5"), ("--data", "scenes")])
def test_calibration_is_of_what_is_calibrated(run, shell, flag):
    code, _, err = shell("export", run, *flag)
    assert code == 2 and f"{flag[0]} is for --int8 and --dynamic-skip" in err
