"""The supernet: one timm trunk with all blocks, a gate on each, one neck, one head per task.

    forward(image_BCHW, keep) -> {task: output}

`keep` says for every task and block: True (run), False (skip), a bool tensor (B,) (run for these pictures only) or
a tensor in [0, 1] (mix). Tasks share
activations exactly as long as their hard choices agree; from the first difference on each goes its own way
through the same weights. Neck and heads are shared (neck) and per task (heads).

In training too: outputs and gradients are those of one pass per task, for hard choices and for a relaxed
search above blocks that are held at True, which run once for all tasks. Only BatchNorm's running statistics
differ, by design: what several tasks share sees the batch once, so they move once instead of once per task. Where tasks
part at a stage transition, its projection runs twice, inside the block and for the tasks that skip it; they move once.

Shapes: B batch, C channels, H W pixels of the input, K tasks, L blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.errors import PlanError
from perceptkit.model.blocks import num_params
from perceptkit.model.family import covered_size
from perceptkit.model.gates import Keep, gather, mix, norms_learn
from perceptkit.model.neck import FINEST, Neck
from perceptkit.model.norms import still_statistics
from perceptkit.model.plan import Plan
from perceptkit.model.trunk import Step, find_steps, run_part, shared_inputs, to_map
from perceptkit.tasks.base import Task

COARSEST = 32
VIT_CLASSIFIER = ("attn_pool", "fc_norm", "head", "head_dist", "blocks_token_only")
"""Children of a timm ViT that come after its features."""
RGB = tuple[float, float, float]
KeepRows = Mapping[str, Sequence[Keep]]


@dataclass(frozen=True)
class BlockInfo:
    """A gateable block."""

    name: str
    kind: str
    """`identity` or `shortcut`."""
    stride: int
    channels: int
    """Of its output."""
    in_channels: int


@dataclass
class _Branch:
    """Tasks that have come the same way so far, with their activation."""

    x: Tensor
    tasks: list[str]
    features: list[Tensor]
    is_spread: bool = False
    """Whether it has a row per choice instead of one per picture."""


class Supernet(nn.Module):
    """See the module's docstring.

    Args:
        backbone: a timm model without classifier.
        tasks: by name.
        channels: width of the neck.
        size_HW: input size in pixels that the trunk is probed with; other sizes run too where timm's model
            allows.
        mean, std: normalisation of the input that the backbone expects, RGB in [0, 1].
    """

    def __init__(
        self,
        backbone: nn.Module,
        tasks: Mapping[str, Task],
        channels: int,
        size_HW: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.guests: dict[str, Task] = {}  # see run_heads
        self.mean: RGB = (mean[0], mean[1], mean[2])
        self.std: RGB = (std[0], std[1], std[2])
        self.size_HW = size_HW
        probe = torch.zeros(2, 3, *size_HW).normal_(generator=torch.Generator().manual_seed(0))
        self.steps = find_steps(backbone, probe)
        _remove_unused(backbone, self.steps)
        self.backbone = backbone
        self.taps = find_taps(self.steps)
        self.blocks = [
            BlockInfo(step.name, step.kind, step.stride, step.channels, before.channels)
            for before, step in zip([Step("", "plain", channels=3), *self.steps], self.steps, strict=False)
            if step.block is not None
        ]
        self.neck: Neck | None = None
        if any(task.dense for task in self.tasks.values()):
            taps = [self.steps[i] for i in self.taps]
            self.neck = Neck([tap.channels for tap in taps], channels, taps[0].stride)
        last = self.steps[-1].channels
        self.heads = nn.ModuleDict(
            {head_key(name): task.head(channels if task.dense else last) for name, task in self.tasks.items()}
        )

    def rows(
        self, keep: Plan | KeepRows, tasks: Sequence[str] | None = None, keep_BR: Tensor | None = None
    ) -> dict[str, Sequence[Keep]]:
        """`keep` by task.

        Raises:
            PlanError: the plan is of another network, or lacks a task.
            ValueError: a row has the wrong length or entries that are neither bool nor tensor.
        """
        names = list(tasks) if tasks is not None else list(self.tasks)
        if isinstance(keep, Plan):
            if missing := [task for task in names if task not in keep.tasks]:
                known = ", ".join(keep.tasks)
                raise PlanError(f"the plan has no row for {', '.join(missing)}; it has {known}")
            if keep.blocks != tuple(block.name for block in self.blocks):
                raise PlanError(
                    f"the plan's {len(keep.blocks)} blocks are not the {len(self.blocks)} of this net"
                )
            rows: dict[str, Sequence[Keep]] = {task: keep.row(task) for task in names}
            return rows if keep_BR is None else _routed_rows(rows, keep, keep_BR)
        rows = {task: keep[task] for task in names}
        for task, row in rows.items():
            if len(row) != len(self.blocks):
                raise ValueError(f"keep of {task!r} has {len(row)} entries for {len(self.blocks)} blocks")
            if not all(isinstance(choice, bool | Tensor) for choice in row):
                raise ValueError(f"keep of {task!r} must hold True, False and tensors, not {list(row)}")
        return rows

    def forward(
        self,
        image_BCHW: Tensor,
        keep: Plan | KeepRows,
        tasks: Sequence[str] | None = None,
        keep_BR: Tensor | None = None,
        picture_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Outputs of all tasks, or of `tasks` only: then nothing but their own paths runs.

        Args:
            image_BCHW: normalised pictures.
            keep: what runs.
            tasks: some of them.
            keep_BR: for a plan with R routed blocks, which of them run for which picture (bool), or by how much (in
                [0, 1]); all of them by default. Of a block with two copies: which of them are the tuned one.
            picture_B: which picture each row of `keep_BR` is of, where pictures are tried in several ways: outputs
                have a row for each, and what comes before the first routed block runs once per picture.
        """
        rows = self.rows(keep, tasks, keep_BR)
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        outputs: dict[str, Tensor] = {}
        for branch in self._run_trunk(image_BCHW, rows, _tuned_copies(keep, keep_BR), picture_B):
            self._spread(branch, [keep_BR], picture_B)
            last = to_map(self.backbone, branch.x, size_HW)
            outputs |= self.run_heads(branch.features, last, branch.tasks, size_HW)
        return {task: outputs[task] for task in rows}

    def trunk_means(self, image_BCHW: Tensor, plan: Plan) -> Tensor:
        """(B, C) what the trunk makes of each picture by the plan, all routed blocks included: the mean over all places
        of its last map, where tasks part of the maps of all paths side by side."""
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        branches = self._run_trunk(image_BCHW, self.rows(plan), {}, None)
        return torch.cat([to_map(self.backbone, branch.x, size_HW).mean((2, 3)) for branch in branches], 1)

    def _run_trunk(
        self,
        image_BCHW: Tensor,
        rows: Mapping[str, Sequence[Keep]],
        tuned: Mapping[int, Tensor],
        picture_B: Tensor | None,
    ) -> list[_Branch]:
        """What tasks that agree in all blocks share: their last activations, and those that the neck reads."""
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = shared_inputs(self.backbone, size_HW)
        branches = [_Branch(image_BCHW, list(rows), [])]
        for i, step in enumerate(self.steps):
            if step.block is None:
                for branch in branches:
                    branch.x = run_part(self.backbone, step.name, branch.x, shared)
            else:
                for branch in branches:
                    self._spread(branch, [rows[task][step.block] for task in branch.tasks], picture_B)
                branches = [
                    part for branch in branches for part in self._run_block(step, branch, rows, shared, tuned)
                ]
            if i in self.taps:
                for branch in branches:
                    branch.features = [*branch.features, to_map(self.backbone, branch.x, size_HW)]
        return branches

    def _spread(self, branch: _Branch, choices: Sequence[Keep | None], picture_B: Tensor | None) -> None:
        """Gives every row its picture's activations, where a choice by row comes first."""
        by_row = any(isinstance(choice, Tensor) and choice.ndim for choice in choices)
        if picture_B is not None and by_row and not branch.is_spread:
            branch.x = branch.x[picture_B]
            branch.features = [feature[picture_B] for feature in branch.features]
            branch.is_spread = True

    def _run_block(
        self,
        step: Step,
        branch: _Branch,
        rows: Mapping[str, Sequence[Keep]],
        shared: Any,
        tuned: Mapping[int, Tensor],
    ) -> list[_Branch]:
        """One gated block: tasks that agree stay together; the block runs at most once, and so does a projection in its
        place. The block computes its shortcut itself, which no family hands out: where both run, the projection runs
        twice on the same activations, and its statistics move the once that it sees the whole branch."""
        assert step.block is not None
        choices = {task: rows[task][step.block] for task in branch.tasks}
        if all(choice is True for choice in choices.values()):  # the usual case, and nothing is to be sorted
            branch.x = self._run_kept(step, branch.x, shared, tuned.get(step.block))
            return [branch]
        kept = [task for task, choice in choices.items() if choice is True]
        skipped = [task for task, choice in choices.items() if choice is False]
        mixed: dict[object, tuple[Tensor, list[str]]] = {}
        for task, choice in choices.items():
            if isinstance(
                choice, Tensor
            ):  # a router's decisions are one tensor for all tasks: they stay together
                mixed.setdefault(id(choice) if choice.ndim else task, (choice, []))[1].append(task)
        routed = [group for group in mixed.values() if group[0].dtype == torch.bool]
        relaxed = [group for group in mixed.values() if group[0].dtype != torch.bool]
        y_kept = y_skipped = branch.x
        in_block: AbstractContextManager[None] = nullcontext()
        if (skipped or relaxed or routed) and step.projection is not None:
            y_skipped = run_part(self.backbone, step.projection, branch.x, shared)
            projection = self.backbone.get_submodule(step.projection)
            in_block = still_statistics(projection) if norms_learn(projection) else in_block
        with in_block:
            if kept or relaxed:
                y_kept = self._run_kept(step, branch.x, shared, tuned.get(step.block))
            parts = [(y_kept, kept), (y_skipped, skipped)]
            parts += [(mix(y_skipped, y_kept, keep), tasks) for keep, tasks in relaxed]
            run = partial(run_part, self.backbone, step.runs, shared=shared)
            learn = bool(routed) and norms_learn(self.backbone.get_submodule(step.runs))
            parts += [(gather(run, branch.x, y_skipped, keep, learn), tasks) for keep, tasks in routed]
        return [_Branch(x, tasks, branch.features, branch.is_spread) for x, tasks in parts if tasks]

    def _run_kept(self, step: Step, x: Tensor, shared: Any, tuned_B: Tensor | None) -> Tensor:
        """The block, or what its two copies give, mixed by picture; the tuned one where nobody decides."""
        if not step.has_copies or tuned_B is None:
            return run_part(self.backbone, step.runs, x, shared)
        y_base = run_part(self.backbone, step.base, x.clone(), shared)  # it may work in place
        return mix(y_base, run_part(self.backbone, step.runs, x, shared), tuned_B)

    def run_neck(
        self, features: Sequence[Tensor], size_HW: tuple[int, int], neck: nn.Module | None = None
    ) -> Tensor:
        """The map at stride 4 that dense heads read, cut to the picture where patches stick out of it.

        `neck` is the network's own by default.
        """
        neck = neck if neck is not None else self.neck
        assert neck is not None
        pyramid = neck(features, covered_size(self.backbone, size_HW))
        return pyramid[..., : -(-size_HW[0] // FINEST), : -(-size_HW[1] // FINEST)]

    def run_heads(
        self,
        features: Sequence[Tensor],
        last: Tensor,
        tasks: Sequence[str],
        size_HW: tuple[int, int],
        fused: Callable[[Tensor], dict[str, Tensor]] | None = None,
        neck: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Neck (once, if any of `tasks` is dense; the network's own by default) and heads on one branch's features.

        Tasks in `guests` have a head, and answer only where they are asked for by name.
        `fused` answers at once for some of the dense tasks, which then have no head of their own.
        """
        outputs: dict[str, Tensor] = {}
        known = {**self.tasks, **self.guests}
        if any(known[name].dense for name in tasks):
            pyramid = self.run_neck(features, size_HW, neck)
            outputs = fused(pyramid) if fused is not None else {}
        for name in tasks:
            task = known[name]
            if name not in outputs:
                head = self.heads[head_key(name)]
                outputs[name] = head(pyramid) if task.dense else head(last.mean((2, 3)))
            if task.dense and task.upsample:
                outputs[name] = F.interpolate(outputs[name], size=size_HW, mode=task.upsampling)
        return outputs


def _routed_rows(
    rows: Mapping[str, Sequence[Keep]], plan: Plan, keep_BR: Tensor
) -> dict[str, Sequence[Keep]]:
    """The rows with a column of `keep_BR` wherever a task runs a routed block; one tensor for all tasks."""
    routed = plan.routed()
    if keep_BR.ndim != 2 or keep_BR.shape[1] != len(routed):
        raise ValueError(f"keep_BR has shape {tuple(keep_BR.shape)} for {len(routed)} routed blocks")
    column = dict(zip(routed, keep_BR.unbind(1), strict=True))
    column = {b: keep_B for b, keep_B in column.items() if not plan.has_copies(b)}
    return {
        task: [column[b] if choice is True and b in column else choice for b, choice in enumerate(row)]
        for task, row in rows.items()
    }


def _tuned_copies(keep: Plan | KeepRows, keep_BR: Tensor | None) -> dict[int, Tensor]:
    """By block with two copies, the column of `keep_BR` that says which pictures the tuned one runs for."""
    if not isinstance(keep, Plan) or keep_BR is None:
        return {}
    columns = zip(keep.routed(), keep_BR.unbind(1), strict=True)
    return {b: tuned_B for b, tuned_B in columns if keep.has_copies(b)}


def head_key(task: str) -> str:
    """A task's key in a ModuleDict, which refuses names such as `train` and `type`."""
    return f"task_{task}"


def find_taps(steps: Sequence[Step]) -> list[int]:
    """Steps whose outputs feed the neck: the last one at each stride from 4 to 32, fine to coarse."""
    last = {step.stride: i for i, step in enumerate(steps) if FINEST <= step.stride <= COARSEST}
    return [last[stride] for stride in sorted(last)]


def _remove_unused(backbone: nn.Module, steps: Sequence[Step]) -> None:
    """Replaces modules that no step runs (classifier convolutions, pooling) by nothing: they would be
    counted, saved and trained to no effect. The keys of all others stay timm's."""
    used = {step.name.split(".")[0] for step in steps}
    if any(step.kind == "opening" for step in steps):  # it uses modules that are no steps
        used |= {name for name, _ in backbone.named_children()} - set(VIT_CLASSIFIER)
    for name, child in list(backbone.named_children()):
        if name not in used and num_params(child):
            setattr(backbone, name, nn.Identity())
