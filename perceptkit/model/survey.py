"""What can be gated in a backbone, by its name alone: no task, no weights, nothing downloaded."""

from typing import Any

import torch
from timm.data import resolve_data_config

from perceptkit.model.cost import backbone_facts
from perceptkit.model.supernet import Supernet
from perceptkit.model.weights import create_backbone, own_size
from perceptkit.spec.recipe import BackboneSpec


def survey(name: str, size_HW: tuple[int, int] | None = None) -> dict[str, Any]:
    """`backbone_facts` of a timm model with random weights.

    Args:
        name: one of `backbone_names()`.
        size_HW: input in pixels; None for the model's own.

    Raises:
        SpecError: the backbone cannot be made or gated, and why.
    """
    size = size_HW or own_size(name)
    with torch.random.fork_rng(devices=[]):
        model = create_backbone(BackboneSpec(name=name, weights="none"), size)
        norm = resolve_data_config(model=model)
        return backbone_facts(Supernet(model, {}, 1, size, norm["mean"], norm["std"]), size)


def as_row(name: str, facts: dict[str, Any], width: int = 0) -> str:
    """One line of text; names are padded to `width`."""
    strides, channels = (" ".join(map(str, facts[key])) for key in ("strides", "channels"))
    return (
        f"{name:<{width}}  {facts['identity']:3} identity  {facts['shortcut']:2} shortcut  "
        f"{facts['share']:5.1%} of MACs  strides {strides:<9}  channels {channels}"
    )
