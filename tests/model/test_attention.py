"""Attention written out computes the same."""

import copy

import torch

from perceptkit.model.attention import plain_attention
from tests.model.conftest import make_net, some_plan


def test_the_same_numbers(image):
    net = make_net("test_vit")
    plain = plain_attention(copy.deepcopy(net))
    assert all(block.attn.fused_attn for block in net.backbone.blocks)
    assert not any(block.attn.fused_attn for block in plain.backbone.blocks)
    plan = some_plan(net)
    for task, output in plain(image, plan).items():
        torch.testing.assert_close(output, net(image, plan)[task], rtol=1e-5, atol=1e-5)
