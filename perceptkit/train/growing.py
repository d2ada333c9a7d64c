"""The tree of `sharing.method: fafs`: found when its retraining begins, written down, and read again.

Which pictures are hard is told by val, as all that is chosen is; test is not looked at.
"""

import json
import math
from pathlib import Path

from perceptkit.baselines.sharing.affinity import by_chance, task_affinity
from perceptkit.baselines.sharing.fafs import BRANCH_COST, grow
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.errors import SpecError
from perceptkit.model.task_tree import TaskTree
from perceptkit.train.evaluate import evaluate
from perceptkit.train.ranks import rows_of_all_ranks
from perceptkit.train.run_folder import write_json
from perceptkit.train.training import Training

TREE = "tree.json"


def begin_tree(training: Training) -> None:
    """Parts the tasks by their errors on val, unless the recipe or the run that this one started from says how they
    part; then writes tree.json."""
    net, sharing = training.supernet, training.recipe.sharing
    assert isinstance(net, TreeNet)
    blocks = [block.name for block in net.blocks]
    found = {}
    if sharing.tree is None and training.recipe.start_from is None:
        net.eval()
        batches = training.loader(training.val, range(len(training.val)), train=False)
        on_val = evaluate(
            lambda image: net(image, training.plan), batches, training.tasks, training.fabric.device
        )
        error_NK = 1 - rows_of_all_ranks(on_val.quality_NK).double()
        affinity_KK = task_affinity(error_NK)
        # two tasks that no picture has labels of are as alike as chance has it
        affinity_KK = affinity_KK.where(~affinity_KK.isnan(), by_chance(error_NK)).nan_to_num(0.5)
        halvings = [round(math.log2(net.blocks[-1].stride / block.stride)) for block in net.blocks]
        cost = BRANCH_COST if sharing.branch_cost is None else sharing.branch_cost
        tree, tried = grow(affinity_KK.numpy(), list(training.tasks), halvings, cost)
        net.part(tree)
        found = {
            "split": "val",
            "pictures": len(error_NK),
            "tasks": list(training.tasks),
            "affinity": affinity_KK.tolist(),
            "branch_cost": cost,
            "tried": [
                [{"groups": c.groups, "separation": c.separation, "cost": c.cost} for c in of_block]
                for of_block in tried
            ],
        }
    for line in ["tasks part so (one copy of the blocks for each group):", *net.tree.words(blocks)]:
        training.say(line)
    if training.fabric.global_rank == 0:
        write_json(training.run / TREE, {"blocks": blocks, "levels": net.tree.to_lists(), **found})


def tree_of(run: Path, net: TreeNet) -> TaskTree:
    """The tree that a finished run trained. Raises SpecError where it has none, or one of other tasks or blocks."""
    try:
        levels = json.loads((run / TREE).read_text(encoding="utf-8"))["levels"]
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(f"start_from: {run} has no {TREE} that can be read") from error
    return TaskTree.of(levels, list(net.tasks), len(net.blocks))
