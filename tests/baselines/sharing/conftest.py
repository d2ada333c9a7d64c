"""Small networks of every method, with random statistics in every norm, and what all of them must do."""

import json

import torch
from torch import nn

from perceptkit import api
from perceptkit.baselines.sharing.table import build_network
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec, SharingSpec
from tests.data.conftest import make_tasks
from tests.train.conftest import fafs_run, levels_run, small_run  # noqa: F401  # fixtures

SIZE = (64, 64)
ARGS = {
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2, "img_size": 64,
    },
}  # fmt: skip
"""That make a backbone small."""
CHOSEN = ("seg", "depth", "room")


def make(method, name="test_resnet", chosen=CHOSEN, size=SIZE, **options):
    """In eval mode, with random weights everywhere; two dense tasks and one that is not by default."""
    tasks = {task: made for task, made in make_tasks().items() if task in chosen}
    sharing = SharingSpec(method=method, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = BackboneSpec(name=name, weights="none", args=ARGS.get(name, {}))
        net = build_network(sharing, backbone, HeadsSpec(channels=16), tasks, size, load=False)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
        for parameter, values in net.named_parameters():
            if parameter.endswith("gamma"):  # layer scale
                values.data.uniform_(0.5, 1.5)
    return net.eval()


def all_kept(net):
    return Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])


def answer(net, image, tasks=None):
    with torch.no_grad():
        return net(image, all_kept(net), tasks)


def noise(batch=2, size=SIZE):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def refuse_another_compact_model(net):
    """Folded, of all tasks and of one, it computes what was trained."""
    small = compact_and_fold(net, all_kept(net), SIZE)
    images = probe_images(SIZE)
    refuse_mismatch(parity(lambda image: answer(net, image), small, images), "folded")
    task = next(iter(net.tasks))
    refuse_mismatch(parity(lambda image: answer(net, image, [task]), small.only([task]), images), "one task")


def run_to_the_end(files, out, method, *options):
    """Trains for two epochs, interrupted by nothing; checks what every run must leave behind, and gives it back."""
    sharing = ", ".join([f"method: {method}", *options])
    changes = [f"sharing={{{sharing}}}", "stages=[{name: retrain, epochs: 2}]", "data.count.train=8"]
    run = api.train(*files, out, overrides=changes, quiet=True)
    assert run.results["method"] == method and set(run.cost["rows"]) == {
        "compact", "hard_shared", "single_task_nets",
    }  # fmt: skip
    assert json.loads((out / "artifact/parity.json").read_text())["ok"]
    model = api.load(run.path)
    assert model.manifest.method == method
    assert set(model.tasks) == set(run.results["tasks"])
    return run
