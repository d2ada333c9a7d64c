"""Why a backbone cannot be gated, found by probing what it calls a block, and what to take instead.

A reason is looked for only when nothing could be gated. Modules of one class that hold a good part of the parameters
are taken for the blocks; one of each class is run with zeroed parameters, as in model/blocks.py, and what is left of
its input says what stands in the way:

    x               residual, so what is around it is no chain of modules
    act(x)          an activation follows the addition
    only by norms   nothing, but something where norms keep their weights: the shortcut passes a norm
    some channels   the input comes back as a part of the output
    nothing         there is no shortcut
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.errors import SpecError
from perceptkit.model.alternatives import alternatives, millions
from perceptkit.model.blocks import RUN_ERRORS, num_params, probe, zeroed
from perceptkit.model.chain import Call, title

GOOD_PART = 0.25
"""Of the model's parameters: less than this is no block that is worth a reason."""
NOTHING = 5
"""Rank of blocks without a shortcut; what is ranked before shows something of one."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "SiLU": F.silu,
    "GELU": F.gelu,
    "hard-swish": F.hardswish,
    "ReLU6": F.relu6,
    "Mish": F.mish,
    "leaky ReLU": F.leaky_relu,
    "ELU": F.elu,
}


def refusal(model: nn.Module, reason: str) -> SpecError:
    """The error that says why this model cannot be gated, with models of about its size that can."""
    size = num_params(model)
    return SpecError(
        f"{title(model)} ({millions(size)}) cannot be gated: {reason}; try {alternatives(size, title(model))}"
    )


@torch.no_grad()
def why_no_block(model: nn.Module, root: Call) -> str:
    """The most telling of the reasons that its blocks give.

    Args:
        model: in eval mode; parameters are zeroed and restored.
        root: one recorded forward of it.
    """
    found = []
    for kind, calls in _repeated(model, root).items():
        share = _share(model, [call.name for call in calls])
        if share >= GOOD_PART:
            rank, reason = _why(model, root, _telling(calls))
            # the smallest that show something; the largest where there is nothing to show
            order = -len(calls) if rank < NOTHING else -share
            found.append((rank, order, f"{kind}, {share:.0%} of its parameters: {reason}"))
    if not found:
        return "it is a row of single layers; no module with more than one in it occurs twice"
    return min(found)[2]


def _repeated(model: nn.Module, root: Call) -> dict[str, list[Call]]:
    """Calls of modules that may be blocks, by class: they hold more than one layer, and occur more than once."""
    by_class = defaultdict(list)
    for call in _all(root):
        module = model.get_submodule(call.name)
        layers = sum(p.ndim > 1 for p in module.parameters())
        paths = sum(
            _is_norm(inner) for inner in module.modules()
        )  # one layer may have a second norm beside it
        if (
            max(layers, paths) > 1
            and layers
            and any(module.children())
            and not isinstance(module, nn.Sequential)
        ):
            by_class[type(module).__name__].append(call)
    return {kind: calls for kind, calls in by_class.items() if len({call.name for call in calls}) > 1}


def _all(call: Call) -> Iterator[Call]:
    for child in call.children:
        yield child
        yield from _all(child)


def _share(model: nn.Module, names: list[str]) -> float:
    """Of the model's parameters that lie in these modules, each counted once."""
    own = {id(p): p.numel() for name in names for p in model.get_submodule(name).parameters()}
    return sum(own.values()) / num_params(model)


def _telling(calls: list[Call]) -> Call:
    """One that keeps the shape, where there is one: a stage transition says little of the others."""
    return next((c for c in calls if c.output is not None and c.output.shape == c.inputs.shape), calls[-1])


def _why(model: nn.Module, root: Call, call: Call) -> tuple[int, str]:
    """(rank, reason) of one block; the smaller the rank, the more it tells."""
    block, where = model.get_submodule(call.name), call.name
    if not call.inputs.numel() or call.output is None or call.has_more:
        return 4, f"{where} takes or gives more than one tensor"
    x = torch.randn(call.inputs.shape, generator=torch.Generator().manual_seed(0)).to(call.inputs)
    if probe(block, x) is not None:
        return 0, f"{where} is residual, but {_around(root, where)}"
    try:
        with zeroed(block):
            y, of_other = block(x.clone()), block(-x)
        with zeroed(block, spared=_norm_parameters(block)):
            through_norms = not torch.equal(block(x.clone()), block(-x))
    except RUN_ERRORS as error:
        return 4, f"{where} does not run alone ({type(error).__name__})"
    name = next((name for name, f in ACTIVATIONS.items() if y.shape == x.shape and y.allclose(f(x))), None)
    if name is not None:
        return 1, f"with its weights at zero {where} gives {name}(x) instead of x: it follows the addition"
    if y.shape != x.shape and _is_part(x, y):
        return 2, f"the input of {where} comes back as a part of its output's channels only"
    if y.shape == x.shape and not torch.equal(y, of_other):
        return 3, f"with its weights at zero {where} gives something else than its input"
    if through_norms:
        return 1, f"the shortcut of {where} passes a norm, as in re-parametrised nets, and does not give x"
    if y.shape != x.shape:
        return (
            NOTHING + 1,
            f"{where}, like all of them, changes the shape, and has no projection that runs alone",
        )
    return (
        NOTHING,
        f"no shortcut leads around the whole of {where}: with its weights at zero nothing of x is left",
    )


def _around(root: Call, name: str) -> str:
    """What of the modules around a block is no chain, outermost first."""
    call, around = root, "what calls it"
    while call.name != name:
        gap = call.gap()
        if gap is not None:
            return f"{call.name or 'the model'} does more than call one module after the other: {gap}"
        around = call.name or around
        call = next(c for c in call.children if c.name == name or name.startswith(f"{c.name}."))
    return f"{around} is residual as a whole"


def _is_part(x_BCHW: Tensor, y: Tensor) -> bool:
    """Whether some neighbouring channels of y are x, or some channels of x are in y."""
    if x_BCHW.ndim != 4 or y.ndim != 4 or y.shape[2:] != x_BCHW.shape[2:]:
        return False
    channels = min(x_BCHW.shape[1], y.shape[1])
    return torch.equal(y[:, :channels], x_BCHW[:, :channels])


def _is_norm(module: nn.Module) -> bool:
    named = hasattr(module, "running_mean") or "Norm" in type(module).__name__
    return named and all(p.ndim <= 1 for p in module.parameters())


def _norm_parameters(block: nn.Module) -> Iterator[nn.Parameter]:
    return (p for module in block.modules() if _is_norm(module) for p in module.parameters(recurse=False))
