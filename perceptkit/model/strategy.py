"""What a strategy must say: how the base becomes the network of a new domain, what learns, and how it folds.

    plan      who keeps which block, and which blocks have two copies
    begin     in place: what is added to the trunk, and which of its weights learn
    asked     whose outputs are computed in training: the domain's tasks, and for some strategies others too
    penalty   what is added to the tasks' losses
    fold      in place: the trunk has timm's modules and keys again, and computes the same
    pack      what a domain must store beside the base; unpack puts it back

A strategy decides about the trunk alone: neck and heads are always the domain's own.

A norm's running statistics move exactly where its weight learns: where it does not, the norm is in eval mode.

Shapes: B batch, C = 3 (RGB), H W pixels of the input.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.spec.adaptation import AdaptationSpec


@dataclass(frozen=True)
class Origin:
    """Where a domain's network comes from; most strategies need nothing but the base's weights in it."""

    fresh: Callable[[], nn.Module] | None = None
    """Makes the trunk, as timm gives it, with random weights."""
    net: Supernet | None = None
    """The base with its own tasks."""
    plan: Plan | None = None
    """Of the base's tasks."""


class Strategy:
    """Fine-tuning, unless a subclass says otherwise: every weight learns.

    Args:
        spec: the recipe's section `adaptation`.
    """

    origin: Origin = Origin()
    """Set by `build_strategy`."""

    def __init__(self, spec: AdaptationSpec) -> None:
        self.method = spec.method

    def plan(self, net: Supernet, plan: Plan) -> Plan:
        """The plan of the adapted network, given the base's for the domain's tasks."""
        return plan

    def begin(self, net: Supernet, plan: Plan) -> None:
        """Prepares a network with the base's weights, in place.

        Args:
            net: with the domain's tasks.
            plan: what `plan` gave.

        Raises:
            SpecError: the network has nothing that the strategy could work on.
        """

    def asked(self, plan: Plan) -> Plan:
        """The plan to train with: `net(image, asked, asked.tasks)` gives what `penalty` wants to see."""
        return plan

    def penalty(
        self, net: Supernet, progress: float, image_BCHW: Tensor, outputs: Mapping[str, Tensor]
    ) -> Tensor | None:
        """What is added to the tasks' losses; None for nothing.

        Args:
            net: after `begin`.
            progress: of the stage, in [0, 1).
            image_BCHW: the batch, normalised.
            outputs: of the batch, for all tasks of `asked`.
        """
        return None

    def fold(self, net: Supernet) -> None:
        """Makes it a plain network of the base's structure, in place; in eval mode it computes the same as before."""

    def pack(self, net: Supernet) -> dict[str, Tensor]:
        """What this domain stores beside the base, after `begin` and training, before `fold`."""
        state = net.state_dict()
        return {name: state[name].detach().clone() for name in learned_names(net)}

    def unpack(self, net: Supernet, stored: Mapping[str, Tensor]) -> None:
        """Puts back what `pack` gave, into a network with the base's weights on which `begin` was called."""
        missing = net.load_state_dict(dict(stored), strict=False)
        if missing.unexpected_keys:
            raise ValueError(f"not of this network: {', '.join(missing.unexpected_keys[:3])}")

    def stored_bits(self, net: Supernet) -> int:
        """Size of what a domain stores of its trunk; neck and heads, which every strategy stores, are not in it."""
        return sum(
            8 * value.numel() * value.element_size()
            for name, value in self.pack(net).items()
            if name.startswith("backbone.")
        )


def learned_names(net: nn.Module) -> list[str]:
    """Names in the state dict whose values training may change."""
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    for prefix, norm in batchnorms(net):
        if norm_learns(norm):
            names += [f"{prefix}.{name}" for name, _ in norm.named_buffers(recurse=False)]
    return names


def batchnorms(net: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """All BatchNorms, by name."""
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            yield name, module


def norm_learns(norm: _BatchNorm) -> bool:
    """Whether its running statistics move: those of norms without weights never do."""
    return norm.weight is not None and norm.weight.requires_grad


def set_train_mode(net: nn.Module) -> None:
    """Train mode, but for norms whose weights are fixed."""
    net.train()
    for _, norm in batchnorms(net):
        if not norm_learns(norm):
            norm.eval()


def freeze(module: nn.Module) -> None:
    """None of its weights learns."""
    module.requires_grad_(False)
