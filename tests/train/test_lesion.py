"""Broken networks: what is deleted and swapped, and that the network is whole again."""

import json
import math
import random
from itertools import combinations

import pytest
import timm
import torch
import yaml
from torch import Tensor

from perceptkit import api
from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.data.batch import Batch
from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.report.analysis_file import read_lesions
from perceptkit.train.lesion import (
    DRAWS,
    LEVELS,
    Variation,
    exchangeable,
    lesion_study,
    qualities,
    random_deletions,
    reordered,
    reorderings,
    tau,
    without,
)
from perceptkit.train.run_folder import start
from perceptkit.train.trained import read_trained
from tests.data.conftest import make_tasks

RGB = (0.5, 0.5, 0.5)
NAMES = ("depth", "room")


def vit(depth: int = 4, names: tuple[str, ...] = NAMES) -> Supernet:
    """A small transformer: all of its blocks have one shape."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=16,
        num_heads=2,
        depth=depth,
        num_classes=0,
    )
    every = make_tasks()
    return Supernet(model, {name: every[name] for name in names}, 8, (32, 32), RGB, RGB).eval()


def all_keep(net: Supernet | SingleTaskNets) -> Plan:
    return Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])


@pytest.fixture(scope="module")
def net() -> Supernet:
    return vit()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# what is tried


def test_random_deletions_are_different_sets_or_all_there_are():
    found = [v.deleted for v in random_deletions([0, 2, 3, 5], DRAWS, random.Random(0))]
    expected = [set for count in (1, 2, 3, 4) for set in combinations([0, 2, 3, 5], count)]
    assert found == expected  # 4 + 6 + 4 + 1: none has more than 8
    many = [v.deleted for v in random_deletions(range(33), 5, random.Random(0))]
    counts = [len(blocks) for blocks in many]
    assert len(set(counts)) == LEVELS and min(counts) == 1 and max(counts) == 33
    assert all(counts.count(count) == 5 for count in set(counts) - {33}) and counts.count(33) == 1
    assert len(set(many)) == len(many)


def test_one_block_and_none():
    assert [v.deleted for v in random_deletions([4], 8, random.Random(0))] == [(4,)]
    assert random_deletions([], 8, random.Random(0)) == []


def test_blocks_that_can_change_places(net):
    assert exchangeable(net, [0, 1, 2, 3]) == [[0, 1, 2, 3]]
    assert exchangeable(net, [0, 1, 3]) == [[0, 1, 3]]  # nobody runs block 2
    assert exchangeable(net, [2]) == []


def test_a_transition_parts_blocks():
    torch.manual_seed(0)
    model = timm.create_model("resnet34", channels=(8, 8, 16, 16), num_classes=0)
    resnet = Supernet(model, {"depth": make_tasks()["depth"]}, 8, (32, 32), RGB, RGB)
    names = [[resnet.blocks[b].name for b in group] for group in exchangeable(resnet, range(16))]
    assert names[-1] == ["layer4.1", "layer4.2"] and names[1] == ["layer2.1", "layer2.2", "layer2.3"]


def test_reorderings_stay_in_their_groups():
    found = [v.order for v in reorderings([[0, 1], [3, 4, 5]], 7, DRAWS, random.Random(0))]
    assert len(set(found)) == len(found) and tuple(range(7)) not in found
    for order in found:
        assert order is not None and order[2] == 2 and order[6] == 6
        assert {order[0], order[1]} == {0, 1} and {order[b] for b in (3, 4, 5)} == {3, 4, 5}
    assert (0, 1, 2, 4, 3, 5, 6) in found
    assert reorderings([], 7, DRAWS, random.Random(0)) == []


def test_tau_by_hand():
    assert tau((0, 1, 2, 3), [0, 1, 2, 3]) == pytest.approx(1)
    assert tau((1, 0, 2, 3), [0, 1, 2, 3]) == pytest.approx(4 / 6)  # one of six pairs is the wrong way round
    assert tau((3, 2, 1, 0), [0, 1, 2, 3]) == pytest.approx(-1)
    assert tau((1, 0, 2, 3), [0, 1, 3]) == pytest.approx(1 / 3)


# what a broken network computes


def test_without():
    plan = Plan.from_keep(["a", "b"], ["x", "y", "z"], [[True, True, False], [False, True, True]])
    assert without(plan, (1, 2)).table == (("keep", "skip", "skip"), ("skip", "skip", "skip"))
    assert without(plan, ()) is plan
    routed = Plan(("a",), ("x", "y"), (("route", "keep"),))
    assert without(routed, (0,)).table == (("skip", "keep"),)


def test_swapping_blocks_is_swapping_their_weights(net, image):
    plan, other = all_keep(net), vit()
    with reordered(net, (1, 0, 2, 3)):
        swapped = net(image, plan)
    blocks = other.backbone.blocks
    first, second = blocks[0].state_dict(), {k: v.clone() for k, v in blocks[1].state_dict().items()}
    first = {k: v.clone() for k, v in first.items()}
    blocks[0].load_state_dict(second)
    blocks[1].load_state_dict(first)
    expected = other(image, plan)
    assert all(torch.equal(swapped[name], expected[name]) for name in NAMES)
    assert not torch.equal(swapped["depth"], net(image, plan)["depth"])


def test_a_block_is_kept_by_the_same_tasks_wherever_it_runs(net, image):
    """Block 0 is skipped by `room`: in the order 1, 0 it still is, so `room` is what it was."""
    keep = [[True] * 4, [False, True, True, True]]
    plan = Plan.from_keep(NAMES, [block.name for block in net.blocks], keep)
    before = net(image, plan)
    with reordered(net, (1, 0, 2, 3)):
        after = net(image, plan)
    assert torch.equal(after["room"], before["room"]) and not torch.equal(after["depth"], before["depth"])


def test_the_network_is_whole_again_also_after_an_error(net, image):
    steps, before = net.steps, net(image, all_keep(net))
    with pytest.raises(KeyError), reordered(net, (3, 2, 1, 0)):
        raise KeyError
    assert net.steps is steps
    assert all(torch.equal(before[name], value) for name, value in net(image, all_keep(net)).items())


def test_single_task_nets_are_all_reordered(image):
    nets = SingleTaskNets({name: vit(names=(name,)) for name in NAMES})
    plan = all_keep(nets)
    before = nets(image, plan)
    with reordered(nets, (1, 0, 2, 3)):
        after = nets(image, plan)
    assert not any(torch.equal(before[name], after[name]) for name in NAMES)


def batches_of(net: Supernet, image: Tensor) -> list[Batch]:
    """Two batches; the last picture has no label of `room`."""
    room = torch.tensor([0, 1, net.tasks["room"].missing((32, 32)).item()])
    depth = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(2)) + 1
    targets = {"depth": depth, "room": room}
    return [
        Batch(
            ids=["id"] * len(image[rows]),
            image_BCHW=image[rows],
            targets={name: target[rows] for name, target in targets.items()},
        )
        for rows in (slice(0, 2), slice(2, 3))
    ]


def test_quality_is_the_mean_over_labelled_pictures(net, image):
    tasks, batches = net.tasks, batches_of(net, image)
    variations = [Variation(), Variation((0, 2)), Variation(order=(3, 1, 2, 0))]
    quality_VK, first_NK = qualities(net, all_keep(net), variations, batches, tasks, torch.device("cpu"))
    assert quality_VK.shape == (3, 2) and first_NK.shape == (3, 2)
    assert first_NK[2, 1].isnan() and quality_VK[0, 1] == pytest.approx(first_NK[:2, 1].mean().item())
    outputs = net(image, without(all_keep(net), (0, 2)))
    depth = torch.cat([batch.targets["depth"] for batch in batches])
    expected = tasks["depth"].quality(outputs["depth"], depth).mean().item()
    assert quality_VK[1, 0].item() == pytest.approx(expected, abs=1e-6)


def test_the_study(net, image, tmp_path):
    keep = [[True, True, True, False], [True, False, True, False]]  # nobody runs block 3
    plan = Plan.from_keep(NAMES, [block.name for block in net.blocks], keep)
    said: list[str] = []
    found, quality_NK = lesion_study(
        net, plan, batches_of(net, image), net.tasks, torch.device("cpu"), say=said.append
    )
    assert [row["block"] for row in found["deleted"]] == [block.name for block in net.blocks[:3]]
    assert [row["count"] for row in found["random"]] == [1, 1, 1, 2, 2, 2, 3]
    by_block = {row["block"]: row["quality"] for row in found["deleted"]}
    assert by_block["blocks.1"]["room"] == found["intact"]["quality"]["room"]  # which skips it anyway
    assert all(-1 <= row["tau"] < 1 for row in found["reordered"])
    assert found["intact"]["score"] == pytest.approx(quality_NK.nanmean(0).mean().item())
    assert len(said) == 1
    again, _ = lesion_study(net, plan, batches_of(net, image), net.tasks, torch.device("cpu"))
    assert again == found
    (tmp_path / "lesion.json").write_text(json.dumps({"split": "val", "pictures": 3, **found}))
    assert list(read_lesions(tmp_path / "lesion.json").random) == [1, 2, 3]


def test_a_task_without_labels_has_no_quality(net, image):
    batches = batches_of(net, image)[1:]
    found, _ = lesion_study(net, all_keep(net), batches, net.tasks, torch.device("cpu"), draws=1)
    assert math.isnan(found["intact"]["quality"]["room"])
    assert found["intact"]["score"] == found["intact"]["quality"]["depth"]


# of a run


@pytest.mark.slow
def test_of_a_run(small_run, tmp_path):
    """Trains for some seconds; then the page is made, with a study and without torch in between."""
    tasks, recipe = small_run
    out = tmp_path / "run"
    few = ["stages.search.epochs=1", "stages.warmup.epochs=1", "stages.retrain.epochs=1"]
    api.train(tasks, recipe, out, few, quiet=True)
    affinity = json.loads((out / "affinity.json").read_text())
    assert affinity["tasks"] == ["seg", "depth", "normals", "keypoints", "edges", "room"]
    assert affinity["pictures"] == 4 and affinity["split"] == "val"
    (out / "affinity.json").unlink()  # a run from before there was one
    page = api.report(out, lesion=True).read_text()
    assert "What blocks are worth" in page and "How tasks relate" in page
    assert json.loads((out / "affinity.json").read_text()) == affinity
    found = json.loads((out / "lesion.json").read_text())
    # val holds four pictures: the study saw what the last evaluation saw
    score = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][-1]["score"]
    assert found["intact"]["score"] == pytest.approx(score, abs=1e-5)


def test_refusals(small_run, tmp_path):
    with pytest.raises(SpecError, match="holds no run"):
        read_trained(tmp_path)
    tasks, recipe = small_run
    loaded, how = api.load_specs(tasks, recipe)
    run = tmp_path / "run"
    start(run, loaded.spec, how.spec, loaded.text, how.text, seed=0)
    with pytest.raises(SpecError, match="run is not finished: continue it with"):
        read_trained(run)
    (run / "results.json").write_text("{}")
    with pytest.raises(SpecError, match="are gone or damaged"):
        read_trained(run)
    adapted = yaml.safe_load((run / "resolved.yaml").read_text())
    adapted["recipe"] |= {"adaptation": {"method": "bn"}, "stages": [{"name": "adapt", "epochs": 1}]}
    adapted["recipe"]["sharing"] = {"method": "hard"}
    (run / "resolved.yaml").write_text(yaml.safe_dump(adapted))
    with pytest.raises(SpecError, match="was adapted from another run"):
        read_trained(run)
