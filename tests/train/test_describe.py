"""What describe says is what is built, counted by other means; and its memory estimate is near the truth."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from perceptkit import api
from perceptkit.errors import DataError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TASK_SPECS, TasksFile
from perceptkit.tasks.table import TASKS, build_tasks
from perceptkit.train import memory
from perceptkit.train.describe import LOSSES, as_text, loss_key, random_network

SPLITS = {"train": 3, "val": 2, "test": 1}
TASKS_FILE = """\
name: tiny
data: {source: folder, root: data, image: "{split}/rgb/{id}.png", size: [32, 64]}
tasks:
  seg:     {type: segmentation, target: "{split}/seg/{id}.png", classes: 3}
  depth:   {type: depth, target: "{split}/depth/{id}.npy", log: true, weight: 2}
  corners: {type: keypoints, target: "{split}.json", kinds: [a, b]}
  edges:   {type: edges, derive: [seg, depth]}
  room:    {type: classification, target: rooms.csv, classes: [bath, hall]}
"""
RECIPE = """\
backbone: {name: resnet18, weights: none, args: {channels: [8, 16, 16, 32]}}
heads: {channels: 8}
stages: [{name: warmup, epochs: 1}, {name: search, epochs: 4, speed: 1}, {name: retrain, epochs: 1}]
loader: {batch: 8}
"""


def fill(tmp_path):
    """Pictures 0, 1, 2 in train; the last picture of train has no seg, and only picture 0 has corners."""
    for split, count in SPLITS.items():
        for kind in ("rgb", "seg", "depth"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for i in range(count):
            grey = np.full((32, 64), i % 3, np.uint8)
            Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / f"data/{split}/rgb/{i}.png")
            np.save(tmp_path / f"data/{split}/depth/{i}.npy", np.full((32, 64), 2.0, np.float32))
            if i < 2:
                Image.fromarray(grey).save(tmp_path / f"data/{split}/seg/{i}.png")
        (tmp_path / f"data/{split}.json").write_text('{"0": [[3, 4, 1]]}')
    (tmp_path / "data/rooms.csv").write_text("id,label\n0,bath\n1,hall\n")
    (tmp_path / "tiny.yaml").write_text(TASKS_FILE)
    (tmp_path / "mine.yaml").write_text(RECIPE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own, to change."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The description of an unchanged folder."""
    path = tmp_path_factory.mktemp("tiny")
    fill(path)
    return api.describe(path / "tiny.yaml", path / "mine.yaml")


def described(*overrides, recipe="mine.yaml"):
    return api.describe("tiny.yaml", recipe, overrides)


def test_both_files_with_every_default(found, folder):
    tasks, recipe = TasksFile(**found["tasks_file"]), Recipe(**found["recipe"])
    loaded, how = api.load_specs("tiny.yaml", "mine.yaml", [f"data.root={tasks.data.root}"])
    assert (tasks, recipe) == (loaded.spec, how.spec)
    assert found["recipe"]["optim"]["clip_norm"] is None


def test_tasks(found):
    found = found["tasks"]
    assert list(found) == ["seg", "depth", "corners", "edges", "room"]
    # conv 3x3 8 -> 8 without bias, BatchNorm, conv 1x1 8 -> 3 with bias
    assert found["seg"]["head"] == {
        "module": "DenseHead",
        "reads": "feature pyramid",
        "out_channels": 3,
        "labels": ["0", "1", "2"],
        "params": 8 * 8 * 9 + 2 * 8 + 8 * 3 + 3,
    }
    assert found["room"]["head"]["params"] == 32 * 2 + 2
    assert found["depth"]["loss"] == "L1 on logarithms over valid pixels"
    assert (found["depth"]["weight"], found["depth"]["primary"]) == (2, "abs_rel")
    assert found["depth"]["metrics"]["rmse"] == {"higher_is_better": False, "unit": "m"}
    assert all(task["primary"] in task["metrics"] for task in found.values())


def test_a_router_has_its_own_row(folder):
    (folder / "routed.yaml").write_text(
        RECIPE.replace(
            "heads:", "sharing: {method: hard}\nrouting: {router: {name: resnet8, downscale: 2}}\nheads:"
        ).replace(
            "{name: search, epochs: 4, speed: 1}, {name: retrain, epochs: 1}", "{name: route, epochs: 1}"
        )
    )
    found = described(recipe="routed.yaml")
    row = found["cost"]["rows"]["router"]
    # 16, 32, 64 channels at 16x32, 8x16, 4x8 pixels, two 3x3 convolutions per stage; then 64 -> 8 blocks
    convs = 9 * 16 * 16 * 512 * 2 + 9 * (16 * 32 + 32 * 32) * 128 + 9 * (32 * 64 + 64 * 64) * 32
    assert row["macs"] == pytest.approx(9 * 3 * 16 * 512 + convs + 64 * 8, rel=0.05)
    assert "router, in front of it" in as_text(found)
    assert "router" not in described()["cost"]["rows"]


def test_every_loss_has_words():
    specs = {
        "depth": [{}, {"log": True}],
        "keypoints": [{"names": ["a"]}, {"kinds": ["a"]}],
        "classification": [{}, {"multi_label": True}],
    }
    keys = {
        loss_key(TASKS[kind]("x", TASK_SPECS[kind](type=kind, **keys), ["a", "b"]))
        for kind in TASKS
        if kind != "embedding"  # whose losses are called by their own names
        for keys in specs.get(kind, [{}])
    }
    assert keys == set(LOSSES)


def test_blocks(found):
    blocks = found["blocks"]
    assert [b["name"] for b in blocks] == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert [b["stride"] for b in blocks] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [b["channels"] for b in blocks] == [8, 8, 16, 16, 16, 16, 32, 32]
    assert blocks[1]["kind"] == "identity" and blocks[2]["kind"] == "shortcut"


def test_backbone(found):
    of = found["backbone"]
    kinds = [block["kind"] for block in found["blocks"]]
    assert (of["identity"], of["shortcut"]) == (kinds.count("identity"), kinds.count("shortcut")) == (4, 4)
    assert (of["name"], of["strides"], of["channels"]) == ("resnet18", [4, 8, 16, 32], [8, 16, 16, 32])
    widths = [64, 8, 8, 16, 16, 16, 16, 32, 32]
    pixels = [32 * 64 // block["stride"] ** 2 for block in found["blocks"]]
    in_blocks = sum(9 * (a * b + b * b) * n for a, b, n in zip(widths, widths[1:], pixels, strict=False))
    assert of["share"] == pytest.approx(in_blocks / of["macs"])
    text = as_text(found)
    assert f"4 identity and 4 shortcut blocks can be skipped; {of['share']:.1%} of its" in text
    assert "features at strides 4 8 16 32, with 8 16 16 32 channels" in text


def test_cost(found, folder):
    found = found["cost"]
    net = api.build("tiny.yaml", "mine.yaml")
    assert found["input"] == [3, 32, 64]
    assert found["rows"]["supernet"] == found["rows"]["hard_shared"]
    assert found["rows"]["supernet"]["params"] == sum(p.numel() for p in net.parameters())
    assert found["rows"]["single_task_nets"]["macs"] > 3 * found["rows"]["hard_shared"]["macs"]


def test_single_task_nets(found, folder):
    stages = ["sharing={method: single}", "stages=[{name: retrain, epochs: 1}]"]
    shared, single = found["cost"]["rows"], described(*stages)["cost"]["rows"]
    assert single["supernet"] == single["single_task_nets"] == shared["single_task_nets"]
    assert single["hard_shared"] == shared["hard_shared"]


def test_a_network_that_is_no_trunk_with_a_plan(found, folder):
    rows = found["cost"]["rows"]
    mtan = described("sharing={method: mtan}", "stages=[{name: retrain, epochs: 1}]")
    assert {key: mtan["cost"]["rows"][key] for key in ("hard_shared", "single_task_nets")} == {
        key: rows[key] for key in ("hard_shared", "single_task_nets")
    }
    assert mtan["cost"]["rows"]["supernet"]["params"] > rows["hard_shared"]["params"]
    assert mtan["memory"]["stages"]["retrain"]["activations"] > 0 and mtan["backbone"] == found["backbone"]
    assert "supernet" in as_text(mtan)


def test_counts_of_pictures_and_labels(found):
    assert found["data"] == {
        "train": {"images": 3, "labels": {"seg": 2, "depth": 3, "corners": 1, "edges": 2, "room": 2}},
        "val": {"images": 2, "labels": {"seg": 2, "depth": 2, "corners": 1, "edges": 2, "room": 2}},
        "test": {"images": 1, "labels": {"seg": 1, "depth": 1, "corners": 1, "edges": 1, "room": 1}},
    }


def test_labels_are_not_opened_and_the_generator_is_left_alone(folder):
    (folder / "data/train/seg/0.png").write_bytes(b"no picture")
    before = torch.get_rng_state()
    assert described()["data"]["train"]["labels"]["seg"] == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_scenes_count_as_declared():
    found = api.describe("scenes", "quickstart", ["data.count.val=7"])
    assert found["data"]["val"] == {"images": 7, "labels": dict.fromkeys(found["tasks"], 7)}
    text = as_text(found)
    assert len(found["blocks"]) == 8 and len(found["tasks"]) == 6
    assert len(text.splitlines()) <= 80


def test_text(found):
    lines = as_text(found).splitlines()
    assert not any(line != line.rstrip() for line in lines)
    assert "  corners  keypoints       DenseHead         2     610  focal loss on heat maps" in "\n".join(
        lines
    )
    assert any(line.split()[:3] == ["train", "3", "2"] for line in lines)
    assert any(f"{found['cost']['rows']['supernet']['macs']:,}" in line for line in lines)


def test_it_is_json(found):
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (["backbone.name=resnet8"], SpecError, "not a timm model"),
        (
            ["backbone.args={chanels: [8]}"],
            SpecError,
            r"resnet18 does not take the recipe's backbone.args {'chanels': \[8\]}",
        ),
        (
            ["backbone.name=convnext_atto"],
            SpecError,
            r"'channels'\); if they are for another model, set backbone\.args={}, or to arguments of convnext_atto",
        ),
        (["tasks.seg.classes=none.txt"], SpecError, "none.txt"),
        (["tasks.seg.target={split}/sag/{id}.png"], DataError, "no picture of train has a label"),
        (["data.image={split}/rgb/{id}.jpg"], SpecError, "no pictures for train"),
    ],
)
def test_wrong_input(folder, change, error, message):
    with pytest.raises(error, match=message):
        described(*change)


def test_a_broken_label_file(folder):
    (folder / "data/train.json").write_text("{")
    with pytest.raises(DataError, match=r"train\.json is not JSON"):
        described()


def allocated_peak(step) -> int:
    """Bytes that PyTorch's allocator gave out at most while `step` ran twice, above those before.

    Twice, because the gradients of the first are alive in the second.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def test_memory_is_estimated_near_the_peak(folder):
    """Gradients and activations at the recipe's batch size, against the allocator."""
    loaded, how = api.load_specs("tiny.yaml", "mine.yaml", ["data.size=[96, 128]"])
    tasks = build_tasks(loaded.spec)
    network = random_network(how.spec, tasks, loaded.spec.data.size).train()
    stages = memory.estimate(network, tasks, how.spec, loaded.spec.data.size)["stages"]
    image, *targets = memory.labelled_batch(tasks, loaded.spec.data.size, how.spec.loader.batch)
    blocks = [block.name for block in network.blocks]
    plan = Plan.all_keep(list(tasks), blocks)

    def step() -> None:
        outputs = network(image, plan)
        pairs = zip(tasks.items(), targets, strict=True)
        total = torch.stack([t.loss(outputs[name], target) for (name, t), target in pairs]).sum()
        network.zero_grad()
        total.backward()

    parts = stages["retrain"]
    assert parts["gradients"] + parts["activations"] == pytest.approx(allocated_peak(step), rel=0.02)
    assert stages["warmup"] == stages["retrain"]
    params = sum(p.numel() for p in network.parameters())
    assert stages["retrain"]["gradients"] == 4 * params
    assert stages["retrain"]["optimizer"] == 8 * params
    assert stages["search"]["activations"] > stages["retrain"]["activations"]
    for parts in stages.values():
        assert parts["total"] == sum(size for name, size in parts.items() if name != "total")


def test_half_precision_takes_less(found, folder):
    full = found["memory"]["stages"]["retrain"]["activations"]
    half = described("precision=bf16")["memory"]["stages"]["retrain"]["activations"]
    assert 0.4 * full < half < 0.9 * full
