"""A run that begins where another one ended: with its weights and its plan.

So one network, trained once, is routed for several budgets: `start_from: runs/mine` and the stages `route` and
`finetune`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.baselines.sharing.single import Network
from perceptkit.errors import ResumeError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import Recipe
from perceptkit.tasks.base import Task
from perceptkit.train import checkpoint
from perceptkit.train.run_folder import changed_keys, read_resolved


def start_from(run: Path, recipe: Recipe, tasks: Mapping[str, Task], network: Network) -> Plan:
    """Puts the best weights of a finished run into `network`. Returns its plan.

    Raises SpecError where the run is not finished, has a router, or is of another network or other tasks.
    """
    try:
        _, theirs = read_resolved(run)
        state, _ = checkpoint.load(run / "checkpoints/best.pt")
    except ResumeError as error:
        raise SpecError(f"start_from: {error}") from error
    if changes := changed_keys(_identity(theirs), _identity(recipe)):
        listed = "\n".join(f"  {line}" for line in changes)
        raise SpecError(f"start_from: {run} is of another network:\n{listed}\nNothing was started.")
    plan = Plan.from_json(state["plan"])
    if state["routing"] is not None:
        raise SpecError(f"start_from: {run} has a router; give the run that it began with")
    if list(plan.tasks) != list(tasks):
        raise SpecError(
            f"start_from: {run} has the tasks {', '.join(plan.tasks)}; here they are {', '.join(tasks)}"
        )
    try:
        network.load_state_dict(state["supernet"])
    except RuntimeError as error:
        raise SpecError(f"start_from: the weights of {run} do not fit this network") from error
    return plan


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What says which network it is, not how it is trained."""
    return {
        "backbone": {"name": recipe.backbone.name, "args": recipe.backbone.args},
        "heads": {"channels": recipe.heads.channels},
        "sharing": {"method": recipe.sharing.method},
    }
