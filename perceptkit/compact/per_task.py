"""The compact model of one task alone: its own path through the backbone, its head, and nothing else."""

from dataclasses import replace

import torch
from torch import nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import empty_network
from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.errors import ExportError
from perceptkit.model.blocks import num_params
from perceptkit.model.cost import measured_macs


def single_task(network: nn.Module, manifest: Manifest, task: str) -> tuple[nn.Module, Manifest]:
    """The network and the manifest of one task out of a compact model of several.

    The network is made anew from the plan of this task alone, and takes its weights from `network` by name.

    Raises:
        ExportError: `network` has not these weights, or the result computes something else.
    """
    cost = {"input": [3, *manifest.size_HW], "rows": {"compact": {}}, "per_task_macs": {}}
    narrow = replace(
        manifest,
        name=f"{manifest.name}_{task}",
        tasks={task: manifest.tasks[task]},
        plan=manifest.plan.only([task]),
        metrics={name: values for name, values in manifest.metrics.items() if name == task},
        cost=cost,
    )
    small, state = empty_network(narrow).eval(), network.state_dict()
    missing = [name for name in small.state_dict() if name not in state]
    if missing:
        raise ExportError(f"the model of {task} alone cannot be taken out: it has no {missing[0]}")
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    images = probe_images(manifest.size_HW)
    with torch.no_grad():
        refuse_mismatch(
            parity(lambda x: {task: network(x)[task]}, small, images), f"the model of {task} alone"
        )
        macs = measured_macs(lambda: small(images[0]))
    cost["rows"] = {"compact": {"params": num_params(small), "macs": macs}}
    cost["per_task_macs"] = {task: macs}
    return small, narrow
