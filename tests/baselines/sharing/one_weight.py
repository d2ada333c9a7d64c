"""A trunk with one weight and two tasks, so that every gradient of a step can be worked out by hand.

The feature is f = (1 + w) s with s the picture's mean; w = 1 and s = 1, so f = 2. Task `a` has logits (log 3, 0), so
probabilities (3/4, 1/4), task `b` has (0, log 7) and (1/8, 7/8); the label of both is class 0. lambda is 2 and 1.

    dL_a/df = (3/4 - 1) log(3)/2 = -log(3)/8        dL_b/df = 7/8 log(7)/2 = 7 log(7)/16        df/dw = s = 1
"""

import math

import torch
from torch import Tensor, nn

from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.spec.tasks_file import ClassificationSpec
from perceptkit.tasks.classification import Classification

SIZE = (32, 32)
MAP = 8 * 8
"""Pixels of a feature map."""
WEIGHTS = {"a": 2.0, "b": 1.0}
"""lambda."""
HEADS = {"a": (math.log(3) / 2, 0.0), "b": (0.0, math.log(7) / 2)}
"""From the one feature to a logit for each class."""
GRADIENTS = {"a": -math.log(3) / 8, "b": 7 * math.log(7) / 16}
"""dL_k/dw."""


class Stem(nn.Module):
    def forward(self, image_BCHW: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image_BCHW[:, :1], 4)


class Block(nn.Module):
    """x + w x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Trunk(nn.Module):
    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = Stem(), Block()

    def forward_features(self, image_BCHW: Tensor) -> Tensor:
        return self.block(self.stem(image_BCHW))


def make_tasks(*names: str) -> dict[str, Classification]:
    spec = {"type": "classification", "classes": ["no", "yes"]}
    return {
        name: Classification(name, ClassificationSpec(weight=WEIGHTS[name], **spec), ["no", "yes"])
        for name in names
    }


def make_net(*names: str) -> Supernet:
    """With the header's weights, of these tasks."""
    net = Supernet(Trunk(), make_tasks(*names), 1, SIZE, (0.0,) * 3, (1.0,) * 3)
    with torch.no_grad():
        net.backbone.block.conv.weight.fill_(1)
        for name in names:
            head = net.heads[head_key(name)].predict
            head.weight.copy_(torch.tensor(HEADS[name])[:, None])
            head.bias.zero_()
    return net


def losses_of(net: nn.Module) -> dict[str, Tensor]:
    """Of each task, on one picture."""
    plan = Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])
    outputs = net(torch.ones(1, 3, *SIZE), plan)
    return {name: task.loss(outputs[name], torch.zeros(1).long()) for name, task in net.tasks.items()}
