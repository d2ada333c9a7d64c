"""Norms of each task's own: what is shared, what it costs, and that the artifact computes the same."""

import copy
import json
from functools import cache

import pytest
import torch
from torch import nn

import perceptkit as pk
from perceptkit.baselines.sharing.task_norms import TaskNormNets, build_task_norms
from perceptkit.compact.network import compact
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import head_key
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from tests.model.conftest import SIZE, TASKS, image, make_net, make_tasks, some_plan  # noqa: F401

RECIPE = """\
version: 1
backbone: {name: test_resnet, weights: none}
heads: {channels: 16}
sharing: {method: adashare, sparsity: 0.01, sharing: 0.01, batchnorm: per_task}
stages:
  - {name: search, epochs: 2, curriculum: none, policy_fraction: 0.5, policy_lr: 0.3, samples: 2, retrain: best}
  - {name: retrain, epochs: 1}
loader: {batch: 4, workers: 0}
"""
DATA = """\
name: small
data: {source: scenes, size: [32, 32], count: {train: 16, val: 4, test: 4}}
tasks: {seg: {type: segmentation}, room: {type: classification}}
"""


def made(name="resnet10t") -> TaskNormNets:
    """With statistics that differ from task to task; a copy, to be changed freely."""
    return copy.deepcopy(_built(name))


@cache
def _built(name: str) -> TaskNormNets:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = BackboneSpec(name=name, weights="none")
        nets = build_task_norms(backbone, HeadsSpec(channels=16), make_tasks(), SIZE)
        for norm in norms_of(nets):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.data.uniform_(0.5, 1.5)
    return nets.eval()


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Heads, which are each task's own anyway, aside."""
    named = network.named_modules()
    return [module for name, module in named if isinstance(module, nn.BatchNorm2d) and "heads." not in name]


def test_all_but_norms_and_heads_is_shared():
    nets = made()
    first, second, _ = nets.by_task().values()
    assert first.backbone.conv1[0].weight is second.backbone.conv1[0].weight
    assert first.neck.smooth[0].weight is second.neck.smooth[0].weight
    assert first.backbone.bn1.weight is not second.backbone.bn1.weight
    assert first.heads[head_key("a")].parameters() is not second.heads[head_key("b")].parameters()
    one = make_net("resnet10t")
    in_norms = sum(num_params(norm) for norm in norms_of(one))
    assert num_params(nets) == num_params(one) + 2 * in_norms


def test_moving_keeps_what_is_shared():
    nets = made().double().to(memory_format=torch.channels_last)
    first, second, _ = nets.by_task().values()
    assert first.backbone.conv1[0].weight is second.backbone.conv1[0].weight
    assert first.backbone.conv1[0].weight.dtype == torch.float64


def test_a_saved_network_is_the_same_again(image):  # noqa: F811
    nets, other = made(), made()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(nets.state_dict())
    plan = some_plan(nets)
    assert all(torch.equal(y, other(image, plan)[task]) for task, y in nets(image, plan).items())


def test_a_step_moves_the_tasks_own_statistics_only(image):  # noqa: F811
    nets = made().train()
    before = [norm.running_mean.clone() for norm in norms_of(nets.by_task()["b"])]
    rows = {task: [True] * len(nets.blocks) for task in TASKS}
    nets(image, rows, ["a"])
    after = norms_of(nets.by_task()["b"])
    assert all(torch.equal(mean, norm.running_mean) for mean, norm in zip(before, after, strict=True))
    outputs = nets(image, rows)
    sum(output.mean() for output in outputs.values()).backward()
    shared = nets.by_task()["a"].backbone.conv1[0].weight
    assert shared.grad.abs().sum() > 0 and all(norm.weight.grad is not None for norm in norms_of(nets))


def test_cost_is_weights_once_and_a_pass_for_every_task():
    nets = made()
    plan = some_plan(nets)
    rows, one = cost.table(nets, plan, SIZE)["rows"], make_net("resnet10t")
    dense = Plan.all_keep(TASKS, plan.blocks)
    of_one = cost.table(one, dense, SIZE)["rows"]
    assert rows["hard_shared"] == of_one["hard_shared"]
    assert rows["single_task_nets"] == of_one["single_task_nets"]
    per_task = cost.table(one, plan, SIZE)["per_task_macs"]
    assert rows["compact"]["macs"] == sum(per_task.values())  # no prefix is shared
    executed = cost.measured_macs(lambda: nets(torch.zeros(1, 3, *SIZE), plan))
    assert rows["compact"]["macs"] == executed
    in_norms = sum(num_params(norm) for norm in norms_of(one))
    everything = cost.table(nets, dense, SIZE)["rows"]["compact"]
    assert everything["params"] == num_params(nets) == num_params(one) + 2 * in_norms
    assert everything["macs"] == of_one["single_task_nets"]["macs"] > of_one["compact"]["macs"]


def test_params_are_the_union_over_tasks():
    """The last block is kept by a alone: its weights count once, with the norms of a only."""
    nets = made()
    blocks = [block.name for block in nets.blocks]
    keep = [[True] * len(blocks) for _ in TASKS]
    keep[1][-1] = keep[2][-1] = False
    plan = Plan.from_keep(TASKS, blocks, keep)
    dense = cost.table(nets, Plan.all_keep(TASKS, blocks), SIZE)["rows"]["compact"]["params"]
    block = nets.by_task()["a"].backbone.get_submodule(blocks[-1])
    projection = num_params(block.downsample) if getattr(block, "downsample", None) is not None else 0
    norms = sum(num_params(norm) for norm in norms_of(block)) - sum(
        num_params(norm) for norm in norms_of(block.downsample or nn.Identity())
    )
    found = cost.table(nets, plan, SIZE)["rows"]["compact"]["params"]
    assert dense - found == 2 * norms and projection >= 0


@torch.no_grad()
def test_the_compact_model_is_exact(image):  # noqa: F811
    nets = made()
    plan = some_plan(nets)
    small, expected = compact(nets, plan).eval(), nets(image, plan)
    for task, output in small(image).items():
        torch.testing.assert_close(output, expected[task], rtol=1e-5, atol=1e-5)


def test_a_backbone_without_batchnorm_is_refused():
    with pytest.raises(SpecError, match=r"sharing\.batchnorm: this backbone has no BatchNorm"):
        made("test_vit")


@pytest.mark.slow
def test_from_search_to_artifact(tmp_path):
    (tmp_path / "tasks.yaml").write_text(DATA)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = pk.train(tmp_path / "tasks.yaml", tmp_path / "recipe.yaml", tmp_path / "run", quiet=True)
    model = pk.load(run.path)  # the artifact was verified when it was written
    manifest = json.loads((run.path / "artifact/manifest.json").read_text())
    rows = run.cost["rows"]
    assert manifest["batchnorm"] == "per_task"
    assert rows["compact"]["macs"] == sum(run.cost["per_task_macs"].values())
    assert (
        manifest["written"]["params"] > rows["compact"]["params"]
    )  # folded, convolutions are each task's own
    assert set(model.predict(torch.zeros(32, 32, 3, dtype=torch.uint8).numpy())) == {"seg", "room"}
    page = pk.report(run.path).read_text()
    assert "once for every task that keeps it" in page
