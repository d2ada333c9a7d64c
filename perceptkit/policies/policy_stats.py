"""What a router does on a set of images, and the ways in which it may have collapsed.

A router that sends every image the same way is a static network with a cost on top, and BlockDrop's often end
there: the report says so, and `foldable` says which blocks need no choice. A choice that none of N images took
has a rate of at most 3/N, with 95 % confidence: the rule of three (Hanley and Lippman-Hand, *If Nothing Goes
Wrong, Is Everything All Right?*, JAMA 1983), from (1 - rate)^N = 0.05 and -log 0.05 = 3.0.

Shapes: N images, R routed blocks (index 0 next to the image).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

SATURATED = 0.02
"""A mean keep probability this near to 0 or 1 is a choice that the router hardly varies any more."""

SATURATED_SHARE = 0.8
"""This part of the blocks saturated is a collapse."""

SAME_FOR_CHECKS = 5
"""One policy for all images over this many evaluations in a row is a collapse."""

NO_SIGNAL = 1e-3
"""Below this mean |advantage| the policy gradient is noise."""

STATIC_SHARE = 0.99
"""One policy for this part of the images is static, if nothing is lost without the others' (`STATIC_DROP`)."""

USUAL_DROP = 0.05
"""What val may lose where nobody says."""

STATIC_DROP = 0.001
"""Part of its quality that a task may lose where a policy of few exceptions becomes static: as many images as the rule
of three lets differ unseen where `IMAGES_TO_FOLD` were alike."""

IMAGES_TO_FOLD = 3000
"""From here on the rule of three bounds the rate of what was never seen by 0.1 %."""


@dataclass(frozen=True)
class Foldable:
    """Indices of the blocks whose choice was the same for every image."""

    kept: tuple[int, ...]
    skipped: tuple[int, ...]


@dataclass(frozen=True)
class PolicyStats:
    """The greedy choices of N images, in numbers."""

    num_images: int
    num_blocks: int
    unique: int
    """Different policies among the images."""
    most_frequent: tuple[bool, ...]
    """The policy of most images, keep by block; of equals, the one that keeps more."""
    most_frequent_share: float
    kept_fraction: float
    """Mean keep over images and blocks."""
    keep_rate: tuple[float, ...]
    """By block: the part of the images that keep it."""
    keep_std: tuple[float, ...]
    """By block: standard deviation of keep over images, 0 where all choose alike, 0.5 at most."""
    mean_prob: tuple[float, ...]
    """By block: mean keep probability, unbounded."""
    foldable: Foldable
    rate_bound: float
    """3/N, at most 1: the rate below which an unseen choice lies with 95 % confidence."""

    @property
    def may_fold(self) -> bool:
        """Whether the images were enough to fold without asking for a tolerance."""
        return self.num_images >= IMAGES_TO_FOLD

    @property
    def is_static(self) -> bool:
        """Whether hardly any image differs from the others."""
        return self.most_frequent_share >= STATIC_SHARE

    def fixed(self, tolerance: float | None = None) -> dict[int, bool]:
        """By block that needs no choice, the choice that stays, 1 or 0.

        Without a tolerance that is what was the same for all images, if these were enough or agree in all blocks.
        With one: where at most this part of the images, in [0, 1), chose otherwise. What that costs must be measured.
        """
        if tolerance is not None:
            most = tolerance + 1e-9  # rates are quotients: 1 - 0.98 is above 0.02
            return {r: v >= 0.5 for r, v in enumerate(self.keep_rate) if min(v, 1 - v) <= most}
        if self.unique > 1 and not self.may_fold:
            return {}
        return dict.fromkeys(self.foldable.kept, True) | dict.fromkeys(self.foldable.skipped, False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, as JSON has them."""
        table = asdict(self)
        table["foldable"] = {key: list(blocks) for key, blocks in table["foldable"].items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}


@dataclass(frozen=True)
class Finding:
    """One sign of collapse: a short code for programs, a message for people."""

    code: str
    message: str


def policy_stats(keep_NR: Tensor, prob_NR: Tensor) -> PolicyStats:
    """Counts what the router chose.

    Args:
        keep_NR: greedy choices, bool.
        prob_NR: their unbounded keep probabilities.

    Raises ValueError when there is no image or no block, or the two tables differ in shape.
    """
    if keep_NR.ndim != 2 or not keep_NR.numel() or keep_NR.shape != prob_NR.shape:
        shapes = f"{tuple(keep_NR.shape)} and {tuple(prob_NR.shape)}"
        raise ValueError(f"keep and probabilities must be tables of one shape, images x blocks, not {shapes}")
    keep_NR, (N, R) = keep_NR.cpu(), keep_NR.shape
    policies, counts = torch.unique(keep_NR, dim=0, return_counts=True)
    rows = [
        (count, sum(row), tuple(row)) for row, count in zip(policies.tolist(), counts.tolist(), strict=True)
    ]
    count, _, most_frequent = max(rows)
    rate_R = keep_NR.double().mean(0)
    return PolicyStats(
        num_images=N,
        num_blocks=R,
        unique=len(rows),
        most_frequent=most_frequent,
        most_frequent_share=count / N,
        kept_fraction=rate_R.mean().item(),
        keep_rate=tuple(rate_R.tolist()),
        keep_std=tuple((rate_R * (1 - rate_R)).sqrt().tolist()),
        mean_prob=tuple(prob_NR.double().mean(0).tolist()),
        foldable=Foldable(_indices(keep_NR.all(0)), _indices(~keep_NR.any(0))),
        rate_bound=min(1.0, 3 / N),
    )


ADVICE = {
    "reinforce": {
        "nothing_skipped": ", or raise routing.alpha, so that a sample leaves out fewer blocks at a "
        "time; `estimator: gumbel` needs fewer epochs.",
        "saturated": "Raise routing.diversity and routing.directions (not with parity), start from a keep "
        "probability (routing.router.keep) of 0.9, open blocks more slowly (speed of `route`), or raise routing.gamma "
        "gradually.",
        "one_policy": "Raise routing.diversity and routing.directions (not with parity), raise routing.entropy, "
        "or use a router with a finer input (router.downscale).",
        "quality": "Raise routing.gamma, lower routing.entropy, or let `finetune` run longer.",
    },
    "gumbel": {
        "nothing_skipped": ", by which the price of a block is divided.",
        "saturated": "Raise routing.diversity and routing.directions, start from a keep probability "
        "(routing.router.keep) nearer to 0.5, or lower the router's learning rate (router_lr, or lr of `route`).",
        "one_policy": "Raise routing.diversity and routing.directions, or use a lower learning rate of the router "
        "(router_lr, or lr of `route`) or a router with a finer input (router.downscale).",
        "quality": "Raise routing.gamma, by which the price of a block is divided, or let `finetune` run longer.",
    },
}
"""What to do, by estimator and finding."""


def collapse_findings(
    stats: PolicyStats,
    unique_before: Sequence[int] = (),
    mean_abs_advantage: float | None = None,
    drops: Mapping[str, float] | None = None,
    max_drop: float | None = None,
    estimator: str = "reinforce",
) -> tuple[Finding, ...]:
    """The signs of collapse that these numbers show, each with what to do; what is not given is not judged.

    Args:
        stats: the latest evaluation.
        unique_before: `stats.unique` of earlier evaluations, oldest first.
        mean_abs_advantage: mean |A| over the images of the last epoch.
        drops: by task, what is lost with the router, in parts or points (0.01 is one).
        max_drop: how much that may be, where it was asked for; 0.05 where not.
        estimator: routing.estimator, whose settings the advice names.
    """
    found, advice = [], ADVICE[estimator]
    if skips_nothing := stats.kept_fraction == 1:
        what = "Lower routing.gamma" if max_drop is None else "Allow more (routing.max_drop)"
        found.append(
            Finding(
                "nothing_skipped",
                f"no image skips any of {stats.num_blocks} blocks: a wrong answer costs more than skipping ever "
                f"earned. {what}{advice['nothing_skipped']}",
            )
        )
    high = sum(p > 1 - SATURATED for p in stats.mean_prob)
    low = sum(p < SATURATED for p in stats.mean_prob)
    if high + low > SATURATED_SHARE * stats.num_blocks and not skips_nothing:
        found.append(
            Finding(
                "saturated",
                f"the router is sure of {high + low} of {stats.num_blocks} blocks whatever the image ({high} keep, "
                f"{low} skip): it hardly explores. {advice['saturated']}",
            )
        )
    recent = [*unique_before, stats.unique][-SAME_FOR_CHECKS:]
    if len(recent) == SAME_FOR_CHECKS and set(recent) == {1} and not skips_nothing:
        found.append(
            Finding(
                "one_policy",
                f"all images have had the same policy for {SAME_FOR_CHECKS} evaluations in a row: more training "
                f"like this changes nothing. {advice['one_policy']}",
            )
        )
    if mean_abs_advantage is not None and mean_abs_advantage < NO_SIGNAL:
        found.append(
            Finding(
                "no_advantage",
                f"sampled choices earn what the greedy one earns (mean |advantage| {mean_abs_advantage:.1e}): there "
                f"is nothing to learn from. Change routing.gamma so that skipping pays or costs, or lower "
                f"routing.alpha.",
            )
        )
    limit = USUAL_DROP if max_drop is None else max_drop
    if too_much := {name: drop for name, drop in (drops or {}).items() if drop > limit}:
        lost = ", ".join(f"{name} {drop:.1%}" for name, drop in too_much.items())
        what = advice["quality"]
        if max_drop is not None:
            what = "Let `route` and `finetune` run longer, or allow more (routing.max_drop)."
        found.append(
            Finding(
                "quality", f"with the router val loses {lost}: more than the {limit:.1%} that it may. {what}"
            )
        )
    if stats.is_static:
        found.append(Finding("static", static_words(stats)))
    return tuple(found)


def static_words(stats: PolicyStats) -> str:
    """That a policy is static; what came of it is said after that."""
    words = (
        f"{stats.most_frequent_share:.2%} of {stats.num_images} images keep the same {sum(stats.most_frequent)} of "
        f"{stats.num_blocks} blocks: the policy is static, and the model has no router any more."
    )
    if stats.unique > 1:
        return words
    return f"{words} (Of images not seen here up to {stats.rate_bound:.2%} would have got another decision.)"


def nearly_static(stats: PolicyStats, drops: Mapping[str, float], tolerance: float) -> Finding:
    """A policy that hardly varies, and a model that loses too much without these few decisions."""
    lost = ", ".join(f"{name} {drop:.2%}" for name, drop in drops.items() if drop > tolerance)
    return Finding(
        "nearly_static",
        f"{stats.most_frequent_share:.2%} of {stats.num_images} images keep the same blocks, but with these for all, "
        f"val loses {lost}, more than the {tolerance:.2%} that it may: the router stays. A larger "
        f"routing.fold_tolerance drops it.",
    )


def unfixed(stats: PolicyStats) -> Finding:
    """Blocks that no image chose otherwise, of too few images to rule out that others would."""
    count = len(stats.foldable.kept) + len(stats.foldable.skipped)
    return Finding(
        "unfixed",
        f"all {stats.num_images} images choose alike in {count} of {stats.num_blocks} blocks, which stay the router's: "
        f"of other images up to {stats.rate_bound:.2%} may choose otherwise, and from {IMAGES_TO_FOLD} images on that "
        f"is little enough. `fold_tolerance: 0.01%` fixes them all the same.",
    )


def unopened(closed: int, num_blocks: int) -> Finding:
    """The stage `route` was over before the curriculum had reached all blocks."""
    return Finding(
        "unopened",
        f"{closed} of {num_blocks} blocks, those next to the image, were never the router's to decide on: route "
        f"ended first. Give it more epochs, or a smaller speed.",
    )


def _indices(mask_R: Tensor) -> tuple[int, ...]:
    return tuple(mask_R.nonzero()[:, 0].tolist())
