"""Records one forward of a timm model as a tree of module calls, and says which calls form a chain.

A *chain* is a sequence of calls in which each input is the previous output.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError


@dataclass
class Call:
    """One call of a module during the recording; `children` are the calls made inside it."""

    name: str
    inputs: Tensor
    output: Tensor | None = None
    children: list["Call"] = field(default_factory=list)
    has_more: bool = False
    """Whether it was given more than one argument."""

    def is_chain(self) -> bool:
        """Whether the calls inside lead, one after the other, from the input to the output."""
        return bool(self.children) and self.gap() is None

    def gap(self) -> str | None:
        """Where the calls inside do not lead from the input to the output; None where they do."""
        current, before = self.inputs, "its input"
        for call in self.children:
            if call.inputs is not current:
                return f"{call.name} is not given {before}"
            if call.output is None:
                return f"{call.name} gives more than one tensor"
            current, before = call.output, f"the output of {call.name}"
        return None if current is self.output else f"its own output is not {before}"

    def output_of(self, name: str) -> Tensor | None:
        """What the (only) call of the module gave."""
        for child in self.children:
            if child.name == name:
                return child.output
            if name.startswith(f"{child.name}."):
                return child.output_of(name)
        return None


def record(model: nn.Module, image_BCHW: Tensor) -> Call:
    """The tree of calls of one `forward_features`. Keeps all tensors alive, so identity means identity.

    Raises:
        SpecError: the model does not take images of this size.
    """
    root = Call("", image_BCHW)
    stack = [root]
    hooks = []
    for name, module in model.named_modules():
        if not name:
            continue

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
            first = args[0] if args and isinstance(args[0], Tensor) else torch.empty(0)
            others = [other for other in (*args[1:], *kwargs.values()) if other is not None]
            stack.append(Call(name, first, has_more=bool(others)))

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            call = stack.pop()
            call.output = output if isinstance(output, Tensor) else None
            stack[-1].children.append(call)

        hooks += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]
    try:
        root.output = model.forward_features(image_BCHW)  # type: ignore[operator]
    except Exception as error:  # each family has its own way to refuse a size
        size = "x".join(map(str, image_BCHW.shape[2:]))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"{title(model)} does not take pictures of {size} ({reason}); see data.size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return root


def title(model: Any) -> str:
    """The model's name in messages."""
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    return name or type(model).__name__
