"""What a run refuses before it starts, and what it leaves behind."""

import json
import shutil

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.errors import ResumeError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.spec.load import load_both
from perceptkit.tasks.table import build_tasks
from perceptkit.train import run_folder
from perceptkit.train.session import make_supernet, slow_bf16
from tests.train.conftest import RECIPE, TASKS

SHORT = ["data.count.train=12", "stages.warmup.epochs=1", "stages.search.epochs=1", "stages.retrain.epochs=1"]


def train(files, out, *changes, **more):
    return pk.train(*files, out, overrides=changes, quiet=True, **more)


def test_too_few_pictures_for_a_batch(small_run, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        SpecError, match="warmup: 24 pictures to train the weights on are fewer than one batch of 32"
    ):
        train(small_run, out, "loader.batch=32")
    with pytest.raises(
        SpecError, match=r"search: 2 pictures to train the policy on \(0.1 of 24 are the policy's\)"
    ):
        train(small_run, out, "stages.search.policy_fraction=0.1")
    assert not out.exists()


def test_nothing_is_written_before_everything_is_accepted(small_run, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SpecError, match="HorizontalFlip"):
        train(small_run, out, "augment.photometric=[{name: HorizontalFlip}]")
    with pytest.raises(SpecError, match="precision: 16 needs a GPU"):
        train(small_run, out, "precision=16")
    assert not out.exists()


@pytest.mark.parametrize("below", [False, True])
def test_out_is_a_file(small_run, tmp_path, below, capsys):
    file = tmp_path / "file"
    file.write_text("")
    out = file / "run" if below else file
    with pytest.raises(SpecError, match=f"{file} is a file; choose another --out"):
        train(small_run, out)


def test_search_as_the_last_stage_ships_its_plan(small_run, tmp_path):
    tasks, recipe = small_run
    text = yaml.safe_load(recipe.read_text())
    text["stages"] = [
        {"name": "search", "epochs": 2, "curriculum": "none", "policy_lr": 1.0, "policy_fraction": 0.5}
    ]
    text["sharing"] = {"method": "adashare", "sparsity": 5.0, "sharing": 0.0}
    recipe.write_text(yaml.safe_dump(text))
    run = train((tasks, recipe), tmp_path / "run")
    searched = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    probabilities = [row["keep_prob"] for row in searched if row["kind"] == "policy"][-1]
    assert all(keep < 0.5 for row in probabilities.values() for keep in row)  # sparsity at any price
    plan = Plan.from_json((run.path / "policy.json").read_text())
    assert plan.kept_fraction() == 0
    assert pk.load(run.path).manifest.plan == plan


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A finished run, to be copied only."""
    folder = tmp_path_factory.mktemp("short")
    (folder / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return train((folder / "tasks.yaml", folder / "recipe.yaml"), folder / "run", *SHORT).path


@pytest.fixture
def finished(short_run, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(short_run, tmp_path / "run")


def test_resume_refuses_what_it_would_ignore(finished):
    for more in ({"overrides": ["optim.lr=123"]}, {"recipe": "hard"}):
        with pytest.raises(SpecError, match="drop --recipe and --set"):
            pk.train(out=finished, resume=True, **more)
    with pytest.raises(ResumeError, match="nothing to resume"):
        pk.train(out=finished, resume=True)


def test_a_run_without_its_artifact_is_completed(finished):
    weights = (finished / "artifact/model.safetensors").read_bytes()
    results = json.loads((finished / "results.json").read_text())
    shutil.rmtree(finished / "artifact")
    pk.train(out=finished, resume=True, quiet=True)
    assert (finished / "artifact/model.safetensors").read_bytes() == weights
    assert json.loads((finished / "results.json").read_text())["tasks"] == results["tasks"]


def test_damaged_run_folders_are_named(finished, capsys):
    shutil.rmtree(finished / "artifact")
    resolved = (finished / "resolved.yaml").read_text()
    for damage in ("{}", "a: [", "tasks_file: 3"):
        (finished / "resolved.yaml").write_text(damage)
        assert main(["train", "--resume", "--out", str(finished)]) == 2
        assert "resolved.yaml is damaged" in capsys.readouterr().err
    (finished / "resolved.yaml").write_text(resolved)
    (finished / "recipe.yaml").unlink()
    assert main(["train", "--resume", "--out", str(finished)]) == 1
    assert "recipe.yaml" in capsys.readouterr().err


def test_json_has_no_nan(tmp_path):
    run_folder.write_json(tmp_path / "a.json", {"a": [float("nan"), 1.5], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.5], "b": {"c": None}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hard", "single", "nddr", "mtan"])
def test_a_head_starts_as_the_classifier_of_the_weights(small_run, tmp_path, method):
    whole = timm.create_model("test_resnet", num_classes=4).eval()
    path = tmp_path / "whole.safetensors"
    save_file(whole.state_dict(), path)
    changes = [f"sharing={{method: {method}}}", f"backbone.weights={path}", "heads.classifier=pretrained"]
    loaded, how = load_both(*small_run, [*changes, "stages=[{name: retrain, epochs: 1}]"])
    tasks = build_tasks(loaded.spec)
    weights = {}
    for classifier in ("pretrained", "new"):
        heads = how.spec.heads.model_copy(update={"classifier": classifier})
        network = make_supernet(how.spec.model_copy(update={"heads": heads}), tasks, (32, 32))
        weights[classifier] = network.state_dict()
    changed = {k for k, value in weights["new"].items() if not torch.equal(value, weights["pretrained"][k])}
    assert {key.rpartition("heads.")[2] for key in changed} == {
        "task_room.predict.weight",
        "task_room.predict.bias",
    }
    assert any(torch.equal(weights["pretrained"][key], whole.fc.weight) for key in changed)


@pytest.mark.parametrize("method", ["hard", "single"])
def test_mean_and_std_of_the_data_win_over_the_backbones(small_run, method):
    mean, std = [0.25, 0.5, 0.75], [0.1, 0.2, 0.3]
    changes = [f"data.mean={mean}", f"data.std={std}", f"sharing={{method: {method}}}"]
    loaded, how = load_both(*small_run, [*changes, "stages=[{name: retrain, epochs: 1}]"])
    data, tasks = loaded.spec.data, build_tasks(loaded.spec)
    net = make_supernet(how.spec, tasks, data.size, data.mean, data.std)
    nets = net.by_task().values() if method == "single" else [net]
    assert all((n.mean, n.std) == (tuple(mean), tuple(std)) for n in [net, *nets])
    assert make_supernet(how.spec, tasks, data.size).mean != tuple(mean)


@pytest.mark.parametrize(
    ("avx", "amx", "warned"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_bf16_on_a_cpu_without_it_is_told_of(monkeypatch, avx, amx, warned):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    assert ("--set precision=32" in slow_bf16("bf16", cpu)) is warned
    assert slow_bf16("32", cpu) == slow_bf16("auto", cpu) == ""
    assert slow_bf16("bf16", torch.device("cuda")) == ""
