"""The network of a finished run as it was trained: with all blocks, before anything is made compact."""

from dataclasses import dataclass
from pathlib import Path

from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.errors import ResumeError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.tasks.table import build_tasks
from perceptkit.train import checkpoint
from perceptkit.train.run_folder import read_resolved
from perceptkit.train.session import make_supernet


@dataclass(frozen=True)
class Trained:
    """A network with its weights, its plan, and what it was trained on."""

    network: Supernet | SingleTaskNets
    plan: Plan
    tasks_file: TasksFile
    recipe: Recipe


def read_trained(run: Path) -> Trained:
    """Reads the weights that did best on val.

    Raises SpecError where the run is not finished, was adapted from a base, or has no blocks that a plan skips.
    """
    try:
        tasks_file, recipe = read_resolved(run)
    except ResumeError as error:
        raise SpecError(str(error)) from error
    if not (run / "results.json").is_file():
        raise SpecError(f"{run} is not finished: continue it with `perceptkit train --resume --out {run}`")
    if recipe.adaptation is not None:
        raise SpecError(f"{run} was adapted from another run; look at that one")
    weights = run / "checkpoints/best.pt"
    try:
        state, _ = checkpoint.load(weights)
    except ResumeError as error:
        raise SpecError(f"the weights of {run} are gone or damaged: {weights} cannot be read") from error
    backbone = recipe.backbone.model_copy(update={"weights": "none"})  # the run brings its own
    heads = recipe.heads.model_copy(update={"classifier": "new"})
    bare = recipe.model_copy(update={"backbone": backbone, "heads": heads})
    data = tasks_file.first
    network = make_supernet(bare, build_tasks(tasks_file), data.size, data.mean, data.std)
    if not isinstance(network, Supernet | SingleTaskNets):
        raise SpecError(
            f"{run}: a network of sharing.method {recipe.sharing.method} has no blocks that can be skipped"
        )
    try:
        network.load_state_dict(state["supernet"])
    except RuntimeError as error:
        raise SpecError(f"the weights of {run} do not fit its network") from error
    return Trained(network.eval(), Plan.from_json(state["plan"]), tasks_file, recipe)
