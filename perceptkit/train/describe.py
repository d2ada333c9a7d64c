"""`perceptkit describe`: what would be trained, before anything is.

    describe_specs(tasks_file, recipe) -> plain data        as_text(that) -> what the command prints

Weights are not loaded and pictures are not opened: parameters, MACs and memory follow from the shapes, counts
of labels from files that exist and from rows of CSV and JSON files.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from perceptkit.baselines.sharing.table import Network, build_network
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.data.cache import bytes_of_sample, in_bytes
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.spec.check_files import check_files
from perceptkit.spec.load import LoadedTasks
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.tasks.base import Task
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.depth import Depth
from perceptkit.tasks.embedding import Embedding
from perceptkit.tasks.keypoints import Keypoints
from perceptkit.tasks.table import build_tasks
from perceptkit.train import memory
from perceptkit.train.run_folder import resolved

LOSSES = {
    "segmentation": "cross-entropy over labelled pixels",
    "depth": "L1 over valid pixels",
    "depth, log": "L1 on logarithms over valid pixels",
    "normals": "1 - cosine over valid pixels",
    "keypoints, names": "binary cross-entropy of heat maps and of visibility",
    "keypoints, kinds": "focal loss on heat maps",
    "edges": "class-balanced binary cross-entropy",
    "response": "L1 over labelled pixels",
    "classification": "cross-entropy",
    "classification, several": "binary cross-entropy, averaged over classes",
}


def describe_specs(tasks_file: TasksFile, recipe: Recipe) -> dict[str, Any]:
    """What `as_text` prints, as plain data that is JSON.

    Raises:
        SpecError: the backbone cannot be made or gated.
        DataError: labels are missing or cannot be read.
    """
    report = check_files(LoadedTasks(tasks_file, Path(), ""), sample=0)
    report.raise_problems()
    tasks = build_tasks(tasks_file)
    size_HW = tasks_file.first.size
    with torch.random.fork_rng(devices=[]):
        network = random_network(recipe, tasks, size_HW)
        network.train()
        net = one_net(network)
        blocks = [
            {"name": block.name, "kind": block.kind, "stride": block.stride, "channels": block.channels}
            for block in network.blocks
        ]
        plan = Plan.all_keep(list(tasks), [block.name for block in network.blocks])
        table = cost.table(network, plan, size_HW)
        return {
            **resolved(tasks_file, recipe),
            "tasks": {name: describe_task(task, network) for name, task in tasks.items()},
            "blocks": blocks,
            "backbone": {"name": recipe.backbone.name, **cost.backbone_facts(net, size_HW)},
            "cost": {
                "input": table["input"],
                "rows": {
                    "supernet": table["rows"]["compact"],
                    "hard_shared": table["rows"]["hard_shared"],
                    "single_task_nets": table["rows"]["single_task_nets"],
                    **router_row(recipe, len(blocks), size_HW),
                },
            },
            **tree_words(recipe, network),
            "memory": memory.estimate(network, tasks, recipe, size_HW),
            "decoded_bytes": bytes_of_sample(tasks, size_HW),
            "data": {
                split: {"images": counts.images, "labels": counts.labels}
                for split, counts in report.splits.items()
            },
        }


def tree_words(recipe: Recipe, network: Network) -> dict[str, list[str]]:
    """How tasks part, where they do so in a tree; empty where they do not."""
    if recipe.sharing.method != "fafs" or not isinstance(network, TreeNet):
        return {}
    if recipe.sharing.tree is None:
        return {"tree": ["found after warm-up, when retrain begins; the cost is that of the warm-up"]}
    return {"tree": network.tree.words([block.name for block in network.blocks])}


def router_row(recipe: Recipe, num_blocks: int, size_HW: tuple[int, int]) -> dict[str, dict[str, int]]:
    """Parameters and MACs of the router, as a row of the cost table; empty for a recipe without one."""
    if recipe.routing is None:
        return {}
    router = build_router(recipe.routing.router, num_blocks, size_HW, load=False).eval()
    macs = cost.measured_macs(partial(router, torch.zeros(1, 3, *size_HW)))
    return {"router": {"params": num_params(router), "macs": macs}}


def random_network(recipe: Recipe, tasks: Mapping[str, Task], size_HW: tuple[int, int]) -> Any:
    """The recipe's network with random weights, whatever it says of them: nothing is downloaded."""
    network = build_network(recipe.sharing, recipe.backbone, recipe.heads, tasks, size_HW, load=False)
    return network.to(memory_format=torch.channels_last)


def one_net(network: Network, task: str | None = None) -> Supernet:
    """The trunk with the head of `task`, or of any, where there is more than one trunk."""
    if isinstance(network, Supernet):
        return network
    if isinstance(network, WholeNetwork):
        return network.plain()
    nets = network.by_task()
    return nets[task] if task is not None else next(iter(nets.values()))


def describe_task(task: Task, network: Any) -> dict[str, Any]:
    """Type, head, loss and metrics of one task."""
    head: nn.Module = (
        network.head(task.name)
        if isinstance(network, WholeNetwork)
        else one_net(network, task.name).heads[head_key(task.name)]
    )
    return {
        "type": task.type,
        "head": {
            "module": type(head).__name__,
            "reads": "feature pyramid" if task.dense else "pooled features",
            "out_channels": task.out_channels,
            "labels": task.labels,
            "params": num_params(head),
        },
        **describe_loss(task),
        "weight": task.spec.weight,
        "primary": task.primary,
        "metrics": {
            name: {"higher_is_better": info.higher_is_better, "unit": info.unit}
            for name, info in task.metric_info.items()
        },
    }


def describe_loss(task: Task) -> dict[str, Any]:
    """`loss`, in words, and `loss_params`: how many weights it has of its own, which are not in the network."""
    params = num_params(task.loss_module) if task.loss_module is not None else 0
    if not isinstance(task, Embedding):
        return {"loss": LOSSES[loss_key(task)], "loss_params": params}
    said: str = task.spec.loss.name
    if task.spec.miner is not None:
        said += f" of {task.spec.miner.name}"
    if params:
        said += f", with {params:,} weights of its own"
    return {"loss": said, "loss_params": params}


def loss_key(task: Task) -> str:
    """The entry of LOSSES: the task's type, and what in its spec changes the loss."""
    if isinstance(task, Depth) and task.spec.log:
        return "depth, log"
    if isinstance(task, Keypoints):
        return "keypoints, names" if task.has_names else "keypoints, kinds"
    if isinstance(task, Classification) and task.spec.multi_label:
        return "classification, several"
    return task.type


def as_text(found: Mapping[str, Any]) -> str:
    """Aligned tables of what `describe_specs` found."""
    tasks, rows, stages = found["tasks"], found["cost"]["rows"], found["memory"]["stages"]
    height, width = found["cost"]["input"][1:]
    blocks = [[b["name"], b["kind"], str(b["stride"]), str(b["channels"])] for b in found["blocks"]]
    names = {
        "supernet": "supernet, all blocks kept",
        "hard_shared": "hard-shared",
        "single_task_nets": f"{len(tasks)} single-task nets",
        "router": "router, in front of it",
    }
    costs = [[names[key], f"{row['params']:,}", f"{row['macs']:,}"] for key, row in rows.items()]
    parts = list(next(iter(stages.values())))
    mebibytes = [
        [name, *(f"{part / 2**20:.1f}" for part in of_stage.values())] for name, of_stage in stages.items()
    ]
    counts = [
        [split, str(of["images"]), *(str(of["labels"][task]) for task in tasks)]
        for split, of in found["data"].items()
    ]
    batch = found["memory"]["batch_size"]
    sections = [
        ["tasks file, every default filled in", *_flow(found["tasks_file"])],
        ["recipe, every default filled in", *_flow(found["recipe"])],
        ["tasks (* primary metric)", *_task_table(tasks)],
        ["backbone", *_backbone(found["backbone"])],
        [f"gateable blocks: {len(blocks)}", *_table(["block", "shortcut", "stride", "channels"], blocks)],
        [f"cost at {height}x{width}, one picture", *_table(["", "parameters", "MACs"], costs)],
        *([["how tasks part, a copy for each group", *found["tree"]]] if "tree" in found else []),
        [
            f"memory of a training step in MiB, estimated, batch {batch}",
            *_table(["stage", *parts], mebibytes),
        ],
        [
            f"pictures at {in_bytes(found['decoded_bytes'])} each when decoded "
            f"({in_bytes(found['decoded_bytes'] * sum(of['images'] for of in found['data'].values()))} in all), "
            "and how many have a label",
            *_table(["split", "images", *tasks], counts),
        ],
    ]
    return "\n\n".join("\n  ".join(section) for section in sections)


def _backbone(facts: Mapping[str, Any]) -> list[str]:
    strides, channels = (" ".join(map(str, facts[key])) for key in ("strides", "channels"))
    return [
        f"{facts['name']}: {facts['identity']} identity and {facts['shortcut']} shortcut blocks can be skipped; "
        f"{facts['share']:.1%} of its {facts['macs']:,} MACs are in them",
        f"features at strides {strides}, with {channels} channels",
    ]


def _task_table(tasks: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, task in tasks.items():
        head = task["head"]
        metrics = [f"{key}*" if key == task["primary"] else key for key in task["metrics"]]
        size = [head["module"], str(head["out_channels"]), f"{head['params']:,}"]
        rows.append([name, task["type"], *size, task["loss"], " ".join(metrics)])
    return _table(["task", "type", "head", "outputs", "params", "loss", "metrics"], rows)


def _flow(spec: Mapping[str, Any]) -> list[str]:
    """YAML, a line per key, and one per entry of `tasks` and `stages`."""

    def entry(value: Mapping[str, Any], first: str) -> str:
        return _inline({first: value[first], **value})

    lines = []
    for key, value in spec.items():
        if key == "tasks":
            lines += ["tasks:", *(f"  {name}: {entry(task, 'type')}" for name, task in value.items())]
        elif key == "sources" and value:
            lines += ["sources:", *(f"  {name}: {entry(data, 'source')}" for name, data in value.items())]
        elif key == "stages":
            lines += ["stages:", *(f"  - {entry(stage, 'name')}" for stage in value)]
        else:
            lines.append(f"{key}: {entry(value, 'source') if key == 'data' and value else _inline(value)}")
    return lines


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; those that hold numbers only are flush right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(c.replace(",", "").replace(".", "").isdigit() for c in column[1:]) for column in columns]
    return [
        "  ".join(
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
