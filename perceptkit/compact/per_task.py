"""The compact model of one task alone: its own path through the backbone, its head, and nothing else."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import counted, empty_network, supernet_of
from perceptkit.compact.network import parts
from perceptkit.compact.optimize import optimize_network
from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.compact.whole import WholeNet
from perceptkit.errors import ExportError
from perceptkit.model.cost import table


def single_task(network: Any, manifest: Manifest, task: str) -> tuple[nn.Module, Manifest]:
    """The network and the manifest of one task out of a compact model of several.

    It is arranged as the model of this task alone would be, so that it can be an artifact too.

    Raises:
        ExportError: `network` is of another manifest, every task needs what the others have, or the result computes
            something else.
    """
    refuse_columns(network, manifest)
    narrow = replace(manifest.only([task]), name=f"{manifest.name}_{task}")
    # rows of this task alone: with one task, hard sharing and a net of its own are the same
    narrow = replace(narrow, cost=table(supernet_of(narrow, "hard"), narrow.plan, narrow.size_HW))
    small = empty_network(narrow)
    part = optimize_network(network.only([task]), manifest.optimize)
    if isinstance(part, WholeNet):
        small.load_state_dict(part.state_dict())
    else:
        take_weights(small, part)
    images = probe_images(manifest.size_HW)
    with torch.no_grad():
        refuse_mismatch(
            parity(lambda x: {task: network(x)[task]}, small, images), f"the model of {task} alone"
        )
    return small, counted(narrow, small)


def refuse_columns(network: Any, manifest: Manifest) -> None:
    """Raises ExportError where the model of one task alone would be nearly all of the network."""
    if isinstance(network, WholeNet) and not network.network.takes_one_task:
        raise ExportError(
            f"--per-task: in a model of sharing.method {manifest.method} the trunk of every task reads those of the "
            "others, so none of them stands alone; export it whole"
        )


def take_weights(small: nn.Module, other: nn.Module) -> None:
    """Fills the model of one task from one that computes the same, module by module in the order of their calls.

    Raises ExportError where the two are not arranged alike.
    """
    (ours,), (theirs,) = parts(small), parts(other)
    try:
        for node, source in zip(ours.nodes, theirs.nodes, strict=True):
            if ours.is_merged(f"net.backbone.{node.module}"):  # may be numbered in another order
                module, found = ours.net.backbone.get_submodule(node.module), theirs.net.backbone
                module.load_state_dict(found.get_submodule(source.module).state_dict())
        named = theirs.state_dict()
        ours.load_state_dict({n: named[n] for n in ours.state_dict() if not ours.is_merged(n)}, strict=False)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ExportError(
            "the model of one task alone cannot be taken out: it is arranged in another way"
        ) from error
