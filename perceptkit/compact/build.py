"""From a trained supernet and its plan to a verified artifact."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.baselines.sharing.table import build_network
from perceptkit.compact import artifact
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.network import CompactNet, compact, parts
from perceptkit.compact.optimize import DEFAULT, Optimize, optimize_network
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.verify import BOUND, parity, probe_images, refuse_mismatch
from perceptkit.errors import ExportError
from perceptkit.model.blocks import num_params
from perceptkit.model.copies import add_copies
from perceptkit.model.cost import measured_macs
from perceptkit.model.fold import fold_batchnorm
from perceptkit.model.plan import Plan
from perceptkit.model.router import Router, build_router
from perceptkit.spec.recipe import SharingSpec


def compact_and_fold(
    network: Any,
    plan: Plan,
    size_HW: tuple[int, int],
    optimize: Optimize = DEFAULT,
    tasks: Sequence[str] | None = None,
) -> nn.Module:
    """The compact model with BatchNorm folded away, arranged for latency or size.

    Args:
        network: trained; it is not changed.
        plan: who keeps what.
        size_HW: of the input, in pixels.
        optimize: see compact/optimize.py.
        tasks: those that the model shall answer; all by default.
    """
    # one memory format whatever the trained network has: another one rounds differently
    small = compact(network, plan, tasks).to(memory_format=torch.contiguous_format)
    passes = (small, small.skipping) if isinstance(small, CompactNet) and plan.dual else ()
    fold_batchnorm(small, probe_images(size_HW)[1], passes)
    return optimize_network(small, optimize)


def supernet_of(manifest: Manifest, method: str) -> Any:
    """The network that a manifest's model was cut from, or its baseline of another sharing method: random weights.

    Args:
        manifest: of the model.
        method: the manifest's own, or one that has no keys of its own: `single`, `hard`.
    """
    sharing = (
        manifest.sharing if method == manifest.method else SharingSpec.model_validate({"method": method})
    )
    m = manifest
    with torch.random.fork_rng(devices=[]):
        return build_network(sharing, m.backbone, m.heads, m.tasks, m.size_HW, load=False).eval()


def empty_network(manifest: Manifest) -> nn.Module:
    """The compact model a manifest describes, with random weights: what its weight file is loaded into."""
    network = supernet_of(manifest, manifest.method)
    if manifest.plan.dual:
        add_copies(network, manifest.plan.dual)
    small = compact_and_fold(network, manifest.plan, manifest.size_HW, manifest.optimize)
    if manifest.router is None:
        return small
    with torch.random.fork_rng(devices=[]):
        router = build_router(manifest.router, len(manifest.plan.routed()), manifest.size_HW, load=False)
    return with_router(router, small, manifest)


def host_network(manifest: Manifest) -> CompactNet:
    """What a model that skips by picture was made from, all blocks and no router, with random weights: to be timed.

    Of an artifact that does not tell, the blocks that are left, all of them.
    """
    plan = manifest.host if manifest.host is not None else manifest.plan.with_routed(())
    made = empty_network(replace(manifest, plan=plan, router=None, policies=(), written=None))
    assert isinstance(made, CompactNet)
    return made.eval()


def with_router(router: Router, small: nn.Module, manifest: Manifest) -> RoutedNet:
    """A compact model and a copy of its router, norms folded."""
    assert isinstance(small, CompactNet)
    router = copy.deepcopy(router).cpu().to(memory_format=torch.contiguous_format).eval()
    fold_batchnorm(router, probe_images(manifest.size_HW)[1])
    if manifest.optimize == "latency":  # a tenth to a third faster on a CPU, at batch 1 and at 32
        router = router.to(memory_format=torch.channels_last)
    return RoutedNet(router, small, manifest.plan)


@torch.no_grad()
def rearrange(network: nn.Module, manifest: Manifest, optimize: Optimize) -> tuple[nn.Module, Manifest]:
    """A compact model, arranged for something else, and its manifest; compared with the model given.

    Raises:
        ExportError: the weights needed were merged into others, or the comparison failed.
    """
    wanted = replace(manifest, optimize=optimize)
    made, has = empty_network(wanted), network.state_dict()
    needed = made.state_dict()
    if all(name in has and has[name].shape == value.shape for name, value in needed.items()):
        made.load_state_dict({name: has[name] for name in needed})
    elif any(part.has_merged() for part in parts(network)):
        raise ExportError(
            f"this model was arranged for {manifest.optimize}, and projections that {optimize} needs were merged"
        )
    else:
        copied = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)
        made = optimize_network(copied, optimize)
    compared = parity(network, made, probe_images(manifest.size_HW))
    refuse_mismatch(compared, f"the model arranged for {optimize}")
    return made.eval(), counted(wanted, made)


@torch.no_grad()
def counted(manifest: Manifest, network: nn.Module) -> Manifest:
    """The manifest of `network`, with its parameters and the MACs that it runs."""
    image = probe_images(manifest.size_HW)[0]
    # a routed model's own forward runs what takes the place of a block as well: its parts are counted one by one
    nets = [network.router, network.network] if isinstance(network, RoutedNet) else [network]
    macs = sum(measured_macs(partial(net, image)) for net in nets)
    return replace(manifest, written={"params": num_params(network), "macs": macs})


def write_artifact(
    folder: Path, network: Any, manifest: Manifest, router: Router | None = None
) -> dict[str, Any]:
    """Compacts, verifies against `network`, writes, reads back and verifies again.

    Args:
        folder: the artifact's.
        network: trained.
        manifest: of the model; its plan decides what is kept.
        router: of a plan with routed blocks.

    Returns:
        What `parity.json` holds: the largest difference per head.

    Raises:
        ExportError: the compact model computes something else; nothing is written then.
    """
    reference = network.cpu().eval()
    images = probe_images(manifest.size_HW)
    small = compact_and_fold(reference, manifest.plan, manifest.size_HW, manifest.optimize)
    compared = parity(lambda image: reference(image, manifest.plan), small, images)
    refuse_mismatch(compared, "the compact model")
    if router is not None:
        small = with_router(router, small, manifest)
        compared = routed_parity(reference, small, router.cpu().eval(), images[1], compared)
        refuse_mismatch(compared, "the compact model with its router")
    report = {"reference": "gated supernet", "bound": BOUND, "heads": compared}
    write_verified(folder, small, manifest, report)
    return report


@torch.no_grad()
def routed_parity(
    reference: Any,
    routed: RoutedNet,
    router: Router,
    image_BCHW: Tensor,
    before: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """The largest differences, of `before` and under the decisions of 16 tables, none and all of the blocks included.

    The router's logits are compared too, as a head named `router`.
    """
    found = {name: dict(row) for name, row in before.items()}
    for keep_BR in keep_tables(len(image_BCHW), len(routed.plan.routed())):
        compared = parity(
            partial(reference, keep=routed.plan, keep_BR=keep_BR),
            partial(routed.masked, keep_BR=keep_BR),
            [image_BCHW],
        )
        for name, row in compared.items():
            found[name] = {key: max(value, found[name][key]) for key, value in row.items()}
    logits = parity(
        lambda image: {"router": router(image)}, lambda image: {"router": routed.router(image)}, [image_BCHW]
    )
    return found | logits


def keep_tables(batch: int, num_routed: int, count: int = 16) -> list[Tensor]:
    """Decisions (B, R) that a routed model is tried with: all blocks, none, and random ones."""
    generator = torch.Generator().manual_seed(0)
    tables = [
        torch.ones(batch, num_routed, dtype=torch.bool),
        torch.zeros(batch, num_routed, dtype=torch.bool),
    ]
    tables += [torch.rand(batch, num_routed, generator=generator) < 0.5 for _ in range(count - 2)]
    return tables


def write_verified(folder: Path, small: nn.Module, manifest: Manifest, report: Mapping[str, Any]) -> None:
    """Writes a compact model and `parity.json`, if what is read back computes exactly the same.

    `parity.json` is `report` on top of what that comparison found: one that has `heads` tells of a stronger proof.
    """
    manifest = counted(manifest, small)
    with artifact.staged(folder) as temporary:
        artifact.write(temporary, small, manifest)
        again, _ = read(temporary)
        compared = parity(small, again, probe_images(manifest.size_HW))
        refuse_mismatch(compared, f"{folder}, read back,", bound=0.0)
        text = json.dumps({"ok": True, "bound": 0.0, "heads": compared, **report}, indent=1) + "\n"
        (temporary / "parity.json").write_text(text, encoding="utf-8")


def read(folder: Path) -> tuple[nn.Module, Manifest]:
    """An artifact's network with its weights, in eval mode, and its manifest."""
    manifest = artifact.read_manifest(folder)
    network = empty_network(manifest)
    artifact.load_weights(folder, network)
    return network.eval(), manifest
