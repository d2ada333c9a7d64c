"""Dense outputs at the size of the picture they are about."""

from torch import Tensor
from torch.nn import functional as F


def resize_output(output_BCHW: Tensor, size_HW: tuple[int, int]) -> Tensor:
    """float32 (B, C, *size_HW), bilinear between pixel centres; the same values where the size is right."""
    output_BCHW = output_BCHW.float()
    if tuple(output_BCHW.shape[-2:]) == tuple(size_HW):
        return output_BCHW
    return F.interpolate(output_BCHW, size=tuple(size_HW), mode="bilinear", align_corners=False)
