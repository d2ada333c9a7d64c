"""The turns of an epoch, and the batches that they take.

All train stages but the search have one turn an epoch: every picture once. In the search the policy sees pictures that
the weights do not, and the two take turns:

    alternate: epochs    all pictures of the weights, then all of the policy
    alternate: steps     w weight steps, p policy steps, and so on, until every picture of the weights had its turn;
                         the policy's pictures go round as often as that takes. Where the last turn of an epoch has
                         fewer weight steps than w, it has as much fewer of the policy

Either way the batches of one kind are a stream of passes over its pictures, each pass in an order of its own, and a
turn goes on where the one of its kind before it ended. Which batch is the i-th follows from the seed alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from perceptkit.data.batch import Batch
from perceptkit.data.loader import split_indices
from perceptkit.spec.recipe import Recipe, RouteStage, SearchStage, StageSpec


@dataclass(frozen=True)
class Turn:
    """Some steps that update either the weights or the policy."""

    updates: str
    """`weights` (with the router, where both are tuned), `policy` or `router`."""
    indices: Sequence[int]
    """Pictures of its stream."""
    steps: int
    first: int
    """Batch of the stream, counted from the stage's beginning, that it begins with."""
    begins: float
    """Epochs of the stage that are done then."""
    ends: float

    def at(self, step: int) -> float:
        """Epochs of the stage that are done before a step of this turn."""
        return self.begins + (self.ends - self.begins) * (step / self.steps)


def turns(stage: StageSpec, num_train: int, whole: int, seed: int, epoch: int = 0) -> list[Turn]:
    """The turns of one epoch.

    Args:
        stage: of the recipe.
        num_train: pictures to train on.
        whole: pictures per step, those of all ranks together.
        seed: decides which pictures are the policy's.
        epoch: of the stage, from 0.
    """
    if not isinstance(stage, SearchStage):
        updates = "router" if isinstance(stage, RouteStage) else "weights"
        steps = num_train // whole
        return [Turn(updates, range(num_train), steps, epoch * steps, epoch, epoch + 1)]
    policy_indices, weight_indices = split_indices(num_train, stage.policy_fraction, seed)
    of_weights, of_policy = len(weight_indices) // whole, len(policy_indices) // whole
    if stage.turn_steps is None:
        return [
            Turn("weights", weight_indices, of_weights, epoch * of_weights, epoch, epoch + 1),
            Turn("policy", policy_indices, of_policy, epoch * of_policy, epoch, epoch + 1),
        ]
    w, p = stage.turn_steps
    count = max(1, math.ceil(of_weights / w))
    last = of_weights - (count - 1) * w
    per_epoch = (count - 1) * p + math.ceil(p * last / w)
    found = []
    for i in range(count):
        begins, ends = epoch + i / count, epoch + (i + 1) / count
        at_w, at_p = i * w, i * p
        steps = min(w, of_weights - at_w)
        found.append(Turn("weights", weight_indices, steps, epoch * of_weights + at_w, begins, ends))
        steps = min(p, per_epoch - at_p)
        found.append(Turn("policy", policy_indices, steps, epoch * per_epoch + at_p, begins, ends))
    return found


def steps_per_epoch(plan_of_turns: Iterable[Turn]) -> dict[str, int]:
    """Steps by what they update."""
    steps: dict[str, int] = {}
    for turn in plan_of_turns:
        steps[turn.updates] = steps.get(turn.updates, 0) + turn.steps
    return steps


def steps_of_epoch(recipe: Recipe, stage: StageSpec, num_train: int, world_size: int) -> int:
    """Steps of any kind."""
    whole = recipe.batch_of(stage) * world_size
    return sum(steps_per_epoch(turns(stage, num_train, whole, recipe.seed)).values())


class Stream:
    """Batches by their place in a stream; taken in order, each pass is opened once.

    Args:
        open_pass: called with a pass and the batch to begin with; gives its batches.
        per_pass: batches of a pass.
    """

    def __init__(self, open_pass: Callable[[int, int], Iterable[Batch]], per_pass: int) -> None:
        self.open_pass, self.per_pass = open_pass, per_pass
        self.upcoming = -1
        self.batches: Iterator[Batch] = iter(())

    def take(self, place: int) -> Batch:
        """The batch at this place, from 0."""
        if place != self.upcoming or place % self.per_pass == 0:
            self.batches = iter(self.open_pass(place // self.per_pass, place % self.per_pass))
        batch = next(self.batches)
        self.upcoming = place + 1
        if self.upcoming % self.per_pass == 0:
            self.batches = iter(())  # or processes that read ahead would wait for the next pass
        return batch
