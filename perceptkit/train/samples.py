"""Plans drawn from the learned policy, as data: which of them are retrained, and what came of each so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceptkit.model.plan import Plan


@dataclass
class Samples:
    """The distinct plans among those drawn, in the order in which they first came."""

    plans: list[Plan]
    counts: list[int]
    """How often each was drawn."""
    val_losses: list[float]
    """Of each on val, with the weights of the search."""
    queue: list[int]
    """Plans that are retrained, in this order."""
    scores: dict[int, float] = field(default_factory=dict)
    """Best score on val of those that have been retrained."""
    chosen: int | None = None
    """The plan that the run goes on with, when all in the queue have been retrained."""

    @property
    def drawn(self) -> int:
        """How many there are, those alike included."""
        return sum(self.counts)

    def choose(self) -> int:
        """The plan with the best score on val; the first of equals."""
        finite = {i: score for i, score in self.scores.items() if math.isfinite(score)}
        self.chosen = max(finite or self.scores, key=lambda i: (finite.get(i, 0.0), -i))
        return self.chosen

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "plans": [plan.to_json() for plan in self.plans],
            "counts": self.counts,
            "val_losses": self.val_losses,
            "queue": self.queue,
            "scores": self.scores,
            "chosen": self.chosen,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Samples":
        """What `state` gave."""
        return cls(**{**state, "plans": [Plan.from_json(text) for text in state["plans"]]})


def distinct(drawn: Sequence[Plan]) -> tuple[list[Plan], list[int]]:
    """Each plan once, in the order in which they first come, and how often it comes."""
    counts: dict[Plan, int] = {}
    for plan in drawn:
        counts[plan] = counts.get(plan, 0) + 1
    return list(counts), list(counts.values())


def checkpoint_of(run: Path, plan: int) -> Path:
    """The best weights of a retrained plan, as `best.pt` holds those of the run."""
    return run / f"checkpoints/sample_{plan}.pt"
