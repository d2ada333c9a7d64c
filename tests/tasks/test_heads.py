"""Heads: shapes and what they are made of."""

import torch
from torch import nn

from perceptkit.tasks.heads import DenseHead, GlobalHead


def test_dense_head_keeps_the_size():
    assert DenseHead(8, 3)(torch.randn(2, 8, 5, 7)).shape == (2, 3, 5, 7)


def test_dense_head_is_conv_norm_relu_conv():
    conv, norm, relu, predict = DenseHead(8, 3).children()
    assert (conv.kernel_size, conv.bias, predict.kernel_size) == ((3, 3), None, (1, 1))
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU)


def test_global_head_is_linear():
    head, feature = GlobalHead(4, 2), torch.randn(3, 4)
    assert torch.equal(head(feature), feature @ head.predict.weight.T + head.predict.bias)
