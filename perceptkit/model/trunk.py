"""Finds, in any timm model, the chain of modules from image to features, and which of them can be skipped.

The model is run once with hooks. Every call of a module has an input and an output; a *chain* is a sequence
of calls in which each input is the previous output. Containers are opened as long as there is a block to
gate inside, so the steps of a ResNet are: conv1, bn1, act1, maxpool, layer1.0, layer1.1, layer2.0, ...
The finished chain is run, and must give exactly what timm's own forward gave.

Which steps can be skipped is proved by model/blocks.py. Modules are kept by name, never by reference: a
deep copy or a pickle of the network stays right.
"""

from dataclasses import dataclass, field, replace
from math import log2
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.model.blocks import num_params, probe
from perceptkit.model.lookup import submodule

Kind = Literal["plain", "opening", "identity", "shortcut"]
ALTERNATIVES = "try a resnet, convnext, efficientnet, mobilenet, regnet or vit"
VIT_OPENING = ("_pos_embed", "patch_embed", "patch_drop", "norm_pre", "blocks")


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


@dataclass
class _Call:
    """One call of a module during the recording; `children` are the calls made inside it."""

    name: str
    inputs: Tensor
    output: Tensor | None = None
    children: list["_Call"] = field(default_factory=list)


@torch.no_grad()
def find_steps(model: nn.Module, image_BCHW: Tensor) -> list[Step]:
    """The chain of steps of a timm model, up to its last feature map.

    Raises:
        SpecError: the model does not take images of this size, there is no unbroken chain, or nothing in it
            can be skipped.
    """
    was_training = model.training
    model.eval()
    try:
        root = _record(model, image_BCHW)
        calls, opening = _chain_from_image(model, root, image_BCHW)
        steps = [step for call in calls for step in _refine(model, call)]
        kept = _without_classifier_convolution(model, steps)
        steps = _number(([Step("", "opening")] if opening else []) + kept)
        if all(step.block is None for step in steps):
            raise SpecError(f"no residual block of {_title(model)} could be skipped; {ALTERNATIVES}")
        expected = _output_of(root, kept[-1].name)
        return _measure(model, steps, image_BCHW, expected)
    finally:
        model.train(was_training)


def run_step(model: nn.Module, step: Step, x: Tensor) -> Tensor:
    """One step of the chain, as timm runs it."""
    return run_opening(model, x) if step.kind == "opening" else submodule(model, step.name)(x)


def run_opening(model: Any, image_BCHW: Tensor) -> Tensor:
    """What a timm ViT computes before its first block: tokens with positions."""
    tokens = model._pos_embed(model.patch_embed(image_BCHW))
    return model.norm_pre(model.patch_drop(tokens))


def patch_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a trunk of tokens cuts the image into; None for feature maps."""
    embed = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    size = getattr(embed, "patch_size", None)
    return tuple(size) if isinstance(size, tuple | list) else None


def covered_size(model: Any, image_HW: tuple[int, int]) -> tuple[int, int]:
    """Pixels that the features stand for: more than the image's where patches stick out of it."""
    patch_h, patch_w = patch_size(model) or (1, 1)
    return -(-image_HW[0] // patch_h) * patch_h, -(-image_HW[1] // patch_w) * patch_w


def to_map(model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor:
    """A step's output as (B, C, h, w): maps as they are, tokens without the prefix ones folded back."""
    if x.ndim == 4:
        return x.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else x
    patch = patch_size(model)
    if x.ndim != 3 or patch is None:
        raise SpecError(f"the features of {_title(model)} cannot be laid out as a map; {ALTERNATIVES}")
    tokens = x[:, getattr(model, "num_prefix_tokens", 0) :]
    height, width = -(-image_HW[0] // patch[0]), -(-image_HW[1] // patch[1])
    return tokens.transpose(1, 2).reshape(x.shape[0], -1, height, width)


def _title(model: Any) -> str:
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    return name or type(model).__name__


def _record(model: nn.Module, image_BCHW: Tensor) -> _Call:
    """The tree of calls of one `forward_features`. Keeps all tensors alive, so identity means identity."""
    root = _Call("", image_BCHW)
    stack = [root]
    hooks = []
    for name, module in model.named_modules():
        if not name:
            continue

        def before(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            first = args[0] if args and isinstance(args[0], Tensor) else torch.empty(0)
            stack.append(_Call(name, first))

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            call = stack.pop()
            call.output = output if isinstance(output, Tensor) else None
            stack[-1].children.append(call)

        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        root.output = model.forward_features(image_BCHW)  # type: ignore[operator]
    except Exception as error:  # each family has its own way to refuse a size
        size = "x".join(map(str, image_BCHW.shape[2:]))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"{_title(model)} does not take pictures of {size} ({reason}); see data.size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return root


def _is_chain(calls: list[_Call], start: Tensor, end: Tensor | None) -> bool:
    current = start
    for call in calls:
        if call.inputs is not current or call.output is None:
            return False
        current = call.output
    return bool(calls) and current is end


def _chain_from_image(model: Any, root: _Call, image: Tensor) -> tuple[list[_Call], bool]:
    """(calls, whether a ViT's opening comes before them)."""
    if _is_chain(root.children, image, root.output):
        return root.children, False
    if all(hasattr(model, part) for part in VIT_OPENING):
        # tokens, positions and class token are glued together by methods: only the blocks are a chain
        first = next((i for i, call in enumerate(root.children) if call.name.startswith("blocks")), None)
        if first is not None and _is_chain(root.children[first:], root.children[first].inputs, root.output):
            return root.children[first:], True
    raise SpecError(
        f"the modules of {_title(model)} form no chain from image to features, so its blocks cannot be "
        f"gated; {ALTERNATIVES}"
    )


def _refine(model: nn.Module, call: _Call) -> list[Step]:
    """A gateable step, or the steps inside a container that holds one, or a plain step."""
    module = model.get_submodule(call.name)
    if not num_params(module):
        return [Step(call.name, "plain")]
    step = _proved(call, module)
    if _is_chain(call.children, call.inputs, call.output):
        inner = [part for child in call.children for part in _refine(model, child)]
        gated = sum(num_params(model.get_submodule(s.name)) for s in inner if s.kind != "plain")
        # A whole stage passes the probe too when its blocks do: the blocks are what is meant.
        if gated and (step is None or step.kind == "shortcut" or gated >= 0.9 * num_params(module)):
            return inner
    return [step or Step(call.name, "plain")]


def _proved(call: _Call, module: nn.Module) -> Step | None:
    """The step of a residual block; None for anything else, single layers and containers included."""
    if call.output is None or not call.children or isinstance(module, nn.Sequential):
        return None
    found = probe(module, call.inputs)
    if found is None:
        return None
    if found.projection is None:
        return Step(call.name, "identity")
    return Step(call.name, "shortcut", projection=f"{call.name}.{found.projection}")


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


def _output_of(root: _Call, name: str) -> Tensor | None:
    """What the (only) call of the module gave in the recording."""
    for child in root.children:
        if child.name == name:
            return child.output
        if name.startswith(f"{child.name}."):
            return _output_of(child, name)
    return None


def _measure(model: nn.Module, steps: list[Step], image_BCHW: Tensor, expected: Tensor | None) -> list[Step]:
    """The same steps with the channels and the stride of their outputs; the last must be `expected`.

    A stride is the product of the steps' own: the whole ratio misleads where a size is not divisible, as
    in 40 -> 20 -> 10 -> 5 -> 3 -> 2.
    """
    image_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
    measured, x, longest, stride = [], image_BCHW, max(image_HW), 1
    try:
        for step in steps:
            x = run_step(model, step, x)
            feature = to_map(model, x, image_HW)
            stride *= _stride(longest / max(feature.shape[2:]))
            longest = max(feature.shape[2:])
            measured.append(replace(step, channels=feature.shape[1], stride=stride))
        same = expected is not None and torch.equal(x, expected)
    except (TypeError, RuntimeError, AttributeError):  # a module wants arguments that the chain does not have
        same = False
    if not same:
        raise SpecError(
            f"the modules of {_title(model)}, run one after the other, do not give its features, so its "
            f"blocks cannot be gated; {ALTERNATIVES}"
        )
    return measured


def _stride(ratio: float) -> int:
    """The power of two that a ratio of sizes means: 5 / 3 and 3 / 1 are both a stride of 2, rounded."""
    if ratio <= 1:
        return 1
    return 2 if ratio <= 3 else 1 << round(log2(ratio))
