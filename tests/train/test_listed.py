"""Runs on class folders: mean and std of the data, crops, splits without labels; from the check to the artifact."""

import json

import pytest
import yaml

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.compact.artifact import parse_manifest
from perceptkit.errors import ExportError, SpecError
from tests.listed_files import write_class_folders, write_decathlon

RECIPE = """\
backbone: {name: test_resnet, weights: none}
sharing: {method: hard}
stages: [{name: retrain, epochs: 1}]
optim: {name: sgd, lr: 0.1, schedule: step, milestones: [1]}
augment: {crop: [32, 40]}
loader: {batch: 4, workers: 0}
"""


def files(folder, data):
    tasks, recipe = folder / "t.yaml", folder / "r.yaml"
    tasks.write_text(f"name: t\ndata: {{{data}, root: data}}\ntasks: {{kind: {{type: classification}}}}\n")
    recipe.write_text(RECIPE)
    return tasks, recipe


def test_class_folders_from_check_to_artifact(tmp_path, capsys):
    write_class_folders(tmp_path / "data", each=4)
    data = (
        "source: imagefolder, size: [40, 48], train_on: [train, val], mean: [0, 0.5, 1], std: [0.25, 0.5, 1]"
    )
    tasks, recipe = files(tmp_path, data)
    assert main(["check", str(tasks), "--recipe", str(recipe)]) == 0
    assert main(["describe", str(tasks), "--recipe", str(recipe)]) == 0
    assert "data: {source: imagefolder, " in (printed := capsys.readouterr().out)
    assert "  train       8     8\n" in printed
    run = pk.train(tasks, recipe, tmp_path / "run", quiet=True)
    manifest = json.loads((tmp_path / "run/artifact/manifest.json").read_text())
    assert manifest["input"] == {
        "size": [40, 48],
        "mean": [0, 0.5, 1],
        "std": [0.25, 0.5, 1],
        "fit": "stretch",
    }
    steps = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("step", 0) for row in steps) == 4  # 16 pictures of train and val
    top1 = pk.evaluate(tmp_path / "run", tasks, "test")["kind"]["top1"]
    assert top1 == run.results["tasks"]["kind"]["metrics"]["top1"]
    result = pk.load(tmp_path / "run").predict(tmp_path / "data/test/cat/0.png")
    assert set(result["kind"].values["probabilities"]) == {"bird", "cat"}
    resolved = yaml.safe_load((run.path / "resolved.yaml").read_text())["tasks_file"]["data"]
    assert resolved["train_on"] == ["train", "val"] and resolved["source"] == "imagefolder"


def test_the_decathlon_without_test_labels(tmp_path):
    write_decathlon(tmp_path / "data")
    tasks, recipe = files(tmp_path, "source: decathlon, domain: gtsrb, size: [40, 48]")
    run = pk.train(tasks, recipe, tmp_path / "run", quiet=True)
    assert run.results["tasks"]["kind"]["metrics"] == {"top1": None}
    manifest = json.loads((tmp_path / "run/artifact/manifest.json").read_text())
    assert manifest["input"]["mean"] == [0.3392, 0.3118, 0.3205] and manifest["input"]["fit"] == "crop"
    assert pk.load(run.path).manifest.fit == "crop"
    del manifest["input"]["fit"]  # as artifacts of before
    assert parse_manifest(json.dumps(manifest), "m").fit == "stretch"
    manifest["input"]["fit"] = "squeeze"
    with pytest.raises(ExportError, match="input.fit is 'squeeze'; expected one of stretch, crop"):
        parse_manifest(json.dumps(manifest), "m")


def test_a_rehearsal_takes_few_pictures_of_every_class(tmp_path):
    write_class_folders(tmp_path / "data", each=30)
    tasks, recipe = files(tmp_path, "source: imagefolder, size: [40, 48]")
    assert pk.train(tasks, recipe, dry_run=True, quiet=True)
    assert not (tmp_path / "runs").exists()


def test_a_network_of_one_size_takes_no_crop(small_run, tmp_path):
    crop = ["augment.crop=[32,64]", "data.size=[64,64]", "backbone.name=test_vit"]
    crop.append("backbone.args={img_size: 64, dynamic_img_size: false}")
    with pytest.raises(
        SpecError,
        match=r"augment.crop: test_vit takes pictures of data.size \[64, 64\] only .*augment.resize=\[64,64\]",
    ):
        pk.train(*small_run, tmp_path / "run", overrides=crop, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["augment.pad=4", "augment.resize=[48,64]", "augment.zoom=[0.5,1.5]"],
    ],
)
def test_crops_train_every_type_of_task(small_run, tmp_path, more):
    short = ["stages.warmup.epochs=1", "stages.search.epochs=1", "stages.retrain.epochs=1"]
    changes = ["data.size=[64,64]", "augment.crop=[32,48]", "data.count.train=12", *short, *more]
    run = pk.train(*small_run, tmp_path / "run", overrides=changes, quiet=True)
    assert len(run.results["tasks"]) == 6
