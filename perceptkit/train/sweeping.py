"""Several budgets of one recipe, a run for each. The warm-up knows no budget: it is trained once, and every run goes on
from its checkpoint, with the bits that it would have had by itself."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_fabric import Fabric

from perceptkit.errors import SpecError
from perceptkit.train import run_folder
from perceptkit.train.loop import run_stages
from perceptkit.train.session import Specs, prepare, stop_on_interrupt

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
