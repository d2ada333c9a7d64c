"""Stochastic depth: blocks survive as often as the rule says, and on average nothing changes."""

import pytest
import torch

from perceptkit.baselines.sharing.stochastic_depth import draw, survival
from perceptkit.model.gates import mix
from tests.baselines.sharing.conftest import all_kept, make, noise, run_to_the_end

CPU = torch.device("cpu")


def test_survival_by_hand():
    """p_l = 1 - l/4 (1 - 0.5)"""
    assert survival(4, 0.5).tolist() == [0.875, 0.75, 0.625, 0.5]
    assert survival(3, 1.0).tolist() == [1, 1, 1]


def test_blocks_survive_as_often_as_they_should():
    generator, p_L = torch.Generator().manual_seed(0), survival(4, 0.5)
    rows = [draw(p_L, generator, CPU) for _ in range(2000)]
    kept_L = torch.tensor([[choice is not False for choice in row] for row in rows]).double().mean(0)
    assert ((kept_L - p_L).abs() < 4 * (p_L * (1 - p_L) / 2000).sqrt()).all()
    assert {round(choice.item(), 6) for row in rows for choice in row[3:] if choice is not False} == {2.0}


def test_on_average_a_block_is_what_it_is():
    """E[S + b/p (F - S)] = F: with p = 0.625, S = 1, F = 3: 0.625 * (1 + 1.6 * 2) + 0.375 * 1 = 3"""
    scale = torch.tensor([1 / 0.625])
    kept = mix(torch.tensor([[1.0]]), torch.tensor([[3.0]]), scale)
    assert kept.item() == pytest.approx(4.2) and 0.625 * kept.item() + 0.375 * 1 == pytest.approx(3)


def test_what_surely_survives_is_plain():
    assert draw(survival(3, 1.0), torch.Generator(), CPU) == [True, True, True]


def test_tasks_go_one_way_together_and_a_dropped_block_does_not_run():
    net = make("stochastic_depth")
    calls = {block.name: 0 for block in net.blocks}
    for name in calls:
        module = net.backbone.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    row = [True, torch.tensor([1.5]), False, torch.tensor([2.0])]
    with torch.no_grad():
        net(noise(), dict.fromkeys(net.tasks, row))
    assert list(calls.values()) == [1, 1, 0, 1]


@pytest.mark.slow
def test_a_run(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "stochastic_depth", "survival: 0.4")
    rows = run.cost["rows"]
    assert rows["compact"] == rows["hard_shared"] and all_kept(make("hard")).kept_fraction() == 1
