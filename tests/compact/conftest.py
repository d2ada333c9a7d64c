"""Small networks with one task of every type and random statistics in every norm."""

import os
from functools import lru_cache

import pytest
import torch
from filelock import FileLock
from torch import nn

from perceptkit.baselines.sharing.single import build_single
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.export import FORMATS, export_network
from perceptkit.model import cost
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from tests.data.conftest import make_tasks

SIZE = (64, 64)
HEADS = HeadsSpec(channels=16)


@lru_cache
def network(name="test_resnet", method="adashare", chosen=None):
    """With random weights everywhere: a norm of 0 and 1 would be folded into nothing. Do not change it."""
    tasks = {task: made for task, made in make_tasks().items() if chosen is None or task in chosen}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = build_single if method == "single" else build_supernet
        net = build(BackboneSpec(name=name, weights="none"), HEADS, tasks, SIZE)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
        for parameter, values in net.named_parameters():
            if parameter.endswith("gamma"):  # layer scale: 1e-6 would make skipped and kept blocks alike
                values.data.uniform_(0.5, 1.5)
    return net.eval()


def block_names(net):
    return [block.name for block in net.blocks]


def plan_of(net, keep):
    """`keep(task index, block index)`, or a string: `all`, `none`, `first` (one task keeps all), `mixed`."""
    rules = {
        "all": lambda k, b: True,
        "none": lambda k, b: False,
        "first": lambda k, b: k == 0,
        "mixed": lambda k, b: (k * 5 + b * 3 + k * b) % 4 > 0,
    }
    rule = rules.get(keep, keep)
    rows = [[rule(k, b) for b in range(len(net.blocks))] for k in range(len(net.tasks))]
    return Plan.from_keep(list(net.tasks), block_names(net), rows)


def manifest_of(net, plan, name="test_resnet", method="adashare"):
    return Manifest(
        name="tiny",
        backbone=BackboneSpec(name=name, weights="none"),
        heads=HEADS,
        tasks=net.tasks,
        plan=plan,
        method=method,
        size_HW=SIZE,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        cost=cost.table(net, plan, SIZE),
        metrics={"seg": {"type": "segmentation", "metrics": {"miou": 0.25}}},
    )


@lru_cache
def compacted():
    """A compact model with one task of every type, and its manifest. Do not change it."""
    net = network()
    plan = plan_of(net, "mixed")
    return compact_and_fold(net, plan, SIZE), manifest_of(net, plan)


@lru_cache
def lone():
    """As `compacted`, with the smallest task alone. Do not change it."""
    net = network(chosen=("room",))
    plan = plan_of(net, "none")
    return compact_and_fold(net, plan, SIZE), manifest_of(net, plan)


def exported(tmp_path_factory, format="onnx"):
    """The file of `compacted` in a format, written once for all tests and workers: ONNX takes 20 seconds. Read only."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # workers have folders of their own in one that they share
        folder = folder.parent
    path = folder / "exports" / format / FORMATS[format].file
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{format}.lock"):
        if not path.is_file():
            export_network(*compacted(), path, format)
    return path


@pytest.fixture
def image():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def small():
    """A supernet, its plan and their manifest."""
    net = network()
    plan = plan_of(net, "mixed")
    return net, plan, manifest_of(net, plan)
