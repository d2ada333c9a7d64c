"""One network from three sources, two rendered and one of files: mixed batches, losses by source, all verbs."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.errors import ResumeError, SpecError
from perceptkit.spec.load import load_both, load_tasks
from perceptkit.spec.scene_labels import SCENE_CLASSES
from perceptkit.tasks.table import build_tasks
from perceptkit.train import checkpoint, session
from perceptkit.train.losses import losses_by_source, task_losses
from perceptkit.train.meter import Meter
from perceptkit.train.progress import Progress

TASKS = f"""\
version: 1
name: three
sources:
  lab: {{source: scenes, size: [32, 32], tasks: [seg, edges], count: {{train: 12, val: 4, test: 4}}}}
  dusk:
    {{source: scenes, style: dusk, size: [32, 32], tasks: [depth, normals], count: {{train: 8, val: 4, test: 4}}}}
  home:
    source: folder
    root: home
    image: images/{{split}}/{{id}}.png
    size: [32, 32]
    tasks: {{room: {{target: rooms.csv}}, seg: {{target: seg/{{split}}/{{id}}.png, ignore_index: 99}}}}
tasks:
  seg: {{type: segmentation, classes: [{", ".join(SCENE_CLASSES)}]}}
  edges: {{type: edges}}
  depth: {{type: depth}}
  normals: {{type: normals}}
  room: {{type: classification}}
"""
RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: hard}
stages: [{name: retrain, epochs: 2}]
optim: {name: adamw, lr: 3e-3, clip_norm: 5.0}
augment: {hflip: 0.5}
loader: {batch: 8, workers: 0}
balance: {method: uncertainty}
seed: 3
"""
SOURCES = {"lab": ["seg", "edges"], "dusk": ["depth", "normals"], "home": ["seg", "room"]}
TIMES = {"images_per_s", "data_wait", "peak_mib"}


@pytest.fixture
def files(tmp_path):
    draw, rows = np.random.default_rng(0), ["id,room"]
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for folder in ("images", "seg"):
            (tmp_path / f"home/{folder}/{split}").mkdir(parents=True)
        for i in range(count):
            picture = draw.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / f"home/images/{split}/{split}{i}.png")
            ids = draw.integers(0, 8, (40, 40)).astype(np.uint8)
            ids[:5] = 99
            Image.fromarray(ids).save(tmp_path / f"home/seg/{split}/{split}{i}.png")
            rows.append(f"{split}{i},{('hall', 'bath')[i % 2]}")
    (tmp_path / "home/rooms.csv").write_text("\n".join(rows))
    (tmp_path / "three.yaml").write_text(TASKS)
    (tmp_path / "three_recipe.yaml").write_text(RECIPE)
    return tmp_path / "three.yaml", tmp_path / "three_recipe.yaml"


def prepared(files, run, *overrides):
    tasks, recipe = load_both(*files, overrides)
    return session.prepare(session.Specs(tasks.spec, recipe.spec, tasks.text, recipe.text), run, False, True)


def batch_of(training):
    return next(iter(training.loader(training.train, range(len(training.train)), train=True)))


def log_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_check_and_describe(files, capsys):
    assert main(["check", str(files[0]), "--recipe", str(files[1])]) == 0
    printed = capsys.readouterr().out
    assert "three: 3 sources; pictures" in printed
    assert "  lab: scenes, rendered with all labels; train 12, val 4, test 4; labels of seg, edges" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("  train  ")]
    assert row == ["train", "32", "24", "12", "8", "8", "12"]
    assert main(["describe", str(files[0]), "--recipe", str(files[1])]) == 0
    printed = capsys.readouterr().out
    assert "sources:\n    lab: {source: scenes, " in printed


def test_check_names_the_source(files, capsys):
    (files[0].parent / "home/seg/val/val1.png").unlink()
    Image.fromarray(np.full((40, 40), 60, np.uint8)).save(files[0].parent / "home/seg/val/val2.png")
    assert main(["check", str(files[0])]) == 3
    assert (
        "home: seg/val/val2.png holds class id 60; 8 classes are declared; 99 is ignored"
        in capsys.readouterr().out
    )


def test_a_split_that_is_not_there(files):
    for path in (files[0].parent / "home/images/val").iterdir():
        path.unlink()
    with pytest.raises(SpecError, match=r"sources.home.image +no pictures for val: nothing matches"):
        load_tasks(files[0])


def test_classes_that_differ(files):
    text = files[0].read_text().replace("tasks: [seg, edges]", "tasks: [seg, edges, room]")
    files[0].write_text(text)
    with pytest.raises(
        SpecError, match=r"tasks.room: the source 'lab' has .*, the source 'home' has bath, hall; give"
    ):
        build_tasks(load_tasks(files[0]).spec)


def test_batches_and_losses_by_source(files, tmp_path):
    training = prepared(
        files, tmp_path / "run", "sources.lab.weight=2", "sources.dusk.weight=1", "sources.home.weight=1"
    )
    assert training.tasks_of == SOURCES
    batch = batch_of(training)
    assert sorted(i.split("/")[0] for i in batch.ids) == ["dusk"] * 2 + ["home"] * 2 + ["lab"] * 4
    outputs = training.supernet(batch.image_BCHW, training.plan)
    found = losses_by_source(outputs, batch, training.tasks, training.tasks_of)
    assert set(found) == {
        f"source_loss/{source}/{task}" for source, tasks in SOURCES.items() for task in tasks
    }
    losses = task_losses(outputs, batch, training.tasks)
    for key, loss in found.items():
        _, source, name = key.split("/")
        if name != "seg":  # of one source alone
            torch.testing.assert_close(loss, losses[name].detach())
    # seg is a mean over labelled pixels: of four pictures of 32x32, and of two with five of their forty rows unlabelled
    target = batch.targets["seg"]
    of = {s: int((target[[i.startswith(s) for i in batch.ids]] >= 0).sum()) for s in ("lab", "home")}
    assert of["lab"] == 4 * 32 * 32 and 0 < of["home"] < 2 * 32 * 32
    mean = sum(of[s] * found[f"source_loss/{s}/seg"] for s in of) / sum(of.values())
    torch.testing.assert_close(mean, losses["seg"].detach())
    only = [i.startswith("dusk") for i in batch.ids]
    batch.ids, batch.image_BCHW = [i for i in batch.ids if i.startswith("dusk")], batch.image_BCHW[only]
    batch.targets = {name: target[only] for name, target in batch.targets.items()}
    outputs = {name: output[only] for name, output in outputs.items()}
    found = losses_by_source(outputs, batch, training.tasks, training.tasks_of)
    assert set(found) == {"source_loss/dusk/depth", "source_loss/dusk/normals"}


def test_labelled_leaves_the_rest_unlabelled_in_training_alone(files, tmp_path):
    training = prepared(files, tmp_path / "run", "labelled=25%", "sources.home.labelled={room: 50%}")

    def counts(source):
        samples = [source.load(i) for i in range(len(source))]
        return {
            name: sum(bool(task.is_labelled(torch.as_tensor(s.targets[name])[None])) for s in samples)
            for name, task in training.tasks.items()
        }

    assert counts(training.train) == {"seg": 3 + 12, "edges": 3, "depth": 2, "normals": 2, "room": 6}
    assert counts(training.val) == {"seg": 8, "edges": 4, "depth": 4, "normals": 4, "room": 4}
    assert counts(training.open_test()) == counts(training.val)


def test_means_of_losses_are_over_the_steps_that_had_them():
    meter = Meter(3)
    meter.step({"loss": 1.0, "loss/seg": 2.0}, 4)
    meter.step({"loss": 3.0}, 4)
    meter.step({}, 4)
    found = meter.flush()
    assert (found["loss"], found["loss/seg"]) == (2, 2)


@pytest.mark.parametrize("key", ["m_per_class=2", "sampler={name: MPerClassSampler, m: 2}"])
def test_m_per_class_and_weights_do_not_go_together(files, key):
    weights = [f"sources.{name}.weight=1" for name in SOURCES]
    with pytest.raises(
        SpecError, match=f"loader.{key.split('=')[0]}: weights of sources say what is in a batch too"
    ):
        load_both(*files, [f"loader.{key}", *weights])


@pytest.mark.slow
def test_from_training_to_the_report(files, tmp_path, monkeypatch, capsys):
    out, cut = tmp_path / "run", tmp_path / "cut"
    run = pk.train(*files, out, quiet=True)
    step = Progress.step

    def killed(self, *arguments):
        step(self, *arguments)
        if self.done == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            pk.train(*files, cut, quiet=True)
    pk.train(*files, cut, resume=True, quiet=True)
    ours, theirs = (checkpoint.load(path / "checkpoints/last.pt")[0]["supernet"] for path in (out, cut))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert log_of(out) == log_of(cut)

    logged = {key for row in log_of(out) for key in row if key.startswith("source_loss/")}
    assert logged == {f"source_loss/{source}/{task}" for source, tasks in SOURCES.items() for task in tasks}
    metrics = run.results["tasks"]
    assert all(metrics[name]["metrics"][metrics[name]["primary"]] is not None for name in metrics)
    found = pk.evaluate(out, files[0], "test")
    assert found["room"]["top1"] == pytest.approx(metrics["room"]["metrics"]["top1"])
    assert pk.load(out).predict(tmp_path / "home/images/test/test0.png")["room"]

    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Losses by source" in page and "home" in page
    resolved = yaml.safe_load((out / "resolved.yaml").read_text())["tasks_file"]
    assert list(resolved["sources"]) == list(SOURCES) and resolved["data"] is None
    with pytest.raises(ResumeError, match=r"sources.lab.style: 'studio' -> 'dusk'"):
        pk.train(*files, cut, overrides=["sources.lab.style=dusk"], resume=True, quiet=True)


@pytest.mark.slow
def test_a_run_with_a_tenth_of_the_labels_has_batches_without_any(files, tmp_path):
    run = pk.train(
        *files, tmp_path / "run", overrides=["labelled=1%", "loader.batch=2", "stages.0.epochs=1"], quiet=True
    )
    assert all(
        0 <= value["metrics"]["top1"] <= 1 for name, value in run.results["tasks"].items() if name == "room"
    )
    rows = [row for row in log_of(tmp_path / "run") if row["kind"] == "train"]
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


@pytest.mark.slow
def test_a_run_is_adapted_to_several_sources(files, tmp_path):
    base = pk.train("scenes", files[1], tmp_path / "base", quiet=True, overrides=[
        "data.size=[32,32]", "data.count={train: 16, val: 4, test: 4}", "stages.0.epochs=1",
    ])  # fmt: skip
    adapted = pk.adapt(base.path, files[0], method="bn", out=tmp_path / "adapted", quiet=True, overrides=[
        "stages.adapt.epochs=1", "loader.batch=8",
    ])  # fmt: skip
    assert set(adapted.results["tasks"]) == set(SOURCES["lab"] + SOURCES["dusk"] + SOURCES["home"])
    rows = [row for row in log_of(tmp_path / "adapted") if row["kind"] == "train"]
    assert any(key.startswith("source_loss/") for row in rows for key in row)
