"""An unlabelled picture changes nothing: not another picture's loss, gradient, quality or metric, in any task type."""

import math

import pytest
import torch
from torch.nn import functional as F

from perceptkit.model.build import build_supernet
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.tasks_file import TASK_SPECS
from perceptkit.tasks.table import TASKS

H = W = 16
NAMES = ["left", "right", "nose"]
TYPES = {
    "segmentation": ({"type": "segmentation", "classes": 4}, ["a", "b", "c", "d"]),
    "segmentation, weighted": (
        {"type": "segmentation", "classes": ["a", "b", "c", "d"], "class_weights": {"b": 3}},
        ["a", "b", "c", "d"],
    ),
    "segmentation, compat": (
        {"type": "segmentation", "classes": 4, "ignore_index": -1, "compat": "adashare"},
        ["a", "b", "c", "d"],
    ),
    "depth": ({"type": "depth"}, []),
    "depth, compat": ({"type": "depth", "compat": "adashare"}, []),
    "depth, log": ({"type": "depth", "log": True}, []),
    "normals": ({"type": "normals"}, []),
    "normals, compat": ({"type": "normals", "encoding": "raw_u8", "compat": "adashare"}, []),
    "edges": ({"type": "edges"}, []),
    "response": ({"type": "response"}, []),
    "keypoints, names": ({"type": "keypoints", "names": NAMES}, NAMES),
    "keypoints, kinds": ({"type": "keypoints", "kinds": ["door", "window"]}, ["door", "window"]),
    "classification": ({"type": "classification"}, ["a", "b", "c"]),
    "classification, weighted": (
        {"type": "classification", "classes": ["a", "b", "c"], "class_weights": {"a": 2}},
        ["a", "b", "c"],
    ),
    "classification, several": ({"type": "classification", "multi_label": True}, ["a", "b", "c"]),
    "embedding": ({"type": "embedding", "dims": 8}, [str(i) for i in range(3)]),
    "embedding, mined": (
        {
            "type": "embedding",
            "dims": 8,
            "loss": {"name": "TripletMarginLoss"},
            "miner": {"name": "BatchHardMiner"},
        },
        [str(i) for i in range(3)],
    ),
    "embedding, proxies": (
        {"type": "embedding", "dims": 8, "loss": {"name": "ProxyAnchorLoss"}},
        [str(i) for i in range(3)],
    ),
}


def make(name):
    spec, labels = TYPES[name]
    return TASKS[spec["type"]](name.split(",")[0], TASK_SPECS[spec["type"]].model_validate(spec), labels)


def random_targets(task, count, draw):
    """Labels with holes: dense ones leave about a third of their pixels unlabelled."""

    def uniform(*shape):
        return torch.rand(*shape, generator=draw)

    def whole(high, *shape):
        return torch.randint(high, shape, generator=draw)

    hole = uniform(count, 1, H, W) < 0.3
    hole[:, :, 0, 0] = False
    match task.type:
        case "segmentation":
            return whole(4, count, H, W).masked_fill(hole[:, 0], -1)
        case "depth":
            return (uniform(count, 1, H, W) * 5 + 0.1).masked_fill(hole, 0)
        case "normals":
            return F.normalize(torch.randn(count, 3, H, W, generator=draw), dim=1).masked_fill(hole, 0)
        case "edges":
            return (uniform(count, 1, H, W) < 0.1).float().masked_fill(hole, -1)
        case "response":
            return (uniform(count, 1, H, W) * 2 - 1).masked_fill(hole, -2)
        case "classification" if task.spec.multi_label:
            return whole(2, count, 3).float()
        case "classification" | "embedding":
            return whole(3, count)
    target = torch.stack([torch.as_tensor(task.missing((H, W))) for _ in range(count)])
    if not task.has_names:
        target[:] = torch.tensor([0.0, 0.0, -1.0])
    points = min(3, target.shape[1])
    target[:, :points, :2] = uniform(count, points, 2) * (W - 1)
    target[:, :points, 2] = whole(2, count, points).float() + (1 if task.has_names else 0)
    return target


def random_outputs(task, count, draw):
    if task.dense:
        size = (H, W) if task.upsample else (H // 4, W // 4)
        return torch.randn(count, task.out_channels, *size, generator=draw)
    output = torch.randn(count, task.out_channels, generator=draw)
    return F.normalize(output, dim=1) if task.type == "embedding" else output


def padded(task, output, target, draw):
    """The same batch among unlabelled pictures, in an order of chance; and where its own pictures are then."""
    extra = int(torch.randint(1, 5, (), generator=draw))
    wild = random_outputs(task, extra, draw) * (1 if task.type == "embedding" else 50)
    absent = torch.stack([torch.as_tensor(task.missing((H, W)), dtype=target.dtype)] * extra)
    order = torch.randperm(len(output) + extra, generator=draw)
    place = torch.argsort(order)[: len(output)]
    place_in_order = torch.sort(place).values  # the pictures keep their own order
    with_absent = torch.zeros(len(output) + extra, *output.shape[1:])
    targets = torch.zeros(len(output) + extra, *target.shape[1:], dtype=target.dtype)
    others = torch.tensor([i for i in range(len(with_absent)) if i not in place_in_order])
    with_absent[place_in_order], with_absent[others] = output, wild
    targets[place_in_order], targets[others] = target, absent
    return with_absent, targets, place_in_order, others


def gradient(task, output, target):
    output = output.clone().requires_grad_()
    loss = task.loss(output, target)
    loss.backward()
    return loss.item(), output.grad


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("seed", range(3))
def test_unlabelled_pictures_change_no_loss(name, seed):
    task, draw = make(name), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    task.begin_loss()
    count = int(torch.randint(2, 7, (), generator=draw))
    output, target = random_outputs(task, count, draw), random_targets(task, count, draw)
    loss, grad = gradient(task, output, target)
    more, targets, place, others = padded(task, output, target, draw)
    assert not task.is_labelled(targets[others]).any() and task.is_labelled(targets[place]).all()
    loss_more, grad_more = gradient(task, more, targets)
    assert loss_more == pytest.approx(loss, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(grad_more[place], grad, rtol=1e-5, atol=1e-7)
    assert not grad_more[others].any()


@pytest.mark.parametrize("name", TYPES)
def test_unlabelled_pictures_change_no_metric_and_no_quality(name):
    task, draw = make(name), torch.Generator().manual_seed(5)
    output, target = random_outputs(task, 6, draw), random_targets(task, 6, draw)
    more, targets, place, others = padded(task, output, target, draw)
    quality = task.quality(more, targets)
    torch.testing.assert_close(quality[place], task.quality(output, target), equal_nan=True)
    assert quality[others].isnan().all()
    alone, together = task.metric(), task.metric()
    alone.update(output, target)
    together.update(more[others], targets[others])  # a batch of nothing but such pictures
    together.update(more, targets)
    assert computed(together) == computed(alone)
    assert all(not math.isnan(value) for value in computed(alone).values())


def computed(metric):
    return {key: round(float(value), 5) for key, value in metric.compute().items()}


@pytest.mark.parametrize("name", TYPES)
def test_a_batch_without_a_label_has_no_loss_and_no_gradient(name):
    task, draw = make(name), torch.Generator().manual_seed(1)
    output, target = random_outputs(task, 3, draw), random_targets(task, 3, draw)
    more, targets, _, others = padded(task, output, target, draw)
    loss, grad = gradient(task, more[others] * 100, targets[others])
    assert grad.isfinite().all() and not grad.any()
    assert math.isfinite(loss) and (task.type == "embedding" or loss == 0)
    empty = task.loss(output[:0], target[:0])
    assert math.isfinite(empty.item()) and empty == 0


ONE_OF_EACH = ("segmentation", "depth", "normals", "edges", "response", "keypoints, names", "classification",
               "embedding")  # fmt: skip


def test_through_a_network_whose_norms_are_frozen():
    """A picture that is unlabelled for all tasks, with a network that takes its norms' statistics as they are."""
    tasks = {task.type: task for task in map(make, ONE_OF_EACH)}
    draw = torch.Generator().manual_seed(2)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = build_supernet(
            BackboneSpec(name="resnet10t", weights="none"), HeadsSpec(channels=8), tasks, (H, W)
        ).eval()
        for task in tasks.values():
            task.begin_loss()
    keep = {name: [True] * len(net.blocks) for name in tasks}
    image = torch.randn(4, 3, H, W, generator=draw)
    targets = {name: random_targets(task, 3, draw) for name, task in tasks.items()}

    def run(count):
        net.zero_grad()
        outputs, losses = net(image[:count], keep), {}
        for name, task in tasks.items():
            target = targets[name]
            if count == 4:
                missing = torch.as_tensor(task.missing((H, W)), dtype=target.dtype)
                target = torch.cat([target, missing[None]])
            losses[name] = task.loss(outputs[name].float(), target)
        sum(losses.values()).backward()
        grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        return {name: loss.item() for name, loss in losses.items()}, grads

    losses, grads = run(3)
    with_one_more, grads_with_it = run(4)
    assert with_one_more == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert grads.keys() == grads_with_it.keys() and any(grad.any() for grad in grads.values())
    for name, grad in grads.items():
        torch.testing.assert_close(
            grads_with_it[name], grad, rtol=1e-3, atol=1e-5 * float(grad.abs().max()) + 1e-7
        )
