"""Small networks with random statistics, so that no test passes because a branch is zero."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.tasks_file import EdgesSpec, KeypointsSpec
from perceptkit.tasks.edges import Edges
from perceptkit.tasks.keypoints import Keypoints

SIZE = (64, 96)
TASKS = ("a", "b", "c")


def make_tasks():
    """Three dense tasks, two of them alike."""
    points = KeypointsSpec(type="keypoints", names=["p", "q"])
    edges = EdgesSpec(type="edges")
    return {
        "a": Edges("a", edges, []),
        "b": Keypoints("b", points, ["p", "q"]),
        "c": Edges("c", edges, []),
    }


def make_net(name="resnet10t", size=SIZE):
    """A supernet with random weights everywhere, the norms' statistics included; a copy, to be changed freely."""
    return copy.deepcopy(_built(name, size))


@cache
def _built(name, size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = BackboneSpec(name=name, weights="none")
        net = build_supernet(spec, HeadsSpec(channels=16), make_tasks(), size)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
    return net.eval()


def some_plan(net, seed=0):
    """About 60 % kept, different in every task."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(len(TASKS), len(net.blocks), generator=generator) < 0.6
    return Plan.from_keep(TASKS, [block.name for block in net.blocks], keep.tolist())


@pytest.fixture
def image():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
