"""NDDR: stack, reduce, normalise; it starts as a convex combination."""

import pytest
import torch

from perceptkit import api
from perceptkit.baselines.sharing.nddr import NddrUnit, as_map, from_map
from perceptkit.errors import ExportError
from tests.baselines.sharing.conftest import run_to_the_end


@pytest.mark.parametrize("axis, shape", [(1, (1, 2, 1, 1)), (-1, (1, 1, 2))])
def test_the_equation_by_hand(axis, shape):
    """W_1 [F_1, F_2] with W_1 = (.9 I, .1 I), then (y - mean) / sqrt(var + eps) with mean 1 and var 4."""
    unit = NddrUnit(2, 2, axis).eval()
    for layer in unit.reduce:
        layer[1].running_mean.fill_(1)
        layer[1].running_var.fill_(4 - 1e-5)
    F_1, F_2 = torch.tensor([10.0, 3]).view(shape), torch.tensor([20.0, 4]).view(shape)
    first, second = unit([F_1, F_2])
    assert first.shape == shape
    torch.testing.assert_close(first.flatten(), torch.tensor([(9 + 2 - 1) / 2, (2.7 + 0.4 - 1) / 2]))
    torch.testing.assert_close(second.flatten(), torch.tensor([(1 + 18 - 1) / 2, (0.3 + 3.6 - 1) / 2]))


def test_a_channel_reads_all_channels():
    unit = NddrUnit(2, 2, 1).eval()
    with torch.no_grad():
        unit.reduce[0][0].weight[0, 3] = 1.0  # of task 1, channel 0: channel 1 of task 2
    before = NddrUnit(2, 2, 1).eval()
    F_1, F_2 = torch.zeros(1, 2, 1, 1), torch.tensor([0.0, 5]).view(1, 2, 1, 1)
    assert (unit([F_1, F_2])[0] - before([F_1, F_2])[0])[0, :, 0, 0].tolist() == pytest.approx(
        [5, 0], abs=1e-3
    )


@pytest.mark.parametrize("axis, shape", [(1, (2, 3, 4, 5)), (-1, (2, 7, 3)), (-1, (2, 4, 5, 3))])
def test_maps_and_back(axis, shape):
    x = torch.randn(shape)
    assert as_map(x, axis).shape[:2] == (2, 3) and as_map(x, axis).ndim == 4
    assert torch.equal(from_map(as_map(x, axis), x, axis), x)


@pytest.mark.slow
def test_a_run_and_its_files(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "nddr")
    api.export(run.path, tmp_path / "model.onnx")
    assert set(api.load(tmp_path / "model.onnx").tasks) == set(run.results["tasks"])
    with pytest.raises(ExportError, match="none of them stands alone"):
        api.export(run.path, tmp_path / "each", per_task=True)
    assert list(api.load(run.path, tasks=["room"]).tasks) == ["room"]
