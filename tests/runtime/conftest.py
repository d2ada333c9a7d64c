"""A model on disk in each form, and models whose outputs are known."""

import pytest
import torch

from perceptkit.compact import build
from perceptkit.compact.artifact import Manifest
from perceptkit.model.plan import Plan
from perceptkit.runtime.predictor import Predictor
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from tests.compact.conftest import manifest_of, network, plan_of
from tests.data.conftest import make_tasks

SIZE = (64, 64)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """A folder with a model of one task of every type, untrained."""
    folder = tmp_path_factory.mktemp("run") / "artifact"
    net = network()
    build.write_artifact(folder, net, manifest_of(net, plan_of(net, "mixed")))
    return folder


@pytest.fixture
def image():
    """A batch of two normalised pictures."""
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def scripted(forward, *names, **declared):
    """A Predictor that calls `forward` on pixels of 0 to 255, for some of the usual tasks or declared ones."""
    every = make_tasks()
    tasks = {name: every[name] for name in names} | (make_tasks(**declared) if declared else {})
    manifest = Manifest(
        name="scripted",
        backbone=BackboneSpec(name="none"),
        heads=HeadsSpec(),
        tasks=tasks,
        plan=Plan.all_keep(list(tasks), ["block"]),
        method="hard",
        size_HW=SIZE,
        mean=(0, 0, 0),
        std=(1 / 255, 1 / 255, 1 / 255),
        cost={},
        metrics={},
    )
    return Predictor(manifest, forward)
