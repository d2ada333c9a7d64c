"""The optimiser of the weights and its learning rate as a function of the step."""

import math
from collections.abc import Mapping

from torch import nn, optim

from perceptkit.spec.adaptation import AdaptationSpec, L2sp, Piggyback, Taps
from perceptkit.spec.recipe import AdaptStage, OptimSpec, Recipe, StageSpec

MASK_LR = 1e-4
"""Of Piggyback's masks with Adam: ten times as much tears the network apart."""
SCORE_LR = 1e-2
"""Of TAPS' scores with Adam, whose steps have the size of the rate: a score starts 0.05 above the threshold, and a
short run has few steps."""


def parameter_groups(
    model: nn.Module, spec: OptimSpec, switch_scales: Mapping[str, float] | None = None
) -> list[dict]:
    """Backbone, units between trunks and rest, each with and without weight decay (norms, biases and the numbers of a
    mixture have none: a pull to zero would make features small).

    `switch_scales` are of the rates of what switches weights on and off, by the last part of a parameter's name: the
    masks of Piggyback, the scores of TAPS.
    """
    switches = dict(switch_scales or {})
    scales = {
        **switches,
        "backbone": spec.backbone_lr_scale,
        "units": getattr(model, "unit_lr_scale", 1.0),
        "rest": 1.0,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "units" if name.startswith("units.") else "backbone" if "backbone." in name else "rest"
        if (last := name.rpartition(".")[2]) in switches:
            part = last
        is_mixture = part == "units" and name.endswith((".alpha", ".beta"))
        groups.setdefault((part, parameter.ndim > 1 and not is_mixture), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": spec.weight_decay if decays else 0.0,
            "lr_scale": scales[part],
        }
        for (part, decays), parameters in groups.items()
    ]


def make_optimizer(
    model: nn.Module, spec: OptimSpec, stage: StageSpec, adaptation: AdaptationSpec | None = None
) -> optim.Optimizer:
    """A fresh optimiser for one train stage; a method of `adaptation` may say otherwise than `spec`."""
    if not isinstance(stage, AdaptStage):
        return _optimizer(parameter_groups(model, spec), spec, stage)
    peak, is_sgd = stage.lr or spec.lr, spec.name == "sgd"
    switch_scales = {}
    if isinstance(adaptation, L2sp):
        spec = spec.model_copy(update={"weight_decay": adaptation.weight_decay})
    elif isinstance(adaptation, Piggyback):
        switch_scales["mask"] = (adaptation.mask_lr or (peak if is_sgd else MASK_LR)) / peak
    elif isinstance(adaptation, Taps):
        switch_scales["score"] = (adaptation.score_lr or (peak if is_sgd else SCORE_LR)) / peak
    return _optimizer(parameter_groups(model, spec, switch_scales), spec, stage)


def router_optimizer(router: nn.Module, recipe: Recipe, stage: StageSpec) -> optim.Optimizer:
    """Of SpotTune's router: the kind that the weights have, with weight decay 1e-3.

    With SGD its rate is a tenth of theirs, as in the authors' code; the steps of Adam have the size of the rate, and a
    tenth of it would learn nothing in a short run.
    """
    peak = stage.lr or recipe.optim.lr
    lr = getattr(recipe.adaptation, "router_lr", None)
    scale = lr / peak if lr is not None else 0.1 if recipe.optim.name == "sgd" else 1.0
    group = {"params": list(router.parameters()), "weight_decay": 1e-3, "lr_scale": scale}
    return _optimizer([group], recipe.optim, stage)


def _optimizer(groups: list[dict], spec: OptimSpec, stage: StageSpec) -> optim.Optimizer:
    lr = stage.lr or spec.lr
    if spec.name == "sgd":
        return optim.SGD(groups, lr=lr, momentum=0.9)
    kind = {"adamw": optim.AdamW, "adam": optim.Adam}[spec.name]
    return kind(groups, lr=lr)


def learning_rate(spec: OptimSpec, stage: StageSpec, stage_step: int, stage_steps: int) -> float:
    """The rate of step `stage_step` of `stage_steps`: 5 % linear warm-up, then by `schedule`."""
    peak, schedule = stage.lr or spec.lr, stage.schedule or spec.schedule
    warmup = max(1, stage_steps // 20)
    if stage_step < warmup:
        return peak * (stage_step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "step":
        passed = sum(stage_step >= epoch * stage_steps / stage.epochs for epoch in spec.milestones)
        if spec.every is not None:
            passed = stage_step // spec.every
        return peak * spec.factor**passed
    progress = (stage_step - warmup) / max(1, stage_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Sets the rate of every group, each by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
