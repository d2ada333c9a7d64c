"""The base's tasks on the base's test split, before and after adapting: the key `old_domain` of adaptation.json.

The base itself is stored beside what the domain adds, and answers as ever: this is what would be forgotten without it.
The base's pictures are normalised as the base expects them, where the domain has a mean and std of its own too: a trunk
that was not changed has forgotten nothing.

    before, after    metrics by task; `after` is null, and `why` says why, where the base's test split cannot be read
    tasks            {task: {"primary", "info"}}: how to read the metrics
    size             of the base's pictures
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.baselines.adaptation.lwf import OLD, as_normalised_for
from perceptkit.data.sources import open_split
from perceptkit.errors import DataError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.train.evaluate import evaluate
from perceptkit.train.run_folder import read_resolved
from perceptkit.train.start_from import base_of
from perceptkit.train.training import Training


@dataclass(frozen=True)
class OldHeads:
    """Heads of the base's tasks that learned while the trunk did (LwF's); none for most methods."""

    by_task: Mapping[str, nn.Module]
    neck: nn.Module | None
    """What dense ones of them read."""


def learned_heads(net: Supernet) -> OldHeads:
    """Copies of the old heads in `net`, before it is folded."""
    heads = {
        name.removeprefix(OLD): copy.deepcopy(net.heads[head_key(name)])
        for name in net.guests
        if name.startswith(OLD)
    }
    return OldHeads(heads, copy.deepcopy(net.neck) if heads else None)


def answering_as_base(adapted: Supernet, base: Supernet, learned: OldHeads) -> Supernet:
    """A copy of the adapted network with the base's tasks: with the heads that learned, where there are any.

    Dense heads read the neck that learned with them, or the base's: a neck is trained and stored with the heads, so a
    domain's own is nothing that the base's heads would ever read.
    """
    old = copy.deepcopy(adapted)
    old.tasks, old.heads = base.tasks, copy.deepcopy(base.heads)
    for name, head in learned.by_task.items():
        old.heads[head_key(name)] = copy.deepcopy(head)
    old.neck = copy.deepcopy(learned.neck if learned.neck is not None else base.neck)  # type: ignore[assignment]
    return old


@torch.no_grad()
def look_back(training: Training, learned: OldHeads) -> dict[str, Any] | None:
    """What adaptation.json says of the old domain; None where there is no base run."""
    recipe, adapted = training.recipe, training.supernet
    assert isinstance(adapted, Supernet)
    if recipe.start_from is None:
        return None
    run = Path(recipe.start_from)
    tasks_file, _ = read_resolved(run)
    base, plan = base_of(run, recipe)
    tasks = base.tasks
    old = answering_as_base(adapted, base, learned).to(training.fabric.device)
    old_plan = replace(plan, dual=_common(plan, training.plan))

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        image_BCHW = as_normalised_for(base, adapted, image_BCHW)
        keep_BR = None
        if training.routing is not None:
            names = training.plan.dual
            columns = [names.index(block) for block in old_plan.dual]
            keep_BR = training.routing.keep(image_BCHW)[:, columns]
        outputs: dict[str, Tensor] = old(image_BCHW, old_plan, keep_BR=keep_BR)
        return outputs

    loaded = json.loads((run / "results.json").read_text(encoding="utf-8"))["tasks"]
    found: dict[str, Any] = {
        "before": {name: task["metrics"] for name, task in loaded.items()},
        "tasks": {name: {key: task[key] for key in ("primary", "info")} for name, task in loaded.items()},
    }
    try:
        test = open_split(tasks_file, tasks, "test")
        old.eval()
        batches = training.loader(test, range(len(test)), train=False, tasks=tasks)
        after = evaluate(forward, batches, tasks, training.fabric.device)
    except DataError as error:
        return {**found, "after": None, "why": str(error)}
    return {**found, "after": after.metrics, "size": list(tasks_file.first.size)}


def _common(old: Plan, new: Plan) -> tuple[str, ...]:
    kept = {block for block, is_kept in zip(old.blocks, old.kept_by_any(), strict=True) if is_kept}
    return tuple(block for block in new.dual if block in kept)
