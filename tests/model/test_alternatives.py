"""Models that are named instead of a refused one: they can be gated, and are as large as is said."""

import pytest
import timm
import torch

from perceptkit.model.alternatives import GATEABLE, alternatives, millions
from perceptkit.model.blocks import num_params
from perceptkit.model.survey import survey


@pytest.mark.slow
@pytest.mark.parametrize("name", GATEABLE)
def test_parameters(name):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    assert num_params(model) == GATEABLE[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", GATEABLE)
def test_can_be_gated(name):
    found = survey(name, (64, 64))
    assert found["identity"] >= 4 and found["share"] > 0.4


def test_the_closest_in_size_by_ratio():
    # 11.176512 / 11.0 = 1.016; 11.0 / 10.31343 = 1.067; 12.624388 / 11.0 = 1.148
    assert (
        alternatives(11_000_000) == "resnet18 (11.2 M), regnety_016 (10.3 M) or efficientnetv2_rw_t (12.6 M)"
    )
    assert (
        alternatives(11_000_000, besides="resnet18", count=2)
        == "regnety_016 (10.3 M) or efficientnetv2_rw_t (12.6 M)"
    )
    assert alternatives(0).startswith("starnet_s050 ")
    assert alternatives(10**12).startswith("vit_large_patch16_224 ")


def test_millions():
    assert millions(11_176_512) == "11.2 M" and millions(413_728) == "0.4 M"
