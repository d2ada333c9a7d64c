"""A base with one task, a domain with another, and steps of training."""

import copy
from functools import cache

import torch
from pydantic import TypeAdapter
from torch import nn

from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Origin, set_train_mode
from perceptkit.model.weights import create_backbone
from perceptkit.spec.adaptation import AdaptationSpec
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.tasks_file import ClassificationSpec
from perceptkit.tasks.classification import Classification

SIZE = (32, 64)
ARGS = {
    "resnet18": {"channels": [16, 32, 64, 128]},
    "resnetv2_18": {"channels": [16, 32, 64, 128]},
    "convnext_atto": {"depths": [1, 1, 1, 1]},
    "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 48},
}
WITH_BATCHNORM = ("test_resnet", "tf_efficientnet_lite0")
PLAIN_VIT = "vit_tiny_patch16_224"


def adaptation(method, **keys):
    """The recipe's section."""
    return TypeAdapter(AdaptationSpec).validate_python({"method": method, **keys})


def classes(name, number):
    labels = [f"{name}{i}" for i in range(number)]
    return {name: Classification(name, ClassificationSpec(type="classification", classes=labels), labels)}


def backbone_spec(name):
    return BackboneSpec(name=name, weights="none", args=ARGS.get(name, {}))


@cache
def _built(name, tasks_key):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tasks = classes("old", 5) if tasks_key == "base" else classes("new", 3)
        net = build_supernet(backbone_spec(name), HeadsSpec(channels=16), tasks, SIZE)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
        if tasks_key != "base":
            net.backbone.load_state_dict(_built(name, "base").backbone.state_dict())
    return net.eval()


def base(name="resnet18"):
    """The trained network: random weights and statistics, none of them 0."""
    return copy.deepcopy(_built(name, "base"))


def domain(name="resnet18"):
    """The network of a new domain: with the base's trunk."""
    return copy.deepcopy(_built(name, "domain"))


def all_keep(net):
    return Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])


def origin(name="resnet18"):
    old = base(name)
    fresh = lambda: create_backbone(backbone_spec(name), SIZE, load=False)  # noqa: E731
    return Origin(fresh, old, all_keep(old))


def begun(method, name="resnet18", **keys):
    """(strategy, net, plan) after `begin`."""
    net = domain(name)
    strategy, plan = build_strategy(adaptation(method, **keys), origin(name)), all_keep(net)
    strategy.begin(net, plan)
    return strategy, net.eval(), plan


def images(batch=2):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def train(strategy, net, plan, steps=2, lr=0.01):
    """Steps of SGD as the loop takes them; in eval mode afterwards."""
    image = images(4)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr)
    set_train_mode(net)
    asked = strategy.asked(plan)
    for _ in range(steps):
        outputs = net(image, asked, asked.tasks)
        loss = sum(task.loss(outputs[name], torch.tensor([0, 1, 2, 0])) for name, task in net.tasks.items())
        penalty = strategy.penalty(net, 0.5, image, outputs)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
    net.eval()


@torch.no_grad()
def disturb(net):
    """Random values in all that learns."""
    generator = torch.Generator().manual_seed(2)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def answer(net, plan):
    return net(images(), plan)["new"]
