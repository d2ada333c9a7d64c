"""The whole job as a user does it: YAML in, a verified compact model out, predictions, ONNX, the page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import perceptkit as pk
from perceptkit.api import Run
from perceptkit.compact.verify import BOUND
from perceptkit.data.scenes.render import render_scene

ROOT = Path(__file__).parents[2]
TASKS = {"seg", "depth", "normals", "keypoints", "edges", "room"}
QUICK = [
    "data.size=[48,48]",
    "data.count.train=160",
    "data.count.val=24",
    "data.count.test=32",
    "backbone.args.channels=[16,24,32,48]",
    "stages.warmup.epochs=2",
    "stages.search.epochs=3",
    "stages.search.speed=0.25",
    "stages.retrain.epochs=3",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The quickstart on small pictures: six tasks, three train stages."""
    out = tmp_path_factory.mktemp("runs") / "scenes"
    return pk.train("scenes", "quickstart", out, overrides=QUICK, quiet=True)


def rows(run: Run, kind: str) -> list[dict]:
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.mark.slow
def test_every_task_learns(run):
    losses = rows(run, "train")
    assert {row["stage"] for row in losses} == {"warmup", "search", "retrain"}
    for task in TASKS:
        warmup = [row[f"loss/{task}"] for row in losses if row["stage"] == "warmup"]
        assert losses[-1][f"loss/{task}"] < warmup[0], task
    ours, constant = run.results["tasks"], run.results["constant"]
    for task, metric in {"seg": "miou", "edges": "ods_f"}.items():
        assert ours[task]["metrics"][metric] > constant[task][metric]
    assert ours["depth"]["metrics"]["abs_rel"] < constant["depth"]["abs_rel"]


@pytest.mark.slow
def test_the_policy_decides_something_and_the_cost_says_what_it_saves(run):
    plan = json.loads((run.path / "policy.json").read_text())
    assert set(plan["choices"]) == TASKS and len(plan["blocks"]) == 8
    cost = run.cost["rows"]
    assert cost["compact"]["params"] <= cost["hard_shared"]["params"] < cost["single_task_nets"]["params"]
    opened = [row["open_blocks"] for row in rows(run, "policy")]
    assert opened == sorted(opened) and opened[-1] == 8


@pytest.mark.slow
def test_the_artifact_computes_what_was_trained(run):
    parity = json.loads((run.path / "artifact/parity.json").read_text())
    assert set(parity["heads"]) == TASKS
    assert all(row["max_abs"] <= BOUND * row["scale"] for row in parity["heads"].values())
    evaluated = pk.evaluate(run.path)
    for task, result in run.results["tasks"].items():
        for metric, value in result["metrics"].items():
            assert evaluated[task][metric] == pytest.approx(value, rel=1e-3, abs=1e-3), (task, metric)


@pytest.mark.slow
def test_onnx_predicts_the_same(run, tmp_path):
    onnx = pk.export(run.path, tmp_path / "model.onnx")
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert set(parity["model.onnx"]["heads"]) == TASKS
    picture = tmp_path / "room.png"
    Image.fromarray(render_scene(99, 0, (90, 120)).image).save(picture)
    ours, theirs = (pk.load(path).predict(picture) for path in (run.path, onnx))
    assert np.abs(ours["depth"].metres - theirs["depth"].metres).max() < 1e-3
    assert (ours["seg"].mask == theirs["seg"].mask).mean() > 0.999


@pytest.mark.slow
def test_predictions_come_in_the_picture_s_size_and_the_user_s_units(run, tmp_path):
    picture = tmp_path / "room.png"
    Image.fromarray(render_scene(99, 1, (90, 120)).image).save(picture)
    result = pk.load(run.path).predict(picture)
    assert result["seg"].mask.shape == (90, 120)
    assert result["depth"].metres.shape == (90, 120) and 0.1 < np.median(result["depth"].metres) < 20
    assert np.linalg.norm(result["normals"].vectors, axis=-1) == pytest.approx(np.ones((90, 120)), abs=1e-4)
    assert result["edges"].probability.shape == (90, 120)
    assert set(result["keypoints"].points) == {
        "left_floor",
        "right_floor",
        "left_ceiling",
        "right_ceiling",
        "ball",
    }
    assert result["room"].label in ("office", "corridor", "hall", "cellar")
    drawn = result.save(tmp_path / "drawn")
    assert all(Path(path).is_file() for path in drawn)


@pytest.mark.slow
def test_the_page_holds_everything(run):
    page = pk.report(run.path).read_text(encoding="utf-8")
    for task in TASKS:
        assert task in page
    assert "data:image/png;base64," in page and 'src="http' not in page


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hard", "single"])
def test_baselines_train_with_the_same_verbs(method, tmp_path):
    run = pk.train(
        "scenes", method, tmp_path / method, quiet=True,
        overrides=[*[q for q in QUICK if not q.startswith("stages")], "stages.retrain.epochs=1"],
    )  # fmt: skip
    assert run.results["method"] == method
    table = pk.summary([run.path])
    assert method in table and "parameters" in table


@pytest.mark.slow
def test_the_wheel_alone_trains_by_name_in_an_empty_folder(tmp_path):
    """Unpacked instead of installed: this process's libraries, the wheel's own perceptkit."""
    built = tmp_path / "wheel"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = built.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    arguments = ["train", "scenes", "--recipe", "quickstart", "--dry-run"]
    code = (
        f"import sys, perceptkit; assert perceptkit.__file__.startswith({str(site)!r}), perceptkit.__file__; "
    )
    code += "from perceptkit.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=empty, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout and list(empty.iterdir()) == []


@pytest.mark.slow
def test_weights_from_a_local_file(tmp_path):
    """`backbone.weights: FILE` loads timm's own keys; a pretrained model is loaded the same way."""
    import timm
    from safetensors.torch import save_file

    donor = timm.create_model("test_resnet", num_classes=10)
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    net = pk.build(
        "scenes", "quickstart",
        ["backbone.name=test_resnet", "backbone.args={}", f"backbone.weights={tmp_path / 'weights.safetensors'}"],
    )  # fmt: skip
    loaded = {name: value for name, value in net.state_dict().items() if name.endswith("conv1.weight")}
    wanted = [value for name, value in donor.state_dict().items() if name.endswith("conv1.weight")]
    assert loaded and all(any(torch.equal(value, w) for w in wanted) for value in loaded.values())
