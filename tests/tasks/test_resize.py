"""Outputs at the picture's size."""

import torch

from perceptkit.tasks.resize import resize_output


def test_same_size_is_untouched():
    output = torch.randn(1, 2, 4, 6)
    assert torch.equal(resize_output(output, (4, 6)), output)


def test_bilinear_between_pixel_centres():
    # centres 0 and 1 doubled lie at -0.25, 0.25, 0.75, 1.25; the outer ones repeat the edge
    row = resize_output(torch.tensor([[[[0.0, 4.0]]]]), (1, 4))
    assert row.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_half_precision_becomes_float32():
    assert resize_output(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), (4, 4)).dtype == torch.float32
