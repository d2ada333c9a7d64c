"""FirstK, RandomK, DistK and the most frequent policy: skipping by rule, at a router's mean cost.

The first three are the comparisons of BlockDrop (Wu, Nagarajan et al., CVPR 2018,
https://arxiv.org/abs/1711.08393; not in the authors' code, so the rules are ours). The fourth is the honest
one: a static network that the router itself points to.

Usage is the part of the routed blocks' total cost that is paid, a mean over images. A mean between k and k + 1
blocks is met by giving some images k and the rest k + 1. All randomness is the generator's; all tensors are on the CPU.

Shapes: N images, R routed blocks (index 0 next to the image). Every function gives keep as bool (N, R).
"""

import torch
from torch import Tensor


def first_k(num_images: int, cost_R: Tensor, usage: float, generator: torch.Generator) -> Tensor:
    """FirstK: the k blocks next to the image. The mean usage is met within half a block of one image.

    Args:
        num_images: N.
        cost_R: cost by block, above 0, any unit.
        usage: the mean to meet, in [0, 1].
        generator: says which images have k + 1 blocks.

    Raises ValueError for a usage outside [0, 1].
    """
    _check(usage)
    share_R = cost_R.double() / cost_R.double().sum()
    reached = torch.cat([torch.zeros(1, dtype=torch.float64), share_R.cumsum(0)])  # usage of k = 0..R blocks
    k = min(int((reached <= usage).sum()) - 1, len(cost_R) - 1)
    num_more = round(num_images * min(1.0, (usage - reached[k].item()) / share_R[k].item()))
    more_N = torch.randperm(num_images, generator=generator) < num_more
    return torch.arange(len(cost_R)) < (k + more_N.long())[:, None]


def random_k(num_images: int, cost_R: Tensor, usage: float, generator: torch.Generator) -> Tensor:
    """RandomK: k random blocks per image, every set of k equally likely; arguments and errors as in `first_k`.

    Sets are drawn in groups of R images that keep each block equally often. So the mean usage is met whatever
    the blocks cost, up to one incomplete group; with equal costs within half a block of one image.
    """
    _check(usage)
    num_routed = len(cost_R)
    k = int(usage * num_routed)
    num_more = round(num_images * (usage * num_routed - k))
    keep_NR = torch.cat(
        [
            _random_sets(num_images - num_more, num_routed, k, generator),
            _random_sets(num_more, num_routed, k + 1, generator),
        ]
    )
    return keep_NR[torch.randperm(num_images, generator=generator)]


def dist_k(num_images: int, keep_rate_R: Tensor, generator: torch.Generator) -> Tensor:
    """DistK: every block is kept by the part of the images that the router keeps it for, at random.

    Each block's images are drawn without regard to the other blocks, and their number is exact up to rounding:
    the mean usage is the router's, for any cost of the blocks.
    """
    order_NR = torch.rand(num_images, len(keep_rate_R), generator=generator).argsort(0)
    # what is left of a picture is a matter of chance: in small batches, rounding would never keep what is rare
    chance_R = torch.rand(len(keep_rate_R), generator=generator, dtype=torch.float64)
    return order_NR < (keep_rate_R.double() * num_images + chance_R).floor()


def most_frequent(num_images: int, policy_R: Tensor) -> Tensor:
    """The policy that most images have (`PolicyStats.most_frequent`), for all. Its usage is its own, not the mean."""
    return policy_R.bool().expand(num_images, -1).clone()


def _random_sets(num_sets: int, num_routed: int, k: int, generator: torch.Generator) -> Tensor:
    """`num_sets` random sets of k blocks: all cyclic windows of one random order, then of the next."""
    num_groups = -(-num_sets // num_routed)
    place_GR = torch.rand(num_groups, num_routed, generator=generator).argsort(1)
    window_R1 = torch.arange(num_routed)[:, None]
    keep_GRR = (place_GR[:, None] + window_R1) % num_routed < k
    return keep_GRR.flatten(0, 1)[:num_sets]


def _check(usage: float) -> None:
    if not 0 <= usage <= 1:
        raise ValueError(f"usage is a part of the full cost, in [0, 1], not {usage:g}")
