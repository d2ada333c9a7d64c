"""Sluice networks: subspaces, stages and orthogonality, each by hand."""

import json

import pytest
import torch

from perceptkit.baselines.sharing.sluice import SluiceUnit, StageMixture, mix_subspaces, orthogonality
from tests.baselines.sharing.conftest import make, run_to_the_end


@pytest.mark.parametrize("axis, shape", [(1, (1, 4, 1, 1)), (-1, (1, 1, 4))])
def test_subspaces_by_hand(axis, shape):
    """Two tasks, halves (1, 2 | 3, 4) and (5, 6 | 7, 8)."""
    alpha = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0, 0.5], [0.1, 0, 0.9, 0], [0, 0, 2, 1]])
    x_A, x_B = torch.tensor([1.0, 2, 3, 4]).view(shape), torch.tensor([5.0, 6, 7, 8]).view(shape)
    mixed_A, mixed_B = mix_subspaces([x_A, x_B], alpha, axis)
    assert mixed_A.flatten().tolist() == [1, 2, (3 + 7) / 2, (4 + 8) / 2]
    expected = [0.1 * 1 + 0.9 * 5, 0.1 * 2 + 0.9 * 6, 2 * 5 + 7, 2 * 6 + 8]
    assert mixed_B.flatten().tolist() == pytest.approx(expected)


def test_orthogonality_by_hand():
    """Filters (1, 0), (0, 2) in the first half, (3, 0), (1, 1) in the second: products 3, 1, 0, 2."""
    weight = torch.tensor([[1.0, 0], [0, 2], [3, 0], [1, 1]])
    assert orthogonality(weight[:, :, None, None]).item() == 9 + 1 + 0 + 4
    assert orthogonality(torch.eye(4)).item() == 0


def test_stages_by_hand():
    """0.25 h_1 + 0.75 h_2 of one width, h_1 halved in size."""
    mixture = StageMixture([1, 1])
    assert mixture.beta.tolist() == pytest.approx([0.1, 0.9])
    mixture.beta.data = torch.tensor([0.25, 0.75])
    first, last = torch.tensor([[1.0, 3], [5, 7]]).view(1, 1, 2, 2), torch.tensor(8.0).view(1, 1, 1, 1)
    assert mixture([first, last]).item() == pytest.approx(0.25 * (1 + 3 + 5 + 7) / 4 + 0.75 * 8)
    wide = StageMixture([2, 3])
    assert wide.widen[0].weight.shape == (3, 2, 1, 1)
    assert wide([first.expand(1, 2, 2, 2), last.expand(1, 3, 1, 1)]).shape == (1, 3, 1, 1)
    assert StageMixture([4]).beta.tolist() == [1]


def test_it_starts_as_a_convex_combination():
    unit = SluiceUnit(2, 4, 1)
    torch.testing.assert_close(unit.alpha.sum(1), torch.ones(4))
    assert unit.alpha[0].tolist() == pytest.approx([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])


@pytest.mark.parametrize(
    "name, layers",
    [
        ("test_resnet", ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2"]),
        ("seresnet18", ["layer1.1.conv2", "layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2"]),
        ("test_vit", ["blocks.1.mlp.fc2", "blocks.2.mlp.fc2", "blocks.3.mlp.fc2", "blocks.5.mlp.fc2"]),
    ],
)
def test_the_layers_that_write_the_subspaces(name, layers):
    net = make("sluice", name, chosen=("seg",))
    if name == "test_resnet":
        assert [layer.rpartition(".")[0] in {b.name for b in net.blocks} for layer in net.writers] == [
            True
        ] * 4
        assert all(".downsample" not in layer for layer in net.writers)
    else:
        assert net.writers == layers


def test_the_loss_sums_tasks_and_stages():
    net = make("sluice", chosen=("seg", "room"), orthogonality=0.5)
    (loss,) = net.penalties().values()
    by_hand = 0.0
    for column in net.columns():
        for name in net.writers:
            rows = column.backbone.get_submodule(name).weight.flatten(1).tolist()
            half = len(rows) // 2
            by_hand += sum(
                sum(a * b for a, b in zip(first, second, strict=True)) ** 2
                for first in rows[:half]
                for second in rows[half:]
            )
    assert loss.item() == pytest.approx(0.5 * by_hand, rel=1e-4)
    assert make("sluice", chosen=("seg",), orthogonality=0).penalties() == {}


@pytest.mark.slow
def test_a_run(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "sluice", "orthogonality: 0.1")
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    told = [row["orthogonality_loss"] for row in rows if row["kind"] == "train"]
    assert told and told[-1] < told[0]
