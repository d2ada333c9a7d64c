"""Random deletion: the same random blocks are missing from the network for all images, without retraining.

Veit, Wilber, Belongie. *Residual Networks Behave Like Ensembles of Relatively Shallow Networks.* NIPS 2016.
https://arxiv.org/abs/1605.06431. There the number of deleted modules is given and every module is counted
alike; here the cost to keep is given, and blocks are deleted in random order down to it.

Shapes: N images, R routed blocks (index 0 next to the image).
"""

import torch
from torch import Tensor


def random_drop(num_images: int, cost_R: Tensor, usage: float, generator: torch.Generator) -> Tensor:
    """One draw: keep as bool (N, R), all rows equal; of all prefixes of a random order the nearest in cost.

    One network has one cost: it is met within half a block, with equal costs by k = round(usage R) blocks.
    Several draws, with the same generator, show the spread.

    Args:
        num_images: N.
        cost_R: cost by block, above 0, any unit.
        usage: the part of the total cost to keep, in [0, 1].
        generator: on the CPU.

    Raises ValueError for a usage outside [0, 1].
    """
    if not 0 <= usage <= 1:
        raise ValueError(f"usage is a part of the full cost, in [0, 1], not {usage:g}")
    order_R = torch.randperm(len(cost_R), generator=generator)
    kept_cost = torch.cat([torch.zeros(1, dtype=torch.float64), cost_R[order_R].double().cumsum(0)])
    k = int((kept_cost - usage * kept_cost[-1]).abs().argmin())
    keep_R = torch.zeros(len(cost_R), dtype=torch.bool)
    keep_R[order_R[:k]] = True
    return keep_R.expand(num_images, -1).clone()
