"""A check that cannot fail proves nothing: each is given something that is wrong."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import backbone_checks as checks

SIZE = (32, 32)
NARROW_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}


@pytest.fixture
def made():
    return *checks.networks("test_resnet", SIZE), checks.picture(SIZE)


def test_difference_by_hand():
    assert checks.difference([torch.tensor([1.0, 4.5])], [torch.tensor([1.0, 4.0])]) == 0.125
    good, bad = torch.ones(2), torch.tensor([1.0, math.nan])
    assert math.isnan(checks.difference([good, bad], [good, good]))
    assert math.isnan(checks.difference([bad, good], [good, good]))


def test_the_largest_difference_is_a_number_not_a_text():
    assert checks.within_bound([9.9e-7, 1.1e-6]) == "1.1e-06"
    for wrong in ([0.0, 2e-4], [0.0, math.nan], [math.nan, 0.0]):
        with pytest.raises(checks.Failed, match="bound 1e-04"):
            checks.within_bound(wrong)


def test_other_weights_are_not_equal(made):
    net, reference, image = made
    with torch.no_grad():
        reference.layer2[0].conv1.weight.mul_(1.01)
    with pytest.raises(checks.Failed, match="differs from forward_features"):
        checks.equal(net, reference, image)


def test_maps_that_no_step_gives(made, monkeypatch):
    net, reference, image = made
    monkeypatch.setattr(
        checks, "timm_intermediates", lambda *_: [torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 4, 4)]
    )
    with pytest.raises(checks.Failed, match="0 of 2 maps"):
        checks.equal(net, reference, image)


def test_maps_finer_than_the_neck_reads_do_not_count(made, monkeypatch):
    """resnetv2_50 gives one from inside its stem, of stride 2; one of stride 4 that no step gives is a failure."""
    net, reference, image = made
    maps = [m for m in checks.timm_intermediates(reference, image) if m.shape[2] <= 8]
    monkeypatch.setattr(checks, "timm_intermediates", lambda *_: [torch.zeros(2, 3, 16, 16), *maps])
    assert checks.equal(net, reference, image).startswith(f"features, {len(maps)} of {len(maps)} maps")
    monkeypatch.setattr(checks, "timm_intermediates", lambda *_: [torch.zeros(2, 3, 8, 8), *maps])
    with pytest.raises(checks.Failed, match=f"{len(maps)} of {len(maps) + 1} maps"):
        checks.equal(net, reference, image)


def test_a_block_that_is_not_what_was_removed(made):
    net, reference, image = made
    with torch.no_grad():
        for parameter in net.backbone.layer3[0].downsample.parameters():
            parameter.mul_(1.5)
    with pytest.raises(checks.Failed, match="skipped differs"):
        checks.skip(net, reference, image)


def test_a_block_that_makes_no_difference(made):
    net, reference, image = made
    identity = next(step.name for step in net.steps if step.kind == "identity")
    for model in (net.backbone, reference):
        for parameter in model.get_submodule(identity).parameters():
            parameter.data.zero_()
    with pytest.raises(checks.Failed, match=f"{identity} makes no difference"):
        checks.skip(net, reference, image)


def test_keys_that_timm_does_not_have(made):
    net, reference, image = made
    net.backbone.register_buffer("own", torch.zeros(1))
    with pytest.raises(checks.Failed, match="keys that timm does not have: own"):
        checks.copies(net, reference, image)


@pytest.mark.slow
def test_sizes_are_free_where_nothing_is_made_for_one():
    net, reference = checks.networks("test_resnet", (64, 96))
    assert checks.sizes(net, reference, checks.picture((64, 96))) == "any / 32"
    net, reference = checks.networks("swin_tiny_patch4_window7_224", (64, 64), NARROW_SWIN)
    assert checks.sizes(net, reference, checks.picture((64, 64))) == "own"
