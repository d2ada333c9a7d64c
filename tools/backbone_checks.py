"""What is checked of a backbone: one function per column of docs/backbones.md, for its tool and for the tests.

    networks(name, size_HW) -> the gated network, and timm's own model with the same weights

A check returns what it found as plain data, or raises `Failed` with the reason. Weights that timm initialises to
zero, so that a residual branch does nothing, are random here: with them every comparison would hold.
"""

import copy
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from perceptkit.compact.export_onnx import run_at_other_size
from perceptkit.compact.precision import PRECISIONS
from perceptkit.compact.program import export_program, size_multiple
from perceptkit.model import cost
from perceptkit.model.attention import plain_attention
from perceptkit.model.neck import FINEST
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.model.trunk import run_part, shared_inputs, to_map
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec
from perceptkit.spec.tasks_file import ClassificationSpec, EdgesSpec
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.edges import Edges

BOUND = 1e-4
"""Of compiled and exported models: largest difference, of the output's own scale."""


class Failed(Exception):
    """A check that did not hold, and why."""


class Skipped(nn.Module):
    """What is left of a block in timm's own model when it is removed, whatever it is called with."""

    def __init__(self, shortcut: nn.Module, gives_all: bool = False) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.gives_all = gives_all  # hands on what else it is called with, as the blocks of MViT do

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (self.shortcut(x), *args) if self.gives_all else self.shortcut(x)


class Fixed(nn.Module):
    """The network with its plan: forward(image) -> a tuple with one output per task."""

    def __init__(self, net: Supernet, plan: Plan) -> None:
        super().__init__()
        self.net, self.plan = net, plan

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(image_BCHW, self.plan).values())


class ByTask(nn.Module):
    """The network with a plan: forward(image) -> {task: output}, as exporters want it."""

    def __init__(self, net: Supernet) -> None:
        super().__init__()
        self.net, self.plan = net, mixed_plan(net)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.net(image_BCHW, self.plan)
        return outputs


def networks(
    name: str, size_HW: tuple[int, int], args: Mapping[str, Any] | None = None
) -> tuple[Supernet, nn.Module]:
    """A dense and a global task on this backbone, and the same backbone untouched, both in eval mode.

    Raises SpecError when the backbone is refused.
    """
    tasks = {
        "edges": Edges("edges", EdgesSpec(type="edges"), []),
        "room": Classification("room", ClassificationSpec(type="classification", classes=3), ["a", "b", "c"]),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = BackboneSpec(name=name, weights="none", args=dict(args or {}))
        reference = randomised(create_backbone(spec, size_HW)).eval()
        config = resolve_data_config(model=reference)
        net = Supernet(copy.deepcopy(reference), tasks, 16, size_HW, config["mean"], config["std"])
    return net.eval(), reference


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Random where timm's initial weights are constant: scales, biases, statistics of norms.

    Scales lie well below 1: with larger ones the activations of deep networks grow until rounding decides what
    comes out (EfficientNet v2: float32 and float64 differed by a tenth).
    """
    for name, parameter in model.named_parameters():
        if parameter.numel() > 1 and parameter.min() < parameter.max():
            continue
        if name.endswith("bias") or "pos_embed" in name or "token" in name:
            parameter.normal_(0, 0.1)
        else:
            parameter.uniform_(0.2, 0.6)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model


def picture(size_HW: tuple[int, int], batch: int = 2) -> Tensor:
    """Normalised noise."""
    return torch.randn(batch, 3, *size_HW, generator=torch.Generator().manual_seed(1))


def blocks(net: Supernet, reference: nn.Module, image: Tensor) -> dict[str, Any]:
    """Gateable blocks, their share of the MACs, strides and channels of the features."""
    return cost.backbone_facts(net, net.size_HW)


@torch.no_grad()
def equal(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """With all blocks kept, features and the maps of timm's `forward_intermediates` are found again, bit by bit.

    timm may tap another block of the same stride than the neck does, so its maps are looked for among all steps. Maps
    finer than the neck reads may lie inside a stem, which is one step.
    """
    features, last = trunk_output(net, image, [True] * len(net.blocks))
    if not torch.isfinite(last).all():
        raise Failed("the features are not finite")
    if not torch.equal(last, timm_features(net, reference, image)):
        raise Failed("differs from forward_features")
    maps = step_outputs(net, image)
    for tap, feature in zip(net.taps, features, strict=True):
        if not torch.equal(feature, maps[tap]):
            raise Failed(f"what the neck reads of {net.steps[tap].name} was changed after it was taken")
    coarse = -(-image.shape[2] // FINEST)
    intermediates = [other for other in timm_intermediates(reference, image) if other.shape[2] <= coarse]
    found = sum(any(torch.equal(other, ours) for ours in maps) for other in intermediates)
    if found < len(intermediates):
        raise Failed(f"{found} of {len(intermediates)} maps of forward_intermediates are outputs of steps")
    return f"features, {found} of {len(intermediates)} maps of forward_intermediates"


@torch.no_grad()
def skip(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """Each block skipped is timm's own model without the block, bit by bit."""
    everything = trunk_output(net, image, [True] * len(net.blocks))[1]
    steps = [step for step in net.steps if step.block is not None]
    for step in steps:
        parent, _, child = step.name.rpartition(".")
        block = reference.get_submodule(step.name)
        shortcut = reference.get_submodule(step.projection) if step.projection else nn.Identity()
        setattr(
            reference.get_submodule(parent), child, Skipped(shortcut, gives_tuple(reference, block, image))
        )
        expected = timm_features(net, reference, image)
        setattr(reference.get_submodule(parent), child, block)
        got = trunk_output(net, image, [other.block != step.block for other in steps])[1]
        if not torch.equal(got, expected):
            raise Failed(f"{step.name} skipped differs from the model without it")
        if torch.equal(got, everything):
            raise Failed(f"{step.name} makes no difference")
    return f"{len(steps)} of {len(steps)} blocks"


def gives_tuple(model: Any, block: nn.Module, image: Tensor) -> bool:
    """Whether a block of timm's model gives more than a tensor in its `forward_features`."""
    caught: list[bool] = []
    hook = block.register_forward_hook(lambda module, args, output: caught.append(isinstance(output, tuple)))
    model.forward_features(image)
    hook.remove()
    return caught[0]


@torch.no_grad()
def copies(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """State-dict keys are timm's; deepcopy, pickle and a saved state dict give the same network."""
    if extra := set(net.backbone.state_dict()) - set(reference.state_dict()):
        raise Failed(f"keys that timm does not have: {', '.join(sorted(extra)[:3])}")
    plan = mixed_plan(net)
    expected = net(image, plan)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    twin = copy.deepcopy(net)
    for parameter in twin.parameters():
        parameter.zero_()
    if all(torch.equal(twin(image, plan)[task], expected[task]) for task in net.tasks):
        raise Failed("a deep copy with other weights computes the same")
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    for how, other in {"saved": twin, "pickled": pickle.loads(pickle.dumps(net)), "original": net}.items():
        if not all(torch.equal(other(image, plan)[task], expected[task]) for task in net.tasks):
            raise Failed(f"{how}: computes something else")
    return "keys, deepcopy, pickle, torch.save"


def compiled(net: Supernet, reference: nn.Module, image: Tensor, backend: str = "inductor") -> str:
    """torch.compile of the whole graph, tasks of different plans."""
    torch._dynamo.reset()
    fixed = Fixed(net, mixed_plan(net))
    with torch.no_grad():
        fast = torch.compile(fixed, fullgraph=True, backend=backend)
        return f"{backend}, {within_bound([difference(fast(image), fixed(image))])}"


def exported(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """torch.export with a dynamic batch, run at two others."""
    fixed, program = _exported(net)
    with torch.no_grad():
        batches = (image, image[:1], torch.cat([image, image]))
        return within_bound([difference(program.module()(x), fixed(x)) for x in batches])


def sizes(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """The program that ONNX files are made of, traced with free height and width, at three other sizes."""
    written_out, tasks = ByTask(plain_attention(copy.deepcopy(net))), list(net.tasks)
    multiple = size_multiple(net, net.size_HW)
    try:
        run_at_other_size(written_out, net.size_HW, multiple)
        program = export_program(written_out, tasks, net.size_HW, PRECISIONS["32"], multiple=multiple)
        run_at_other_size(program.module(), net.size_HW, multiple)
    except Exception:  # torch's own types, many: what write_onnx takes for a size that cannot vary
        return "own"
    height, width = net.size_HW
    found = []
    with torch.no_grad():
        # a map of one pixel is left out: the program guards against it, the ONNX file does not
        for size in (
            (height + multiple, width),
            (height, width + 3 * multiple),
            (2 * multiple, 3 * multiple),
        ):
            other = picture(size)
            found.append(difference(program.module()(other), tuple(written_out(other).values())))
    within_bound(found)
    return f"any / {multiple}"


def onnx(net: Supernet, reference: nn.Module, image: Tensor) -> str:
    """The exported program as ONNX, attention written out, run by onnxruntime at two batch sizes."""
    import onnxruntime

    fixed = Fixed(net, mixed_plan(net))
    _, program = _exported(plain_attention(copy.deepcopy(net)))
    made = torch.onnx.export(program, (image,), input_names=["image"], dynamo=True, verbose=False)
    assert made is not None
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.onnx"
        made.save(str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(x: Tensor) -> list[Tensor]:
            return [torch.from_numpy(y) for y in session.run(None, {"image": x.numpy()})]

        return within_bound([difference(run(x), fixed(x)) for x in (image, torch.cat([image, image]))])


CHECKS: dict[str, Callable[..., Any]] = {
    "blocks": blocks,
    "equal": equal,
    "skip": skip,
    "copies": copies,
    "export": exported,
    "sizes": sizes,
    "onnx": onnx,
    "compile": compiled,
}


def _exported(net: Supernet) -> tuple[Fixed, torch.export.ExportedProgram]:
    image = picture(net.size_HW)
    fixed = Fixed(net, mixed_plan(net))
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        return fixed, torch.export.export(fixed, (image,), dynamic_shapes=({0: batch},))


def trunk_output(net: Supernet, image: Tensor, keep: Sequence[bool]) -> tuple[list[Tensor], Tensor]:
    """(features for the neck, last map) of the supernet's own forward, where all tasks keep the same blocks."""
    caught: list[Any] = []

    def instead(features: Any, last: Tensor, tasks: Sequence[str], size_HW: Any) -> dict[str, Tensor]:
        caught.append((features, last))
        return dict.fromkeys(tasks, last)

    with mock.patch.object(net, "run_heads", instead):
        net(image, dict.fromkeys(net.tasks, keep))
    return caught[0]


def timm_features(net: Supernet, reference: Any, image: Tensor) -> Tensor:
    """timm's own `forward_features`, up to the classifier's convolution where the supernet has cut it."""
    caught: list[Tensor] = []
    if hasattr(reference, "conv_head") and not hasattr(net.backbone.conv_head, "weight"):
        hook = reference.get_submodule(net.steps[-1].name).register_forward_hook(
            lambda module, args, output: caught.append(output)
        )
        reference.forward_features(image)
        hook.remove()
    else:
        caught.append(reference.forward_features(image))
    return to_map(reference, caught[0], (image.shape[2], image.shape[3]))


def step_outputs(net: Supernet, image: Tensor) -> list[Tensor]:
    """What each step gives, as maps; copies, because the next activation may work in place."""
    size_HW = (image.shape[2], image.shape[3])
    shared, x, maps = shared_inputs(net.backbone, size_HW), image, []
    for step in net.steps:
        x = run_part(net.backbone, step.name, x, shared)
        maps.append(to_map(net.backbone, x, size_HW).clone())
    return maps


def timm_intermediates(reference: Any, image: Tensor) -> list[Tensor]:
    """All maps that timm's own `forward_intermediates` gives."""
    return reference.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)


def mixed_plan(net: Supernet) -> Plan:
    """The first task skips every third block, the second every fourth."""
    keep = [[i % every != every - 1 for i in range(len(net.blocks))] for every in (3, 4)]
    return Plan.from_keep(list(net.tasks), [block.name for block in net.blocks], keep)


def difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference over all outputs, each of its own scale; nan where any is not finite."""
    parts = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, expected, strict=True)]
    return torch.stack(parts).max().item()  # Python's max would lose a nan


def within_bound(differences: Sequence[float]) -> str:
    """The largest of them as text; Failed above the bound and where one is not a number."""
    for value in differences:
        if not value <= BOUND:
            raise Failed(f"largest difference {value:.1e}, bound {BOUND:.0e}")
    return f"{max(differences):.1e}"
