"""The feature pyramid: sums from coarse to fine, and a quarter of the input whatever the strides are."""

import pytest
import torch

from perceptkit.model.neck import Neck


def features(channels, sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *hw, generator=generator) for c, hw in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize(
    ("finest", "channels", "sizes", "size_HW"),
    [
        (4, [8, 16, 32], [(16, 24), (8, 12), (4, 6)], (64, 96)),
        (4, [8, 16], [(17, 9), (9, 5)], (66, 35)),  # strides that do not divide the input
        (16, [32], [(4, 6)], (64, 96)),  # a plain ViT
        (16, [32], [(5, 5)], (70, 70)),  # with patches of 14
    ],
)
def test_a_quarter_of_the_input(finest, channels, sizes, size_HW):
    neck = Neck(channels, 12, finest)
    assert neck(features(channels, sizes), size_HW).shape == (2, 12, -(-size_HW[0] // 4), -(-size_HW[1] // 4))


def test_one_level_by_hand():
    neck = Neck([8], 12).eval()
    (x,) = features([8], [(5, 7)])
    assert torch.equal(neck([x], (20, 28)), neck.smooth(neck.norm[0](neck.lateral[0](x))))


def test_a_constant_coarse_map_is_added_everywhere():
    neck = Neck([8, 8], 12).eval()
    fine, coarse = features([8, 8], [(8, 8), (4, 4)])
    coarse = coarse[..., :1, :1].expand(2, 8, 4, 4)
    total = neck.norm[0](neck.lateral[0](fine)) + neck.norm[1](neck.lateral[1](coarse))[..., :1, :1]
    assert torch.allclose(neck([fine, coarse], (32, 32)), neck.smooth(total), atol=1e-6)


def test_every_level_takes_part():
    neck = Neck([8, 8, 8], 12).eval()
    levels = [x.requires_grad_() for x in features([8, 8, 8], [(8, 8), (4, 4), (2, 2)])]
    neck(levels, (32, 32)).sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in levels)
