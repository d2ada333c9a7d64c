"""What must hold between the keys of a recipe, and between them and the disk."""

from pathlib import Path
from typing import get_args

from perceptkit.spec.budget import KINDS, budget_stage_fault, kind_fault
from perceptkit.spec.draft import absolute, weights_file
from perceptkit.spec.export import export_faults
from perceptkit.spec.problems import Problem, closest
from perceptkit.spec.recipe import (
    STAGE_ORDER,
    TWO_PRICES,
    LoaderSpec,
    SharingMethod,
    balance_fault,
    batchnorm_fault,
    classifier_fault,
    m_per_class_fault,
    may_be_routed,
    milestones_fault,
    price_fault,
    routing_stage_faults,
    sampler_fault,
    search_fault,
    stage_faults,
    tau_fault,
    wide_fault,
    zoom_fault,
)
from perceptkit.spec.sharing_options import sharing_faults
from perceptkit.spec.templates import shown
from perceptkit.spec.yaml_source import Source


def check_recipe(source: Source, folder: Path) -> list[Problem]:
    """All problems between keys.

    Args:
        source: the file's data; need not be valid.
        folder: where the recipe lies.
    """
    data = source.data if isinstance(source.data, dict) else {}
    return [
        *_sharing(data, source, folder),
        *_stages(data, source),
        *_search(data, source),
        *_tau(data, source),
        *_batchnorm(data, source),
        *_zoom(data, source),
        *_milestones(data, source),
        *_prices(data, source),
        *_routing_stages(data, source),
        *_balance(data, source),
        *_budget(data, source),
        *_m_per_class(data, source),
        *_classifier(data, source),
        *_weights(data, source, folder),
        *_export(data, source),
        *_wide(data, source),
        *_start(data, source, folder),
    ]


def _sharing(data: dict[str, object], source: Source, folder: Path) -> list[Problem]:
    sharing = data.get("sharing")
    if not isinstance(sharing, dict) or sharing.get("method", "adashare") not in get_args(SharingMethod):
        return []  # reported key by key
    faults = sharing_faults(str(sharing.get("method", "adashare")), sharing)
    found = [source.problem(("sharing", key), message) for key, message in faults]
    written = sharing.get("skips_of")
    # start_from brings the plan
    if isinstance(written, str) and data.get("start_from") is None and not faults:
        path = absolute(source, ("sharing", "skips_of"), written, folder)
        if not (path / "policy.json").is_file():
            message = f"{shown(path)} is no finished run: it has no policy.json"
            found.append(source.problem(("sharing", "skips_of"), message))
    return found


def _prices(data: dict[str, object], source: Source) -> list[Problem]:
    routing, stages = data.get("routing"), data.get("stages")
    if not isinstance(routing, dict) or routing.get("max_drop") is None:
        return []
    if routing.get("gamma") is not None:
        return [source.problem(("routing", "max_drop"), TWO_PRICES)]
    found = price_fault(routing["max_drop"], stages if isinstance(stages, list) else [])
    return [source.problem(_path(found[0]), found[1])] if found else []


def _routing_stages(data: dict[str, object], source: Source) -> list[Problem]:
    routing, stages = data.get("routing"), data.get("stages")
    if not isinstance(routing, dict) or not isinstance(stages, list):
        return []
    estimator, parity = str(routing.get("estimator", "reinforce")), routing.get("parity") is True
    faults = routing_stage_faults(stages, estimator, parity)
    return [source.problem(_path(key), message) for key, message in faults]


def _balance(data: dict[str, object], source: Source) -> list[Problem]:
    balance, stages, sharing = data.get("balance"), data.get("stages"), data.get("sharing", {})
    if not isinstance(balance, dict) or not isinstance(stages, list) or not isinstance(sharing, dict):
        return []
    names = [str(stage.get("name")) for stage in stages if isinstance(stage, dict)]
    message = balance_fault(str(balance.get("method")), names, str(sharing.get("method")))
    return [source.problem(("balance", "method"), message)] if message else []


def _budget(data: dict[str, object], source: Source) -> list[Problem]:
    budget, stages = data.get("budget"), data.get("stages")
    if not isinstance(budget, dict):
        return []
    if found := kind_fault(budget):
        return [source.problem(("budget", found[0]), found[1])]
    names = [str(stage.get("name")) for stage in stages or [] if isinstance(stage, dict)]  # type: ignore[attr-defined]
    kind = next(key for key in KINDS if budget.get(key) is not None)
    message = budget_stage_fault(kind, names) if names else ""
    return [source.problem(("budget",), message)] if message else []


def _m_per_class(data: dict[str, object], source: Source) -> list[Problem]:
    loader, stages = data.get("loader"), data.get("stages")
    if not isinstance(loader, dict):
        return []
    default = LoaderSpec.model_fields["batch"].default
    batches = loader.get("batch", default)
    stages = stages if isinstance(stages, list) else []
    by_m = m_per_class_fault(loader.get("m_per_class"), batches, stages)
    found = by_m or sampler_fault(loader.get("sampler"), batches, stages)
    if found is None:
        return []
    path = _path(found[0])
    written = path != ("loader", "batch") or "batch" in loader
    asked = ("loader", "m_per_class" if by_m else "sampler")
    return [source.problem(path if written else asked, found[1])]


def _classifier(data: dict[str, object], source: Source) -> list[Problem]:
    heads, backbone = data.get("heads"), data.get("backbone")
    if not isinstance(heads, dict) or not isinstance(backbone, dict):
        return []
    message = classifier_fault(str(heads.get("classifier")), str(backbone.get("weights")))
    return [source.problem(("heads", "classifier"), message)] if message else []


def _zoom(data: dict[str, object], source: Source) -> list[Problem]:
    augment = data.get("augment")
    zoom = augment.get("zoom") if isinstance(augment, dict) else None
    if isinstance(zoom, list) and (message := zoom_fault(zoom)):
        return [source.problem(("augment", "zoom"), message)]
    return []


def _milestones(data: dict[str, object], source: Source) -> list[Problem]:
    optim = data.get("optim")
    milestones = optim.get("milestones", []) if isinstance(optim, dict) else None
    if not isinstance(optim, dict) or not isinstance(milestones, list):
        return []
    every = optim.get("every")
    message = milestones_fault(optim.get("schedule", "cosine"), milestones, every)
    key = "milestones" if every is None else "every"
    return [source.problem(("optim", key), message)] if message else []


def _stages(data: dict[str, object], source: Source) -> list[Problem]:
    stages = data.get("stages")
    sharing = data.get("sharing", {})
    method = sharing.get("method", "adashare") if isinstance(sharing, dict) else None
    if not isinstance(stages, list) or not stages or method not in get_args(SharingMethod):
        return []  # reported key by key
    names = [str(stage.get("name")) if isinstance(stage, dict) else "" for stage in stages]
    if not set(names) <= set(STAGE_ORDER):
        return []
    found = []
    routing, started = data.get("routing"), data.get("start_from") is not None
    written = routing.get("estimator", "reinforce") if isinstance(routing, dict) else routing
    estimator = None if routing is None else str(written)
    adapted = data.get("adaptation") is not None
    tree = isinstance(sharing, dict) and sharing.get("tree") is not None
    samples = any(bool(stage.get("samples")) for stage in stages if isinstance(stage, dict))
    for key, message in stage_faults(names, str(method), estimator, started, adapted, samples, tree):
        found.append(source.problem(_path(key), message))
    return found


def _batchnorm(data: dict[str, object], source: Source) -> list[Problem]:
    sharing = data.get("sharing")
    if not isinstance(sharing, dict):
        return []
    routed, adapted = data.get("routing") is not None, data.get("adaptation") is not None
    budgeted = data.get("budget") is not None
    message = batchnorm_fault(
        sharing.get("batchnorm"), str(sharing.get("method", "adashare")), routed, adapted, budgeted
    )
    return [source.problem(("sharing", "batchnorm"), message)] if message else []


def _search(data: dict[str, object], source: Source) -> list[Problem]:
    stages = data.get("stages")
    found = []
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and stage.get("name") == "search" and (fault := search_fault(stage)):
            found.append(source.problem(("stages", i, fault[0]), fault[1]))
    return found


def _tau(data: dict[str, object], source: Source) -> list[Problem]:
    stages = data.get("stages")
    found = []
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        tau = stage.get("tau") if isinstance(stage, dict) else None
        if isinstance(tau, list) and stage.get("name") in ("search", "route") and (message := tau_fault(tau)):
            found.append(source.problem(("stages", i, "tau"), message))
    return found


def _export(data: dict[str, object], source: Source) -> list[Problem]:
    exports = data.get("export")
    if not isinstance(exports, list):
        return []
    faults = export_faults(exports, may_be_routed(data))
    return [source.problem(_path(key), message) for key, message in faults]


def _path(key: str) -> tuple[int | str, ...]:
    """`stages.0.name` as a path into the file."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def _start(data: dict[str, object], source: Source, folder: Path) -> list[Problem]:
    written = data.get("start_from")
    if not isinstance(written, str):
        return []
    path = absolute(source, ("start_from",), written, folder)
    if (path / "results.json").is_file():
        return []
    message = f"{shown(path)} is no finished run: it has no results.json"
    return [source.problem(("start_from",), message)]


def _wide(data: dict[str, object], source: Source) -> list[Problem]:
    backbone = data.get("backbone")
    message = wide_fault(backbone.get("wide"), backbone.get("weights")) if isinstance(backbone, dict) else ""
    return [source.problem(("backbone", "wide"), message)] if message else []


def _weights(data: dict[str, object], source: Source, folder: Path) -> list[Problem]:
    backbone = data.get("backbone")
    weights = backbone.get("weights") if isinstance(backbone, dict) else None
    if not isinstance(weights, str) or (path := weights_file(weights, source, folder)) is None:
        return []
    if path.is_file() and path.suffix == ".safetensors":
        return []
    if path.is_file():
        message = f"{shown(path)} is not a .safetensors file; files that can run code are not loaded"
    elif match := closest(weights, ("pretrained", "none")):
        message = f"no such file: {shown(path)}; did you mean '{match}'?"
    else:
        message = f"no such file: {shown(path)}; expected pretrained, none or a safetensors file"
    return [source.problem(("backbone", "weights"), message)]
