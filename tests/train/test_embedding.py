"""Runs with an embedding beside other tasks: from the YAML to neighbours, weights of the loss, ids that are new."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import perceptkit as pk
from perceptkit.api import Run
from perceptkit.cli import main
from perceptkit.data.sources import open_split
from perceptkit.errors import SpecError
from perceptkit.spec.load import load_both, load_tasks
from perceptkit.tasks.embedding import Embedding
from perceptkit.tasks.table import build_tasks
from perceptkit.train import loop
from perceptkit.train.training import Interrupted, Training
from tests.listed_files import save, write_class_folders

TASKS = """\
name: rooms
data: {source: scenes, size: [32, 32], count: {train: 24, val: 10, test: 12}}
tasks:
  depth: {type: depth}
  room: {type: classification}
  place: {type: embedding, dims: 8, loss: {name: ProxyAnchorLoss, lr_scale: 10}}
"""
RECIPE = """\
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: adashare}
stages:
  - {name: warmup, epochs: 1}
  - {name: search, epochs: 1, policy_fraction: 0.5}
  - {name: retrain, epochs: 2}
optim: {lr: 3e-3}
loader: {batch: 4, workers: 0}
"""
ALONE = """\
backbone: {name: test_resnet, weights: none}
sharing: {method: hard}
stages: [{name: retrain, epochs: 1}]
loader: {batch: 4, workers: 0}
"""


def write(folder: Path, tasks: str, recipe: str = ALONE) -> tuple[Path, Path]:
    files = folder / "t.yaml", folder / "r.yaml"
    for path, text in zip(files, (tasks, recipe), strict=True):
        path.write_text(text, encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("embedding")
    return pk.train(*write(folder, TASKS, RECIPE), folder / "run", quiet=True)


def checkpoint(run: Run, name: str) -> dict:
    return torch.load(run.path / "checkpoints" / name, weights_only=True)


@pytest.mark.slow
def test_metrics_and_the_constant_embedding(run):
    found, constant = run.results["tasks"]["place"]["metrics"], run.results["constant"]["place"]
    assert set(found) == set(constant) == {"recall@1", "recall@5", "map@r"}
    assert all(0 <= value <= 1 for value in found.values())
    evaluated = pk.evaluate(run.path)["place"]
    assert {key: pytest.approx(value, abs=0.1) for key, value in found.items()} == evaluated


@pytest.mark.slow
def test_the_score_on_val_has_the_recall_of_the_split(run):
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["kind"] == "val"):
        assert 0 <= row["place/recall@1"] <= 3 * row["score"] <= 2 + row["place/recall@1"]


@pytest.mark.slow
def test_weights_of_the_loss_are_trained_and_kept_but_no_part_of_the_model(run):
    for name in ("last.pt", "best.pt"):
        (proxies,) = checkpoint(run, name)["losses"]["place"].values()
        assert proxies.shape == (4, 8)
    groups = checkpoint(run, "last.pt")
    assert groups["position"]["step"] > 0 and len(groups["losses"]) == 1
    compact = load_file(run.path / "artifact/model.safetensors")
    assert not any("prox" in name or "loss" in name for name in compact)
    manifest = json.loads((run.path / "artifact/manifest.json").read_text())
    counted = sum(
        t.numel() for name, t in compact.items() if "running" not in name and "num_batches" not in name
    )
    assert manifest["written"]["params"] == counted
    described = pk.describe(run.path.parent / "t.yaml", run.path.parent / "r.yaml")["tasks"]["place"]
    assert described["loss"] == "ProxyAnchorLoss, with 32 weights of its own"
    assert described["loss_params"] == 32


@pytest.mark.slow
def test_predictions_exports_and_the_page(run, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    result = pk.load(run.path).predict(picture)
    assert result["place"].vector.shape == (8,)
    assert np.linalg.norm(result["place"].vector) == pytest.approx(1, abs=1e-5)
    result.save(tmp_path)
    assert len(json.loads((tmp_path / "picture_0.json").read_text())["place"]["vector"]) == 8
    exported = pk.load(pk.export(run.path, tmp_path / "m.onnx"))
    assert exported.predict(picture)["place"].vector == pytest.approx(result["place"].vector, abs=1e-4)
    assert "recall@1" in pk.report(run.path).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_resumed_run_has_the_same_proxies(run, tmp_path, monkeypatch):
    files, out = write(tmp_path, TASKS, RECIPE), tmp_path / "run"
    step = loop.weight_step

    def stopped(training: Training, *arguments):
        training.stop_requested = training.position.step == 13
        return step(training, *arguments)

    monkeypatch.setattr(loop, "weight_step", stopped)
    with pytest.raises(Interrupted):
        pk.train(*files, out, quiet=True)
    monkeypatch.setattr(loop, "weight_step", step)
    resumed = pk.train(*files, out, resume=True, quiet=True)
    (ours,), (theirs,) = (checkpoint(one, "last.pt")["losses"]["place"].values() for one in (resumed, run))
    assert torch.equal(ours, theirs)


def test_a_loss_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path):
    tasks = TASKS.replace("ProxyAnchorLoss, lr_scale: 10", "ProxyAnchorLoss, args: {alpa: 2}")
    with pytest.raises(SpecError, match=r"tasks.place.loss: ProxyAnchorLoss: .*alpa"):
        pk.train(*write(tmp_path, tasks, RECIPE), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_wants_equal_counts_wants_batches_that_have_them(tmp_path):
    tasks = TASKS.replace("ProxyAnchorLoss, lr_scale: 10", "SmoothAPLoss")
    message = "tasks.place.loss: SmoothAPLoss wants as many pictures of every id in a batch; write loader.m_per_class"
    with pytest.raises(SpecError, match=message):
        pk.train(*write(tmp_path, tasks, RECIPE), tmp_path / "run", quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["SmoothAPLoss", "DynamicSoftMarginLoss", "NCALoss"])
def test_losses_that_look_at_more_than_one_batch_or_at_pairs_alone(tmp_path, loss):
    tasks = TASKS.replace("ProxyAnchorLoss, lr_scale: 10", loss)
    recipe = ALONE.replace("batch: 4", "batch: 4, m_per_class: 2")
    run = pk.train(*write(tmp_path, tasks, recipe), tmp_path / "run", quiet=True)
    state = checkpoint(run, "last.pt")["losses"]
    assert ("loss.hist_" in state.get("place", {})) == (loss == "DynamicSoftMarginLoss")


@pytest.mark.slow
def test_a_csv_of_ids_with_new_ones_on_test(tmp_path, capsys):
    ids = {"train": "aabbc", "val": "aab", "test": "xxyyz"}
    for split, letters in ids.items():
        for i in range(len(letters)):
            save(tmp_path / f"data/{split}/{i}.png", 40 * i)
        rows = [f"{i},{letter}" for i, letter in enumerate(letters)][: 4 if split == "train" else None]
        (tmp_path / f"data/{split}.csv").write_text("\n".join(["id,label", *rows]))
    data = "{source: folder, root: data, image: '{split}/{id}.png', size: [32, 32]}"
    place = "{type: embedding, dims: 4, target: '{split}.csv', loss: {name: ArcFaceLoss}}"
    files = write(tmp_path, f"name: t\ndata: {data}\ntasks: {{place: {place}}}\n")
    assert main(["check", str(files[0])]) == 0
    printed = capsys.readouterr().out
    assert "one picture only of the id 'z' of 3" in printed
    run = pk.train(*files, tmp_path / "run", quiet=True)
    (centres,) = checkpoint(run, "last.pt")["losses"]["place"].values()
    assert centres.shape == (4, 2)  # of a and b: the picture of c has no label
    found, constant = run.results["tasks"]["place"]["metrics"], run.results["constant"]["place"]
    assert constant["recall@1"] == pytest.approx(1 / 4)  # x and y are queries, z is not
    assert 0 <= found["map@r"] <= found["recall@1"] <= 1


@pytest.mark.slow
def test_class_folders_for_both_a_classification_and_an_embedding(tmp_path):
    write_class_folders(tmp_path / "data", each=3)
    data = "{source: imagefolder, root: data, size: [32, 32]}"
    both = "{kind: {type: classification}, near: {type: embedding, dims: 4}}"
    files = write(tmp_path, f"name: t\ndata: {data}\ntasks: {both}\n")
    assert main(["check", str(files[0])]) == 0
    run = pk.train(*files, tmp_path / "run", quiet=True)
    assert set(run.results["tasks"]) == {"kind", "near"}


def test_an_embedding_of_class_folders_meets_new_classes(tmp_path):
    write_class_folders(tmp_path / "data")
    save(tmp_path / "data/test/owl/1.png")
    data = "{source: imagefolder, root: data, size: [32, 32]}"
    text = f"name: t\ndata: {data}\ntasks: {{near: {{type: embedding}}}}\n"
    spec = load_tasks(write(tmp_path, text)[0]).spec
    tasks = build_tasks(spec)
    source = open_split(spec, tasks, "test")
    assert [int(source.load(i).targets["near"]) for i in range(4)] == [0, 0, 1, 1]
    assert source.load(4).targets["near"] == tasks["near"].number_of("owl")
    both = text.replace("{near:", "{kind: {type: classification}, near:")
    with pytest.raises(SpecError, match="a class that train does not have: 'owl'"):
        load_tasks(write(tmp_path, both)[0])


BY_CLASS = pytest.mark.parametrize(
    "keys", ["m_per_class: 2", "sampler: {name: MPerClassSampler, m: 2}"], ids=["m_per_class", "sampler"]
)


@pytest.mark.slow
@BY_CLASS
def test_batches_of_m_per_class_reach_the_loss(tmp_path, monkeypatch, keys):
    seen = []
    loss = Embedding.loss

    def noted(self, output, target):
        seen.append(target.tolist())
        return loss(self, output, target)

    monkeypatch.setattr(Embedding, "loss", noted)
    recipe = RECIPE.replace("batch: 4,", f"batch: 4, {keys},")
    pk.train(*write(tmp_path, TASKS, recipe), tmp_path / "run", quiet=True)
    assert len(seen) == 6 + (3 + 3) + 2 * 6
    assert all(sorted(ids.count(i) for i in set(ids)) == [2, 2] for ids in seen)


@BY_CLASS
def test_m_per_class_wants_classes(tmp_path, keys):
    files = write(tmp_path, "name: t\ndata: {source: scenes}\ntasks: {d: {type: depth}}\n", ALONE)
    assert load_both(*files)
    files[1].write_text(ALONE.replace("batch: 4,", f"batch: 4, {keys},"), encoding="utf-8")
    key = keys.split(":")[0]
    with pytest.raises(SpecError, match=f"loader.{key}: no task has one class or id per picture"):
        load_both(*files)


@BY_CLASS
def test_more_classes_than_there_are(tmp_path, keys):
    recipe = ALONE.replace("batch: 4,", f"batch: 10, {keys},")
    with pytest.raises(SpecError, match="2 pictures of each of 5 classes, and there are [1-4]; raise"):
        pk.train(*write(tmp_path, TASKS, recipe), tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_neighbours_from_python_and_the_command_line(run, tmp_path, capsys):
    for value in (0, 120, 240):
        save(tmp_path / f"gallery/{value}.png", value)
    save(tmp_path / "query.png", 120)
    index = pk.index(run.path, tmp_path / "gallery")
    found = index.search(tmp_path / "query.png", k=2)
    assert found[0] == ("120.png", pytest.approx(1, abs=1e-5)) and len(found) == 2
    saved = index.save(tmp_path / "gallery.safetensors")
    assert pk.index(run.path, saved).search(tmp_path / "query.png", k=2) == found
    for gallery in (tmp_path / "gallery", saved):
        command = [
            "predict",
            run.path,
            tmp_path / "query.png",
            "--save",
            tmp_path / "out",
            "--neighbours",
            gallery,
        ]
        assert main([str(part) for part in command]) == 0
        assert "  1.000  120.png\n" in capsys.readouterr().out
        written = json.loads((tmp_path / "out/query.neighbours.json").read_text())
        assert [near["id"] for near in written][0] == "120.png" and len(written) == 3
    assert main([str(part) for part in [*command, "--tasks", "depth"]]) == 2
    assert "no task of type embedding; it has depth" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_a_router_beside_an_embedding(tmp_path, estimator):
    recipe = f"""\
backbone: {{name: test_resnet, weights: none}}
sharing: {{method: hard}}
routing: {{gamma: 0.5, estimator: {estimator}, router: {{name: resnet8, downscale: 2}}, compare_epochs: 0}}
stages:
  - {{name: warmup, epochs: 1}}
  - {{name: route, epochs: 1}}
  - {{name: finetune, epochs: 1, distill: 0.5}}
loader: {{batch: 4, workers: 0, m_per_class: 2}}
"""
    run = pk.train(
        *write(tmp_path, TASKS.replace("  depth: {type: depth}\n", ""), recipe), tmp_path / "run", quiet=True
    )
    assert 0 <= run.results["tasks"]["place"]["metrics"]["map@r"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["uncertainty", "dwa", "gradnorm", "famo"])
def test_proxies_learn_under_every_balance(tmp_path, balance):
    files = write(tmp_path, TASKS, ALONE + f"balance: {{method: {balance}}}\n")
    run = pk.train(*files, tmp_path / "run", quiet=True)
    (proxies,) = checkpoint(run, "last.pt")["losses"]["place"].values()
    tasks = build_tasks(load_tasks(files[0]).spec)
    torch.manual_seed(0)  # the recipe's seed
    tasks["place"].begin_loss()
    (fresh,) = tasks["place"].loss_module.state_dict().values()
    assert proxies.isfinite().all() and not torch.equal(proxies, fresh)
    assert (proxies - fresh).abs().max() < 0.2  # 6 steps of Adam at a rate of 0.01


@pytest.mark.slow
@pytest.mark.parametrize("form", [{"precision": "fp16"}, {"int8": True}, {"format": "torch"}])
def test_other_exports(run, tmp_path, form):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    ending = "pt2" if form.get("format") == "torch" else "onnx"
    vector = pk.load(pk.export(run.path, tmp_path / f"m.{ending}", **form)).predict(picture)["place"].vector
    whole = pk.load(run.path).predict(picture)["place"].vector
    assert np.linalg.norm(vector) == pytest.approx(1, abs=0.02)
    assert float(vector @ whole) > 0.9
