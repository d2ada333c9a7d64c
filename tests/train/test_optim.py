"""Learning rates and parameter groups."""

import pytest
import torch
from torch import nn

from perceptkit.spec.adaptation import L2sp, Piggyback, Taps
from perceptkit.spec.recipe import AdaptStage, OptimSpec, RetrainStage
from perceptkit.train import optim

STAGE = RetrainStage(name="retrain", epochs=1)
ADAPT = AdaptStage(name="adapt", epochs=1)


def test_cosine_by_hand():
    spec = OptimSpec(lr=1.0)
    rate = [optim.learning_rate(spec, STAGE, step, 100) for step in range(100)]
    assert rate[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # 5 % of 100 steps
    assert rate[5] == 1.0 and rate[99] < 1e-3
    middle = 5 + 95 // 2
    assert rate[middle] == pytest.approx(0.5, abs=0.02)


def test_constant_and_stage_override():
    spec = OptimSpec(lr=1.0, schedule="constant")
    stage = RetrainStage(name="retrain", epochs=1, lr=0.25)
    assert optim.learning_rate(spec, stage, 60, 100) == 0.25


def test_steps_fall_at_their_epochs():
    spec = OptimSpec(lr=0.1, schedule="step", milestones=[40, 60, 80])
    stage, per_epoch = RetrainStage(name="retrain", epochs=110), 7
    first = {e: optim.learning_rate(spec, stage, e * per_epoch, 110 * per_epoch) for e in range(110)}
    last = {e: optim.learning_rate(spec, stage, (e + 1) * per_epoch - 1, 110 * per_epoch) for e in range(110)}
    assert [first[e] for e in (6, 39, 40, 59, 60, 79, 80, 109)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    )
    assert all(first[e] == last[e] for e in range(6, 110))


def test_falling_every_so_many_steps():
    spec = OptimSpec(lr=0.8, schedule="step", every=30, factor=0.5)
    rate = [optim.learning_rate(spec, STAGE, step, 100) for step in (29, 30, 59, 60, 90)]
    assert rate == pytest.approx([0.8, 0.4, 0.4, 0.2, 0.1])
    stage = RetrainStage(name="retrain", epochs=1, schedule="constant")
    assert optim.learning_rate(spec, stage, 90, 100) == 0.8


class Masked(nn.Module):
    """A trunk with one mask, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv = nn.Linear(2, 2, bias=False)
        self.backbone.mask = nn.Parameter(torch.zeros(2, 2))
        self.head = nn.Linear(2, 2, bias=False)


def rates(made, model):
    names = {id(p): name for name, p in model.named_parameters()}
    peak = 1e-3
    return {names[id(p)]: peak * g["lr_scale"] for g in made.param_groups for p in g["params"]}


@pytest.mark.parametrize(
    ("keys", "optimiser", "expected"),
    [
        ({}, "adamw", 1e-4),
        ({"mask_lr": 5e-4}, "adamw", 5e-4),
        ({}, "sgd", 1e-3),
        ({"mask_lr": 1e-4}, "sgd", 1e-4),
    ],
)
def test_masks_have_a_rate_of_their_own(keys, optimiser, expected):
    model, spec = Masked(), OptimSpec(name=optimiser, lr=1e-3)
    made = optim.make_optimizer(model, spec, ADAPT, Piggyback(method="piggyback", **keys))
    found = rates(made, model)
    assert found["backbone.mask"] == pytest.approx(expected)
    assert found["backbone.conv.weight"] == found["head.weight"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("keys", "optimiser", "expected"),
    [
        ({}, "adamw", 1e-2),
        ({"score_lr": 5e-3}, "adamw", 5e-3),
        ({}, "sgd", 1e-3),
        ({"score_lr": 1e-2}, "sgd", 1e-2),
    ],
)
def test_scores_have_a_rate_of_their_own(keys, optimiser, expected):
    model, spec = Masked(), OptimSpec(name=optimiser, lr=1e-3, backbone_lr_scale=0.1)
    model.backbone.score = nn.Parameter(torch.tensor(0.15))
    made = optim.make_optimizer(model, spec, ADAPT, Taps(method="taps", **keys))
    found = rates(made, model)
    assert found["backbone.score"] == pytest.approx(expected)
    assert found["backbone.mask"] == found["backbone.conv.weight"] == pytest.approx(1e-4)
    assert [g["weight_decay"] for g in made.param_groups if g["params"][0] is model.backbone.score] == [0.0]


@pytest.mark.parametrize(
    ("stage", "keys", "decay"), [("adapt", {}, 0), ("adapt", {"weight_decay": 0.5}, 0.5), ("", {}, 0.1)]
)
def test_l2sp_decays_to_zero_only_if_its_section_says_so(stage, keys, decay):
    spec = OptimSpec(weight_decay=0.1)
    made = optim.make_optimizer(Masked(), spec, ADAPT if stage else STAGE, L2sp(method="l2sp", **keys))
    assert {group["weight_decay"] for group in made.param_groups} == {decay}


@pytest.mark.parametrize(
    "keys",
    [
        {"schedule": "step"},
        {"milestones": [4]},
        {"schedule": "step", "milestones": [4, 4]},
        {"every": 4},
        {"schedule": "step", "milestones": [4], "every": 4},
    ],
)
def test_milestones_that_fit_nothing(keys):
    with pytest.raises(ValueError, match="milestones|step|rising"):
        OptimSpec(**keys)


def test_norms_and_biases_have_no_weight_decay():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    spec = OptimSpec(weight_decay=0.1, backbone_lr_scale=0.5)
    groups = optim.parameter_groups(model, spec)
    table = {(g["lr_scale"], g["weight_decay"]): len(g["params"]) for g in groups}
    assert table == {(0.5, 0.1): 1, (0.5, 0.0): 1, (1.0, 0.1): 1, (1.0, 0.0): 1}
    optimizer = optim.make_optimizer(model, spec, STAGE)
    optim.set_learning_rate(optimizer, 1.0)
    assert sorted({g["lr"] for g in optimizer.param_groups}) == [0.5, 1.0]
