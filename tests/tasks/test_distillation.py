"""Losses between two networks' outputs, by hand."""

import math

import pytest
import torch

from perceptkit.tasks.distillation import (
    distillation,
    relative_square,
    sigmoid_distillation,
    softmax_distillation,
)
from tests.model import conftest as dense

P = torch.tensor([[0.9, 0.1]])


def test_softened_cross_entropy_by_hand():
    # at T = 2 probabilities .9, .1 become 3/4, 1/4: their square roots, normalised
    uniform = torch.zeros(1, 2)
    assert softmax_distillation(uniform, P.log(), 2.0).item() == pytest.approx(math.log(2))
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert softmax_distillation(P.log(), P.log(), 2.0).item() == pytest.approx(entropy)


def test_is_least_where_the_answer_is_the_old_one():
    output = P.log().clone().requires_grad_(True)
    softmax_distillation(output, P.log(), 2.0).backward()
    assert output.grad.abs().max() < 1e-6


def test_per_pixel_is_the_mean_over_pixels():
    output, old = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pixels = [softmax_distillation(output[b, :, y, x][None], old[b, :, y, x][None], 2.0)
              for b in range(2) for y in range(4) for x in range(5)]  # fmt: skip
    torch.testing.assert_close(softmax_distillation(output, old, 2.0), torch.stack(pixels).mean())


def test_yes_or_no_is_two_classes():
    output, old = torch.tensor([[0.7]]), torch.tensor([[-1.3]])
    two = [torch.cat([torch.zeros(1, 1), z], 1) for z in (output, old)]
    torch.testing.assert_close(sigmoid_distillation(output, old, 2.0), softmax_distillation(*two, 2.0))


def test_relative_square_by_hand():
    old = torch.tensor([3.0, 4.0])
    assert relative_square(old * 1.1, old).item() == pytest.approx(0.01)
    assert relative_square(1000 * old * 1.1, 1000 * old).item() == pytest.approx(0.01)


def test_each_type_is_compared_in_its_own_way():
    edges, points = dense.make_tasks()["a"], dense.make_tasks()["b"]
    output, old = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    assert distillation(edges, output, old, 2.0) == sigmoid_distillation(output, old, 2.0)
    assert distillation(points, output, old, 2.0) == relative_square(output, old)
