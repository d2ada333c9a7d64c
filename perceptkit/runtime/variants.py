"""The networks that a benchmark sets side by side, each as a function of one normalised batch.

    single_nets    T separate timm networks, one per task, run by timm's own forward (runtime/bare_nets.py)
    passes         the shared network, run once per task along that task's plan: how the papers' codes infer
    hard_shared    one network whose tasks share every block, run once
    compact        the artifact, eager
    compiled       the artifact under torch.compile
    aoti onnx onnx_int8        exported files

The first three are rebuilt from the artifact's manifest with random weights: time does not depend on them.
Where timm's own forward does not give what neck and heads read, `single_nets` are supernets that keep all blocks,
and their row is called so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.compact.artifact import WEIGHTS, Manifest, read_manifest
from perceptkit.compact.build import supernet_of
from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from perceptkit.runtime.bare_nets import bare_nets
from perceptkit.runtime.load import load

Forward = Callable[[Tensor], Mapping[str, Tensor]]

TITLES = {
    "single_nets": "separate single-task timm nets",
    "passes": "one pass per task through the shared net",
    "hard_shared": "one hard-shared pass",
    "compact": "compact",
    "compiled": "compact, torch.compile",
    "aoti": "compact, AOTInductor",
    "onnx": "compact, ONNX Runtime",
    "onnx_int8": "compact, ONNX Runtime int8",
}
"""All variants, in the order of tables and plots."""
GATED_NETS = "separate single-task supernets, all blocks kept"
"""Title of `single_nets` where timm's own forward does not give what is needed."""
COMPILER_COUNTED = (
    "its memory is that of a process that compiles: most of it is the compiler's, not the model's"
)
EXPORTED = ("aoti", "onnx", "onnx_int8")
COMPILED_MASK = "compiled as a whole it would run every block and a mask: no time of a model that skips"
TRAINED = ("compact", "compiled", *EXPORTED)
"""Variants with the artifact's own weights; only they have an accuracy."""


@dataclass(frozen=True)
class Variant:
    """One network to time."""

    name: str
    forward: Forward
    params: int
    macs: int
    """Of all tasks on one picture."""
    file_bytes: int
    """Of its file; for a network that has none, of its weights."""
    title: str
    note: str = ""
    """What has to be known to read its row."""


def open_variant(name: str, artifact: Path, file: Path | None = None, device: str = "cpu") -> Variant:
    """Makes a variant ready to run.

    Args:
        name: one of TITLES.
        artifact: folder of the artifact.
        file: what it was exported to, for the names in EXPORTED.
        device: where torch runs it.

    Raises:
        SpecError: there is no such variant, or its file is missing.
    """
    if name not in TITLES:
        raise SpecError(f"{name!r} is not a variant; choose from {', '.join(TITLES)}")
    manifest = read_manifest(artifact)
    rows = manifest.cost["rows"]
    if name in TRAINED:
        if name in EXPORTED and file is None:
            raise SpecError(f"{name} has not been exported")
        # onnxruntime would take a number of its own
        model = load(file or artifact, device, threads=torch.get_num_threads())
        forward = model.forward
        if name == "compiled":
            assert model.network is not None
            if manifest.router is not None:
                raise SpecError(COMPILED_MASK)
            forward = _on(torch.compile(model.network), device)
        size = (file or artifact / WEIGHTS).stat().st_size
        # what CUDA's allocator counts, the compiler does not use
        note = COMPILER_COUNTED if name == "compiled" and not device.startswith("cuda") else ""
        return Variant(
            name, forward, manifest.size["params"], manifest.size["macs"], size, TITLES[name], note
        )
    title, note = TITLES[name], ""
    if name == "single_nets":
        network, forward, note = _separate(manifest, device)
        title = GATED_NETS if note else title
    else:
        network, forward = _shared(name, manifest, device)
    price = rows[{"single_nets": "single_task_nets", "passes": "compact", "hard_shared": "hard_shared"}[name]]
    macs = sum(manifest.cost["per_task_macs"].values()) if name == "passes" else price["macs"]
    # the shared net as the papers keep it: with the blocks that no task runs
    params = rows["hard_shared"]["params"] if name == "passes" else price["params"]
    return Variant(name, forward, params, macs, _bytes(network), title, note)


def open_variants(
    names: Sequence[str], artifact: Path, files: Mapping[str, Path], device: str = "cpu"
) -> list[Variant]:
    """`open_variant` for each name, in the order of TITLES."""
    return [open_variant(name, artifact, files.get(name), device) for name in TITLES if name in names]


def _separate(manifest: Manifest, device: str) -> tuple[nn.Module, Forward, str]:
    """Bare timm nets; or supernets that keep all blocks, and why."""
    net = supernet_of(manifest, "single")
    bare, reason = bare_nets(net.by_task())
    if bare is not None:
        bare = bare.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        return bare, _on(bare, device), ""
    net = net.to(device, memory_format=torch.channels_last)
    return net, _on(net, device, _all_kept(manifest, net)), f"not bare timm nets: {reason}"


def _shared(name: str, manifest: Manifest, device: str) -> tuple[nn.Module, Forward]:
    """One supernet: run once, or along one task's plan after the other."""
    m, net = manifest, supernet_of(manifest, "hard")
    net = net.to(device, memory_format=torch.channels_last)  # the faster one for convolutions
    if name != "passes":
        return net, _on(net, device, _all_kept(m, net))

    def passes(image_BCHW: Tensor) -> Mapping[str, Tensor]:
        image = image_BCHW.to(device)
        return {task: net(image, m.plan, [task])[task] for task in m.tasks}

    return net, passes


def _all_kept(manifest: Manifest, net: Any) -> Plan:
    return Plan.all_keep(list(manifest.tasks), [block.name for block in net.blocks])


def _on(network: Callable[..., Mapping[str, Tensor]], device: str, *arguments: object) -> Forward:
    return lambda image_BCHW: network(image_BCHW.to(device), *arguments)


def _bytes(network: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
