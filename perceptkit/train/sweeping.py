"""Several budgets of one recipe, a run for each. The warm-up knows no budget: it is trained once, and every run goes on
from its checkpoint, with the bits that it would have had by itself."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric

from perceptkit.errors import SpecError
from perceptkit.train import run_folder
from perceptkit.train.budgeting import too_small
from perceptkit.train.loop import run_stages
from perceptkit.train.session import Specs, budget_of, prepare, stop_on_interrupt

WARMUP = "warmup"
"""The folder of the common warm-up, beside those of the runs."""


def refuse_budgets(budgets: Sequence[float]) -> None:
    """Raises SpecError where these are no budgets to compare."""
    if not budgets or any(not math.isfinite(budget) or budget <= 0 for budget in budgets):
        raise SpecError("--budget-sweep expects numbers above 0, for example 0.4 0.6 0.8 1.0")
    if len(set(budgets)) < len(budgets):
        raise SpecError("--budget-sweep: the same budget is given twice")


def refuse_used(folder: Path, names: Sequence[str], resume: bool) -> None:
    """Raises SpecError where the folder of a new sweep holds anything, or that of one to resume something else."""
    if not resume:
        run_folder.refuse_used(folder)
    elif not any((folder / name).is_dir() for name in (*names, WARMUP)):
        raise SpecError(f"nothing to resume: {folder} holds no sweep with one of {', '.join(names)}")


@dataclass(frozen=True)
class OutOfReach:
    """Budgets of a sweep that no plan can meet, by the name of the run that there will not be."""

    budgets: Mapping[str, float]
    least: float
    """The smallest that one can."""


def out_of_reach(
    declared: Mapping[str, Specs], folder: Path, fabric: Fabric, say: Callable[[str], None]
) -> OutOfReach | None:
    """What cannot be reached of a sweep, before any of it is trained; None where all can.

    Runs that are begun are not judged again: a measured time may have changed since.

    Args:
        declared: by name, all with a budget of one kind for the same network.
        folder: of the sweep.
        fabric: whose first rank measures times for all.
        say: is told of each, with the smallest budget that can be reached.

    Raises SpecError where none can be reached.
    """
    new = {name: specs for name, specs in declared.items() if not (folder / name / "resolved.yaml").is_file()}
    if not new:
        return None
    budget = budget_of(next(iter(new.values())), fabric)
    amounts = {name: specs.recipe.budget.amount for name, specs in new.items() if specs.recipe.budget}
    reasons = {name: too_small(budget, amount) for name, amount in amounts.items()}
    found = {name: amounts[name] for name, reason in reasons.items() if reason}
    if len(found) == len(declared):
        raise SpecError(reasons[max(found, key=lambda name: found[name])])
    for name in sorted(found, key=lambda name: found[name]):
        say(f"{reasons[name]}; the sweep goes on without it")
    return OutOfReach(found, budget.least) if found else None


def share_warmup(specs: Specs, folder: Path, quiet: bool) -> Path | None:
    """Trains the first stage once, if it is a warm-up; a warm-up that was begun goes on.

    Returns:
        Its run folder; None where there is nothing to share.
    """
    if specs.recipe.stages[0].name != "warmup" or specs.recipe.start_from is not None:
        return None
    run = folder / WARMUP
    plain = replace(specs, recipe=specs.recipe.model_copy(update={"budget": None}))
    training = prepare(plain, run, resume=(run / "resolved.yaml").is_file(), quiet=quiet)
    with stop_on_interrupt(training), training.progress:
        run_stages(training, count=1)
    training.fabric.barrier()
    return run


def begin_after(warmup: Path, specs: Specs, run: Path, fabric: Fabric) -> None:
    """Fills the folder of a run as if it had trained this warm-up itself; it is resumed then."""
    if fabric.global_rank == 0:
        run_folder.start(
            run, specs.tasks, specs.recipe, specs.tasks_text, specs.recipe_text, specs.recipe.seed
        )
        (run / "checkpoints").mkdir()
        for name in ("metrics.jsonl", "log.txt", "checkpoints/last.pt"):
            shutil.copyfile(warmup / name, run / name)
    fabric.barrier()
