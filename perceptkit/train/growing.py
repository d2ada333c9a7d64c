"""The tree of `sharing.method: fafs`: found when its retraining begins or, with `sharing.level_epochs`, level by level
in its course; written down, and read again.

Which pictures are hard is told by val, as all that is chosen is; test is not looked at.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from perceptkit.baselines.sharing.affinity import by_chance, task_affinity
from perceptkit.baselines.sharing.fafs import BRANCH_COST, grow_level
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.errors import SpecError
from perceptkit.model.task_tree import TaskTree
from perceptkit.spec.recipe import StageSpec
from perceptkit.train.evaluate import evaluate
from perceptkit.train.ranks import rows_of_all_ranks
from perceptkit.train.run_folder import write_json
from perceptkit.train.training import Training

TREE = "tree.json"


def begin_tree(training: Training) -> None:
    """Parts the tasks by their errors on val, unless the recipe or the run that this one started from says how they
    part; then writes tree.json. With `sharing.level_epochs` only the last level is decided."""
    sharing = training.recipe.sharing
    finds = sharing.tree is None and training.recipe.start_from is None
    if finds and sharing.level_epochs is not None:
        _grow(training, done=0, count=1, tried=[])
    elif finds:
        _grow(training, done=0, count=len(training.supernet.blocks), tried=[])
    else:
        _write(training, {})


def grow_further(training: Training, stage: StageSpec) -> None:
    """Before an epoch of the retraining: decides the next level where it is time; what is left before the last epochs.

    The optimiser begins anew, since there are new copies, and so does the search for the best epoch.
    """
    sharing, position, net = training.recipe.sharing, training.position, training.supernet
    every, num_blocks = sharing.level_epochs, len(net.blocks)
    is_new_epoch = position.epoch > 0 and position.turn == 0 and position.batch == 0
    if stage.name != "retrain" or every is None or training.recipe.start_from is not None or not is_new_epoch:
        return
    done, rest = divmod(position.epoch, every)
    if rest or done >= num_blocks:
        return
    assert isinstance(net, TreeNet)
    if len(net.tree.levels[num_blocks - done]) == 1:  # all that is below is shared
        return
    is_last = position.epoch + every >= stage.epochs
    tried = json.loads((training.run / TREE).read_text(encoding="utf-8"))["tried"]
    _grow(training, done, num_blocks - done if is_last else 1, tried[num_blocks - done :])
    training.best_score = float("-inf")
    training.begin_stage_optimizers(stage)


def _grow(training: Training, done: int, count: int, tried: list[object]) -> None:
    """Decides so many levels by the errors of now, below `done` of them, whose candidates are given."""
    net, sharing = training.supernet, training.recipe.sharing
    assert isinstance(net, TreeNet)
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
    tree = net.tree
    for level in range(done, done + count):
        tree, found = grow_level(tree, level, affinity_KK.numpy(), list(training.tasks), halvings, cost)
        rows = [{"groups": c.groups, "separation": c.separation, "cost": c.cost} for c in found]
        tried = [rows, *tried]
    net.part(tree)
    undecided: list[object] = [[]] * (len(net.blocks) - done - count)
    _write(
        training,
        {
            "split": "val",
            "pictures": len(error_NK),
            "tasks": list(training.tasks),
            "affinity": affinity_KK.tolist(),
            "branch_cost": cost,
            "tried": [*undecided, *tried],
        },
    )


def _write(training: Training, found: Mapping[str, object]) -> None:
    """tree.json, and the same in words."""
    net = training.supernet
    assert isinstance(net, TreeNet)
    blocks = [block.name for block in net.blocks]
    for line in ["tasks part so (one copy of the blocks for each group):", *net.tree.words(blocks)]:
        training.say(line)
    training.fabric.barrier()  # all have read what is there
    if training.fabric.global_rank == 0:
        write_json(training.run / TREE, {"blocks": blocks, "levels": net.tree.to_lists(), **found})


def tree_of(run: Path, net: TreeNet) -> TaskTree:
    """The tree that a finished run trained. Raises SpecError where it has none, or one of other tasks or blocks."""
    try:
        levels = json.loads((run / TREE).read_text(encoding="utf-8"))["levels"]
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(f"start_from: {run} has no {TREE} that can be read") from error
    return TaskTree.of(levels, list(net.tasks), len(net.blocks))
