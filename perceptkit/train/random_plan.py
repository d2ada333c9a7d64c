"""The plan of `sharing.method: random`, from what the recipe says."""

from collections.abc import Sequence
from pathlib import Path

import torch

from perceptkit.baselines.sharing.random import random_plan, random_plan_like
from perceptkit.errors import PlanError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import Recipe


def drawn_plan(recipe: Recipe, tasks: Sequence[str], blocks: Sequence[str]) -> Plan:
    """The plan that is trained: the same for the same seed.

    Raises SpecError where there are not so many blocks, or no run to count in.
    """
    sharing, generator = recipe.sharing, torch.Generator().manual_seed(recipe.seed)
    if sharing.skips_of is not None:
        return random_plan_like(_counted(Path(sharing.skips_of), tasks), blocks, generator)
    assert sharing.skips is not None
    return random_plan(tasks, blocks, sharing.skips, generator)


def _counted(run: Path, tasks: Sequence[str]) -> Plan:
    """The plan of a finished run."""
    try:
        plan = Plan.from_json((run / "policy.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"sharing.skips_of: {run} is no finished run: it has no policy.json") from error
    except PlanError as error:
        raise SpecError(f"sharing.skips_of: {run / 'policy.json'}: {error}") from error
    if missing := [task for task in tasks if task not in plan.tasks]:
        known = ", ".join(plan.tasks)
        raise SpecError(f"sharing.skips_of: the policy of {run} has no {', '.join(missing)}; it has {known}")
    return plan.only(tasks)
