"""The Python surface, and the one thing of it that no other test file covers: `pk.build`."""

import pytest
import torch
from torch import nn

import perceptkit as pk
from perceptkit import api

TINY = [
    "data.size=[32, 32]",
    "backbone={name: resnet18, weights: none, args: {channels: [8, 8, 16, 16]}}",
    "heads.channels=8",
]


def test_all_names():
    verbs = {
        "adapt",
        "add_domain",
        "benchmark",
        "build",
        "check",
        "compare",
        "decathlon_score",
        "describe",
        "domains",
        "evaluate",
        "export",
        "index",
        "load",
        "remove_domain",
        "report",
        "summary",
        "sweep_budgets",
        "train",
    }
    assert set(pk.__all__) == verbs
    assert set(api.__all__) == verbs | {"PerceptkitError", "Run"}


def test_names_are_those_of_the_api():
    for name in pk.__all__:
        assert getattr(pk, name) is getattr(api, name)
        assert getattr(pk, name).__doc__
    assert set(pk.__all__) <= set(dir(pk))


def test_a_verb_outlives_the_subpackage_of_its_name():
    from perceptkit.report import tables

    assert pk.report is api.report and tables.__name__ == "perceptkit.report.tables"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        pk.trian  # noqa: B018


@pytest.mark.parametrize("recipe", ["quickstart", "single"])
def test_build_gives_a_plain_module(recipe):
    net = pk.build("scenes", recipe, TINY)
    assert isinstance(net, nn.Module)
    output = net.eval()(torch.zeros(2, 3, 32, 32))
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        "seg": (2, 8, 32, 32),
        "depth": (2, 1, 32, 32),
        "normals": (2, 3, 32, 32),
        "keypoints": (2, 10, 8, 8),
        "edges": (2, 1, 32, 32),
        "room": (2, 4),
    }
    output["depth"].sum().backward()
    assert next(net.parameters()).grad is not None or recipe == "single"


def test_build_is_the_same_for_the_same_seed():
    first, second, other = (pk.build("scenes", "hard", [*TINY, f"seed={seed}"]) for seed in (1, 1, 2))
    for one, same in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, same)
    weights = [next(net.parameters()) for net in (first, other)]
    assert not torch.equal(*weights)


def test_errors_can_be_caught_as_one():
    with pytest.raises(api.PerceptkitError):
        pk.check("nothing.yaml")
