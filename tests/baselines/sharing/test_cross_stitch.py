"""Cross-stitch units: the paper's equation, on maps and on tokens."""

import pytest
import torch

from perceptkit.baselines.sharing.cross_stitch import CrossStitchUnit, cross_stitch
from tests.baselines.sharing.conftest import run_to_the_end


@pytest.mark.parametrize("axis, shape", [(1, (1, 2, 1, 1)), (-1, (1, 1, 2)), (-1, (1, 1, 1, 2))])
def test_the_equation_by_hand(axis, shape):
    """Channel 0: a = [[.9, .1], [.2, .8]]; channel 1: a = [[1, 0], [0, 1]]."""
    alpha_TTC = torch.tensor([[[0.9, 1], [0.1, 0]], [[0.2, 0], [0.8, 1]]])
    x_A, x_B = torch.tensor([10.0, 3]).view(shape), torch.tensor([20.0, 4]).view(shape)
    mixed_A, mixed_B = cross_stitch([x_A, x_B], alpha_TTC, axis)
    torch.testing.assert_close(mixed_A.flatten(), torch.tensor([0.9 * 10 + 0.1 * 20, 3]))
    torch.testing.assert_close(mixed_B.flatten(), torch.tensor([0.2 * 10 + 0.8 * 20, 4]))
    assert mixed_A.shape == shape


def test_it_starts_as_a_convex_combination():
    unit = CrossStitchUnit(3, 4, 1)
    assert unit.alpha.shape == (3, 3, 4)
    torch.testing.assert_close(unit.alpha.sum(1), torch.ones(3, 4))
    torch.testing.assert_close(unit.alpha[0, 0], torch.full((4,), 0.9))
    same = torch.randn(2, 4, 3, 3)
    for mixed in unit([same, same, same]):
        torch.testing.assert_close(mixed, same)


@pytest.mark.slow
def test_a_run(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "cross_stitch", "unit_lr_scale: 5")
    rows = run.cost["rows"]
    assert rows["compact"]["params"] > rows["single_task_nets"]["params"]
