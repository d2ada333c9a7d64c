"""Every family that the page on backbones lists: gated, it is timm's own model, bit by bit.

The checks are those of tools/backbone_checks.py, on the smallest model of each family; where the smallest is large, a
narrow one is made by timm's own arguments.
"""

import sys
from functools import lru_cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import backbone_checks as checks

SHORT = {"layers": (1, 2, 1, 1)}
NARROW_VIT = {"embed_dim": 48, "depth": 3, "num_heads": 3}
NARROW_CONVIT = {"embed_dim": 16, "depth": 4, "num_heads": 3, "local_up_to_layer": 2, "img_size": 64}
NARROW_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
FAMILIES = {
    # name: (size, (identity, shortcut) blocks, arguments)
    "test_resnet": ((64, 96), (1, 3), {}),
    "resnet18": ((33, 47), (5, 3), {}),
    "resnext50_32x4d": ((32, 32), (1, 4), SHORT),
    "seresnet18": ((32, 32), (5, 3), {}),
    "ecaresnet26t": ((32, 32), (1, 4), SHORT),
    "resnetv2_50": ((32, 32), (1, 0), SHORT),
    "regnetx_002": ((32, 64), (9, 4), {}),
    "regnety_002": ((32, 64), (9, 4), {}),
    "res2net50_14w_8s": ((32, 32), (1, 4), SHORT),
    "skresnet18": ((32, 32), (5, 3), {}),
    "cifar10_resnet20": ((32, 32), (7, 2), {}),
    "test_convnext": ((64, 96), (9, 0), {}),
    "convnextv2_atto": ((32, 32), (12, 0), {}),
    "efficientnet_b0": ((32, 32), (9, 0), {}),
    "tf_efficientnetv2_b0": ((32, 32), (15, 0), {}),
    "tf_efficientnet_lite0": ((33, 47), (9, 0), {}),
    "mobilenetv2_035": ((32, 32), (10, 0), {}),
    "mobilenetv3_small_050": ((64, 64), (7, 0), {}),
    "mobilenetv4_conv_small_035": ((64, 64), (10, 0), {}),
    "mnasnet_small": ((64, 64), (10, 0), {}),
    "fbnetc_100": ((32, 32), (15, 0), {}),
    "ghostnet_050": ((64, 64), (11, 5), {}),
    "test_vit": ((64, 96), (6, 0), {}),
    "deit_tiny_distilled_patch16_224": ((32, 48), (3, 0), NARROW_VIT),
    "deit3_small_patch16_224": ((32, 48), (3, 0), NARROW_VIT),
    "eva02_tiny_patch14_224": ((28, 56), (3, 0), NARROW_VIT),
    "vit_small_patch16_rope_mixed_224": ((32, 48), (3, 0), NARROW_VIT),
    "vit_relpos_small_patch16_224": ((32, 48), (3, 0), NARROW_VIT),
    "beit_base_patch16_224": ((32, 48), (3, 0), NARROW_VIT | {"use_shared_rel_pos_bias": True}),
    "beitv2_base_patch16_224": ((32, 48), (3, 0), NARROW_VIT),
    "swin_tiny_patch4_window7_224": ((64, 64), (5, 0), NARROW_SWIN),
    "swinv2_tiny_window8_256": ((64, 64), (5, 0), NARROW_SWIN),
    "pvt_v2_b0": ((64, 96), (4, 0), {"depths": (1, 1, 1, 1)}),
    "poolformer_s12": ((32, 32), (12, 0), {}),
    "caformer_s18": ((32, 32), (6, 0), {}),
    "hiera_tiny_224": ((64, 96), (3, 0), {"embed_dim": 24, "stages": (1, 2, 2, 1)}),
    "test_maxvit": ((64, 64), (8, 4), {}),
    "test_coatnet": ((64, 64), (1, 4), {}),
    "edgenext_xx_small": ((64, 64), (12, 0), {}),
    "cait_xxs24_224": ((32, 48), (3, 0), NARROW_VIT),
    "xcit_nano_12_p16_224": ((32, 48), (3, 0), NARROW_VIT),
    "naflexvit_base_patch16_gap": ((32, 48), (3, 0), NARROW_VIT),
    "samvit_base_patch16_224": ((32, 48), (3, 0), NARROW_VIT),
    "convit_tiny": (
        (64, 64),
        (3, 0),
        NARROW_CONVIT,
    ),  # the block that takes the class token in changes the shape
    "levit_128s": ((64, 64), (9, 0), {"img_size": 64}),
    "swinv2_cr_tiny_224": ((64, 64), (4, 0), NARROW_SWIN),
    "hieradet_small": ((64, 96), (3, 0), {"embed_dim": 24, "stages": (1, 2, 2, 1)}),
    "vit_tiny_r_s16_p8_224": ((64, 64), (12, 0), {}),
    "efficientformer_l1": (
        (224, 224),
        (15, 0),
        {"embed_dims": (16, 16, 16, 32)},
    ),  # its attention is made for 224
}
EXPORTED = ["eva02_tiny_patch14_224", "pvt_v2_b0", "cifar10_resnet20"]


@lru_cache(maxsize=1)  # tests are sorted by family: each is made once
def made(name):
    size, _, arguments = FAMILIES[name]
    net, reference = checks.networks(name, size, arguments)
    return net, reference, checks.picture(size, batch=1)


FAST = {
    "cifar10_resnet20", "regnety_002", "mobilenetv3_small_050", "test_vit", "eva02_tiny_patch14_224",
    "vit_relpos_small_patch16_224", "beit_base_patch16_224", "pvt_v2_b0", "hiera_tiny_224", "test_maxvit",
    "cait_xxs24_224", "levit_128s",
}  # fmt: skip
"""One of each way to take a trunk apart; the others are slow tests."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES],
    scope="module",
)
class TestFamily:
    @pytest.mark.slow
    def test_blocks(self, name):
        found = checks.blocks(*made(name))
        assert (found["identity"], found["shortcut"]) == FAMILIES[name][1]
        assert 0.1 < found["share"] < 1

    def test_all_keep_equals_timm(self, name):
        assert checks.equal(*made(name))

    def test_skip_equals_timm_without_the_block(self, name):
        assert checks.skip(*made(name))

    @pytest.mark.slow
    def test_keys_and_copies(self, name):
        assert checks.copies(*made(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_export(name):
    size, _, arguments = FAMILIES[name]
    net, reference = checks.networks(name, size, arguments)
    assert checks.exported(net, reference, checks.picture(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in EXPORTED])
def test_export_of_all_others(name):
    size, _, arguments = FAMILIES[name]
    net, reference = checks.networks(name, size, arguments)
    assert checks.exported(net, reference, checks.picture(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "pvt_v2_b0"])
def test_compile(name):
    size, _, arguments = FAMILIES[name]
    net, reference = checks.networks(name, size, arguments)
    assert checks.compiled(net, reference, checks.picture(size))


@pytest.mark.slow
def test_mvit_v2():
    """Its depths are no arguments of timm's, so it is as large as it is."""
    net, reference = checks.networks("mvitv2_tiny", (64, 64))
    image = checks.picture((64, 64), batch=1)
    assert checks.blocks(net, reference, image)["identity"] == 7
    assert checks.equal(net, reference, image) and checks.skip(net, reference, image)
    assert checks.copies(net, reference, image)
