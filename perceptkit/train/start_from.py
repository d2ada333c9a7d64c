"""A run that begins where another one ended: with its weights and its plan.

So one network, trained once, is routed for several budgets (`start_from: runs/mine` and the stages `route` and
`finetune`), or adapted to several domains (`adaptation`), whose tasks may be others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.baselines.sharing.table import Network
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.errors import ResumeError, SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Choice, Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.spec.recipe import Recipe
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import build_tasks
from perceptkit.train import checkpoint
from perceptkit.train.growing import tree_of
from perceptkit.train.run_folder import changed_keys, read_base, read_resolved


def find_base(run: Path, recipe: Recipe) -> Path:
    """The run that `run` started from: where the recipe says, or if it was moved where it lay seen from `run`.

    Raises SpecError where neither is a run.
    """
    assert recipe.start_from is not None
    stated = Path(recipe.start_from)
    beside = read_base(run)[0] if (run / "resolved.yaml").is_file() else None
    for path in (stated, beside):
        if path is not None and (path / "resolved.yaml").is_file():
            return path
    raise SpecError(f"start_from: {stated} holds no run: base moved? --set start_from=PATH")


def start_from(run: Path, recipe: Recipe, tasks: Mapping[str, Task], network: Network) -> Plan:
    """Puts the best weights of a finished run into `network`. Returns its plan.

    Raises SpecError where the run is not finished, has a router, or is of another network or other tasks.
    """
    state, plan = _best_of(run, recipe)
    if list(plan.tasks) != list(tasks):
        raise SpecError(
            f"start_from: {run} has the tasks {', '.join(plan.tasks)}; here they are {', '.join(tasks)}"
        )
    if isinstance(network, TreeNet) and recipe.sharing.method == "fafs" and recipe.sharing.tree is None:
        network.part(tree_of(run, network))
    _load(run, network, state)
    return plan


def base_of(run: Path, recipe: Recipe) -> tuple[Supernet, Plan]:
    """The network of a finished run as it was trained, with its own tasks and weights, and its plan.

    Raises SpecError where the run is not finished, has a router, was itself adapted, or is of another network.
    """
    tasks_file, theirs = _specs_of(run)
    if not (run / "results.json").is_file():
        raise SpecError(
            f"start_from: {run} is not finished: continue it with `perceptkit train --resume --out {run}`"
        )
    if theirs.adaptation is not None:
        raise SpecError(f"start_from: {run} was itself adapted; adapt the run that it started from")
    state, plan = _best_of(run, recipe)
    tasks = build_tasks(tasks_file)
    data = tasks_file.first
    base = build_supernet(recipe.backbone, recipe.heads, tasks, data.size, False, data.mean, data.std)
    _load(run, base, state)
    return base.eval(), plan


def transferred(base: Supernet, network: Supernet) -> tuple[str, ...]:
    """Tasks of `network` whose heads `start_as_base` takes from the base: of the same name and type, with as many
    outputs that are called the same, in the same order: those of as many other classes answer another question."""
    return tuple(
        name
        for name, task in network.tasks.items()
        if (old := base.tasks.get(name)) is not None
        and (old.type, old.out_channels, old.labels) == (task.type, task.out_channels, task.labels)
    )


def start_as_base(base: Supernet, plan: Plan, network: Supernet) -> Plan:
    """Puts the weights of a base into the network of other tasks, in place.

    The trunk is the base's; so is the neck, where both have one, and the heads of the tasks that are `transferred`. A
    task of the same name and type keeps the blocks that it keeps in the base; a new one those that any task keeps.

    Returns:
        The plan of the new tasks.

    Raises:
        SpecError: the trunk is of another structure: that of pictures of another size, for example.
    """
    try:
        network.backbone.load_state_dict(base.backbone.state_dict())
    except RuntimeError as error:
        raise SpecError(
            "start_from: the base's weights do not fit a network for pictures of this size"
        ) from error
    if network.neck is not None and base.neck is not None:
        network.neck.load_state_dict(base.neck.state_dict())
    any_task: tuple[Choice, ...] = tuple("keep" if kept else "skip" for kept in plan.kept_by_any())
    for name in transferred(base, network):
        network.heads[head_key(name)].load_state_dict(base.heads[head_key(name)].state_dict())
    rows = []
    for name, task in network.tasks.items():
        old = base.tasks.get(name)
        if old is not None and old.type == task.type:
            rows.append(plan.table[plan.tasks.index(name)])
        else:
            rows.append(any_task)
    return Plan(tuple(network.tasks), plan.blocks, tuple(rows))


def _best_of(run: Path, recipe: Recipe) -> tuple[Mapping[str, Any], Plan]:
    """The best weights of a finished run of the recipe's network, and its plan."""
    _, theirs = _specs_of(run)
    try:
        state, _ = checkpoint.load(run / "checkpoints/best.pt")
    except ResumeError as error:
        raise SpecError(f"start_from: {error}") from error
    if changes := changed_keys(_identity(theirs), _identity(recipe)):
        listed = "\n".join(f"  {line}" for line in changes)
        raise SpecError(f"start_from: {run} is of another network:\n{listed}\nNothing was started.")
    if state["routing"] is not None:
        raise SpecError(f"start_from: {run} has a router; give the run that it began with")
    return state["supernet"], Plan.from_json(state["plan"])


def _specs_of(run: Path) -> Any:
    try:
        return read_resolved(run)
    except ResumeError as error:
        raise SpecError(f"start_from: {error}") from error


def _load(run: Path, network: Network, state: Mapping[str, Any]) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise SpecError(f"start_from: the weights of {run} do not fit this network") from error


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What says which network it is, not how it is trained."""
    return {
        "backbone": {"name": recipe.backbone.name, "args": recipe.backbone.args},
        "heads": {"channels": recipe.heads.channels},
        "sharing": {"method": recipe.sharing.method, "batchnorm": recipe.sharing.batchnorm},
    }
