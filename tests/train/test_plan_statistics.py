"""What a plan is judged with after soft steps: statistics of what it runs, whatever the search has left."""

import copy
from itertools import islice

import pytest
import torch
from torch import nn

from perceptkit.train import loop, plan_statistics, ranks
from perceptkit.train.loop import end_stage, run_epoch, weight_step
from perceptkit.train.plan_statistics import MOST, is_mixed, statistics_of, take_statistics
from tests.train.test_searching import differ, parts, prepare, statistics  # noqa: F401  # a fixture

DEFAULT: tuple[str, ...] = ()
HARD = ("stages.search.gumbel=straight_through",)
AS_THE_CODE = ("sharing.formulation=reference_code",)


def polluted(training):
    """After a weight step, with statistics that no picture could have given."""
    stage, (weights, _), batch = parts(training)
    weight_step(training, stage, batch, 1e-3, weights)
    with torch.no_grad():
        for name, value in training.supernet.named_buffers():
            if "running" in name:
                value.add_(7.0)
    return statistics(training)


def by_hand(training, plan):
    """Of a copy that runs the plan, hard, in training mode: the average of all batches that there are."""
    network = copy.deepcopy(training.supernet).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    order = training.position.stage * 10_000 + training.position.epoch * 10 + 2
    with torch.no_grad():
        for batch in training.loader(training.train, range(24), train=True, order=order):
            network(batch.image_BCHW, plan)
    return {k: v for k, v in network.backbone.state_dict().items() if "running" in k or "num_batches" in k}


def test_a_plan_is_judged_with_its_own_statistics(prepare):  # noqa: F811
    training = prepare()
    own, plan = polluted(training), training.policy.decide()
    skipped = [k for k in own if k.startswith(training.supernet.blocks[-1].name) and "downsample" not in k]
    assert skipped and not any(plan.row(task)[-1] for task in plan.tasks)
    expected = by_hand(training, plan)
    training.supernet.eval()
    with statistics_of(training, plan):
        assert not training.supernet.training
        inside = statistics(training)
        with statistics_of(training, plan):  # max_drop compares plans while one is judged
            assert differ(inside, statistics(training)) == []
    moved = [k for k in differ(own, inside) if "running" in k]  # what does not run keeps what it had
    assert moved == [k for k in own if "running" in k and k not in skipped]
    for key, value in inside.items():
        assert key in skipped or torch.allclose(value, expected[key])
    assert differ(own, statistics(training)) == []
    assert {m.momentum for m in training.supernet.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_the_search_judges_a_plan_with_them_and_goes_on_with_its_own(prepare, monkeypatch):  # noqa: F811
    training, seen = prepare(), []
    evaluate = loop.evaluate

    def watched(*arguments):
        seen.append(statistics(training))
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "evaluate", watched)
    run_epoch(training, training.recipe.stages[1])
    own = statistics(training)
    with statistics_of(training, training.policy.decide()):
        assert differ(seen[0], statistics(training)) == []
    assert differ(own, seen[0]) != []


def test_what_follows_the_search_begins_with_them(prepare):  # noqa: F811
    training = prepare()
    polluted(training)
    end_stage(training, training.recipe.stages[1])
    expected = by_hand(training, training.plan)
    last = training.supernet.blocks[-1].name
    for key, value in statistics(training).items():
        if not key.startswith(last) or "downsample" in key:
            assert torch.allclose(value, expected[key])


@pytest.mark.parametrize(("changes", "expected"), [(DEFAULT, True), (HARD, False), (AS_THE_CODE, False)])
def test_only_a_soft_search_needs_them(prepare, changes, expected):  # noqa: F811
    training = prepare(*changes)
    assert is_mixed(training.recipe) == expected
    own = polluted(training)
    with statistics_of(training, training.policy.decide()):
        assert bool(differ(own, statistics(training))) == expected


def test_few_pictures_are_enough(prepare, monkeypatch):  # noqa: F811
    training, taken = prepare(), []
    monkeypatch.setattr(plan_statistics, "steps_of_epoch", lambda *_: 10_000)
    batch = next(iter(training.loader(training.train, range(4), train=True)))
    monkeypatch.setattr(
        training, "loader", lambda *_, **__: (taken.append(1) or batch for _ in islice(iter(int, 1), 100))
    )
    monkeypatch.setattr(training.supernet, "forward", lambda *_: None)
    take_statistics(training, training.policy.decide())
    assert len(taken) == MOST


def test_over_ranks_a_norm_without_momentum_averages_its_batches(monkeypatch):
    ours, torchs = nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, momentum=None)
    monkeypatch.setattr(ranks, "all_reduce", lambda sums: sums)
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) + seed
        assert torch.allclose(ranks._normalise_over_ranks(ours, x), torchs(x), atol=1e-6)
    assert torch.allclose(ours.running_mean, torchs.running_mean)
    assert torch.allclose(ours.running_var, torchs.running_var)
    assert ours.num_batches_tracked == torchs.num_batches_tracked == 3
