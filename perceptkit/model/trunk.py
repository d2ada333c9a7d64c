"""Takes a timm model apart into the steps from image to features, and finds which of them can be skipped.

Most trunks are chains of modules (model/chain.py): one forward is recorded, and containers are opened as long as
there is a block to gate inside, so the steps of a ResNet are: conv1, bn1, act1, maxpool, layer1.0, layer1.1,
layer2.0, ... For families that are no chain, model/families.py lists the steps. Either way the steps are run
one after the other, and must give exactly what timm's own forward gave.

Which steps can be skipped is proved by model/blocks.py. Modules are kept by name, never by reference: a
deep copy or a pickle of the network stays right.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import log2
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceptkit.model.blocks import RUN_ERRORS, num_params, probe
from perceptkit.model.chain import Call, record
from perceptkit.model.families import family
from perceptkit.model.family import OPENING
from perceptkit.model.refusal import refusal, why_no_block

Kind = Literal["plain", "opening", "identity", "shortcut"]
BASE, TUNED = "base", "tuned"
"""Children of a module that holds two copies of a block."""


@dataclass(frozen=True)
class Step:
    """One link of the chain."""

    name: str
    """Module name in the timm model; empty for `opening`."""
    kind: Kind
    block: int | None = None
    """Index among the gateable blocks, 0 next to the image."""
    projection: str | None = None
    """Module name of the projection of a `shortcut` block."""
    channels: int = 0
    stride: int = 0
    has_copies: bool = False
    """Whether the module holds two copies of the block (model/copies.py)."""

    @property
    def runs(self) -> str:
        """Module name of the block as it runs, the tuned copy where there are two."""
        return f"{self.name}.{TUNED}" if self.has_copies else self.name

    @property
    def base(self) -> str:
        """Module name of the base's copy."""
        return f"{self.name}.{BASE}" if self.has_copies else self.name


@torch.no_grad()
def find_steps(model: nn.Module, image_BCHW: Tensor) -> list[Step]:
    """The steps of a timm model, up to its last feature map.

    Raises:
        SpecError: the model does not take images of this size, cannot be taken apart, or has nothing in it
            that can be skipped.
    """
    was_training = model.training
    model.eval()
    try:
        root = record(model, image_BCHW)
        parts = family(model).parts(model)
        if parts is not None:
            steps = _listed(model, parts, image_BCHW)
            expected = root.output if root.output is None else family(model).features(model, root.output)
        else:
            steps = _chained(model, root)
            expected = root.output_of(steps[-1].name)
        steps = _number(steps)
        if all(step.block is None for step in steps):
            raise refusal(model, why_no_block(model, root))
        return _measure(model, steps, image_BCHW, expected)
    finally:
        model.train(was_training)


def shared_inputs(model: nn.Module, image_HW: tuple[int, int]) -> Any:
    """What `run_part` gives to blocks besides the activation: made once per forward, for images of this size."""
    return family(model).shared(model, image_HW)


def run_part(model: nn.Module, name: str, x: Tensor, shared: Any) -> Tensor:
    """One step or projection by its name, as timm runs it."""
    return family(model).run(model, name, x, shared)


def to_map(model: nn.Module, x: Tensor, image_HW: tuple[int, int]) -> Tensor:
    """A step's output as (B, C, h, w)."""
    try:
        found = family(model).to_map(model, x, image_HW)
    except RUN_ERRORS:  # another number of tokens than patches
        found = None
    if found is None:
        raise refusal(model, "its features are no maps, and nothing tells how to lay them out as one")
    return found


def _listed(model: nn.Module, parts: list[str], image_BCHW: Tensor) -> list[Step]:
    """The steps of a family that says what they are; each is probed with the input it gets."""
    shared = shared_inputs(model, (image_BCHW.shape[2], image_BCHW.shape[3]))
    steps, x = [], image_BCHW
    for name in parts:
        step = Step(name, "opening" if name == OPENING else "plain")
        if step.kind == "plain":
            step = _proved(model, name, x, shared) or step
        steps.append(step)
        x = _tried(model, name, x, shared)
    return steps


def _tried(model: nn.Module, name: str, x: Tensor, shared: Any) -> Tensor:
    """One part; it may want arguments that it is not given here, or another shape."""
    try:
        return run_part(model, name, x, shared)
    except RUN_ERRORS as error:
        reason = f"{name or 'its opening'} does not run on what comes before it ({type(error).__name__})"
        raise refusal(model, reason) from error


def _chained(model: nn.Module, root: Call) -> list[Step]:
    if (gap := root.gap()) is not None:
        raise refusal(model, f"its forward does more than call one module after the other: {gap}")
    steps = [step for call in root.children for step in _refine(model, call)]
    return _without_classifier_convolution(model, steps)


def _refine(model: nn.Module, call: Call) -> list[Step]:
    """A gateable step, or the steps inside a container that holds one, or a plain step."""
    module = model.get_submodule(call.name)
    if not num_params(module):
        return [Step(call.name, "plain")]
    step = _proved(model, call.name, call.inputs, None) if call.children else None
    if call.is_chain():
        inner = [part for child in call.children for part in _refine(model, child)]
        gated = sum(num_params(model.get_submodule(s.name)) for s in inner if s.kind != "plain")
        # A whole stage passes the probe too when its blocks do: the blocks are what is meant.
        if gated and (step is None or step.kind == "shortcut" or gated >= 0.9 * num_params(module)):
            return inner
    return [step or Step(call.name, "plain")]


def _proved(model: nn.Module, name: str, like: Tensor, shared: Any) -> Step | None:
    """The step of a residual block; None for anything else, single layers and containers included."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Sequential) or not any(module.children()):
        return None
    found = probe(module, like, partial(run_part, model, name, shared=shared))
    if found is None:
        return None
    if found.projection is None:
        return Step(name, "identity")
    return Step(name, "shortcut", projection=f"{name}.{found.projection}")


def _without_classifier_convolution(model: nn.Module, steps: list[Step]) -> list[Step]:
    """Cuts the 1x1 convolution (and what follows) that some families put before their classifier.

    It widens the features to 1000 or more channels for ImageNet's sake; the heads here have their own.
    """
    last_block = max((i for i, step in enumerate(steps) if step.kind != "plain"), default=len(steps) - 1)
    for i in range(last_block + 1, len(steps)):
        if steps[i].name == "conv_head" and isinstance(model.get_submodule("conv_head"), nn.Conv2d):
            return steps[:i]
    return steps


def _number(steps: list[Step]) -> list[Step]:
    """The same steps, blocks numbered from the image on."""
    numbered, block = [], 0
    for step in steps:
        gateable = step.kind in ("identity", "shortcut")
        numbered.append(replace(step, block=block) if gateable else step)
        block += gateable
    return numbered


def _measure(model: nn.Module, steps: list[Step], image_BCHW: Tensor, expected: Tensor | None) -> list[Step]:
    """The same steps with the channels and the stride of their outputs; the last must be `expected`.

    A stride is the product of the steps' own: the whole ratio misleads where a size is not divisible, as
    in 40 -> 20 -> 10 -> 5 -> 3 -> 2.
    """
    image_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
    measured, x, longest, stride = [], image_BCHW, max(image_HW), 1
    shared = shared_inputs(model, image_HW)
    for step in steps:
        x = _tried(model, step.name, x, shared)
        feature = to_map(model, x, image_HW)
        stride *= _stride(longest / max(feature.shape[2:]))
        longest = max(feature.shape[2:])
        measured.append(replace(step, channels=feature.shape[1], stride=stride))
    if expected is None or not torch.equal(x, expected):
        raise refusal(model, "its modules, run one after the other, do not give what its own forward gives")
    return measured


def _stride(ratio: float) -> int:
    """The power of two that a ratio of sizes means: 5 / 3 and 3 / 1 are both a stride of 2, rounded."""
    if ratio <= 1:
        return 1
    return 2 if ratio <= 3 else 1 << round(log2(ratio))
