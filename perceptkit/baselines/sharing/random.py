"""A random plan: as many skipped blocks as a learned one, in random places.

Sun, Panda, Feris, Saenko. *AdaShare.* NeurIPS 2020. https://arxiv.org/abs/1911.12423: the ablation that says whether it
matters which blocks are skipped, or only how many. Two ways to count:

    sharing.skips: n         n pairs (task, block), each set of n pairs with equal probability
    sharing.skips_of: RUN    for every task t as many blocks as t skips in RUN, each set of them with equal probability

Like a learned plan it may drop a block for all tasks, and is trained in the stage `retrain`. Which plan it is follows
from the recipe's seed.

Shapes: K tasks, L blocks.
"""

from collections.abc import Sequence

import torch

from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan


def random_plan(tasks: Sequence[str], blocks: Sequence[str], skips: int, generator: torch.Generator) -> Plan:
    """A plan with `skips` skipped pairs of a task and a block.

    Raises SpecError where there are fewer pairs, or none would be left.
    """
    pairs = len(tasks) * len(blocks)
    if skips >= pairs:
        raise SpecError(
            f"sharing.skips: {skips} would skip everything: {len(tasks)} tasks with {len(blocks)} blocks each are "
            f"{pairs} choices"
        )
    keep_KL = torch.ones(pairs, dtype=torch.bool)
    keep_KL[torch.randperm(pairs, generator=generator)[:skips]] = False
    return Plan.from_keep(tasks, blocks, keep_KL.view(len(tasks), len(blocks)).tolist())


def random_plan_like(plan: Plan, blocks: Sequence[str], generator: torch.Generator) -> Plan:
    """A plan in which every task skips as many of `blocks` as in `plan`.

    Raises SpecError where `plan` is of another number of blocks.
    """
    if len(plan.blocks) != len(blocks):
        raise SpecError(
            f"sharing.skips_of: its policy has {len(plan.blocks)} blocks, this backbone has {len(blocks)}"
        )
    rows = []
    for task in plan.tasks:
        keep_L = torch.tensor(plan.row(task))
        rows.append(keep_L[torch.randperm(len(blocks), generator=generator)].tolist())
    return Plan.from_keep(plan.tasks, blocks, rows)
