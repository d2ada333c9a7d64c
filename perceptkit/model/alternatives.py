"""What to take instead of a backbone that cannot be gated: models that can, by their size."""

from math import log

GATEABLE = {
    "starnet_s050": 413_728,
    "mobilenetv3_small_050": 568_224,
    "edgenext_xx_small": 1_158_216,
    "ghostnet_050": 1_306_292,
    "mobilenetv2_100": 2_223_872,
    "regnety_002": 2_793_996,
    "convnext_atto": 3_374_520,
    "efficientnet_b0": 4_007_548,
    "mobilenetv3_large_100": 4_202_032,
    "vit_tiny_patch16_224": 5_524_416,
    "regnety_016": 10_313_430,
    "resnet18": 11_176_512,
    "efficientnetv2_rw_t": 12_624_388,
    "pvt_v2_b1": 13_496_000,
    "convnext_nano": 14_952_560,
    "resnet34": 21_284_672,
    "vit_small_patch16_224": 21_665_664,
    "resnet50": 23_508_032,
    "swin_tiny_patch4_window7_224": 27_519_354,
    "convnext_tiny": 27_820_128,
    "resnet101": 42_500_160,
    "swin_small_patch4_window7_224": 48_837_258,
    "convnext_small": 49_454_688,
    "vit_base_patch16_224": 85_798_656,
    "swin_base_patch4_window7_224": 86_743_224,
    "convnext_base": 87_566_464,
    "convnext_large": 196_230_336,
    "vit_large_patch16_224": 303_301_632,
}
"""Parameters of timm models without classifier. That each can be gated, and has so many, is tested."""


def alternatives(num_params: int, besides: str = "", count: int = 3) -> str:
    """The gateable models closest in size, as text: `resnet18 (11.2 M), regnety_016 (10.3 M) or ...`.

    Args:
        num_params: of the model that cannot be gated.
        besides: a name that is left out.
        count: how many are named.
    """
    names = [name for name in GATEABLE if name != besides]
    names.sort(key=lambda name: abs(log(GATEABLE[name] / max(num_params, 1))))
    told = [f"{name} ({millions(GATEABLE[name])})" for name in names[:count]]
    return f"{', '.join(told[:-1])} or {told[-1]}"


def millions(num_params: int) -> str:
    """`11.2 M` for 11176512."""
    return f"{num_params / 1e6:.1f} M"
