"""What dynamic ONNX files save, measured: against the static ONNX of the same network, all blocks kept.

python tools/bench_dynamic.py cifar resnet18 vit --rounds 30

    cifar       cifar10_resnet32, 32 px, one classification task
    resnet18    resnet18, 128 px, three dense tasks
    vit         vit_tiny_patch16_224, 224 px, one classification task

Half of the blocks are kept, all of them routed; pictures are of four kinds, and the router is fitted to give each
kind a policy of its own. The files are what `export --dynamic-skip` writes, proved and loaded as users load them: the
router's time is in theirs. Of every one it prints

    fraction = (1 - its time / the static time) / (1 - its MACs / the static MACs)

the part of the saving that MACs predict which the clock shows, router in both, held to 0.85 for branch at batch 1 and
for codebook at the larger batch. `static, half kept` is a network that never had the skipped blocks, without router:
what no dynamic file can beat. All variants are interleaved in one process; random weights.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptkit.compact.artifact import Manifest, tasks_from
from perceptkit.compact.build import compact_and_fold, with_router
from perceptkit.compact.export_dynamic import export_dynamic, write_static
from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.route_cost import RouteCost, route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.skip_graph import static_graph
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.load import load
from perceptkit.runtime.timing import CLOCKS, interleave, spread
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.router import RouterSpec

AT_LEAST = 0.85
KINDS = 4
ROOM: dict[str, dict[str, Any]] = {
    "room": {"spec": {"type": "classification", "classes": 10}, "labels": [f"class {i}" for i in range(10)]}
}
DENSE: dict[str, dict[str, Any]] = {
    "seg": {"spec": {"type": "segmentation", "classes": 13}, "labels": [f"class {i}" for i in range(13)]},
    "normals": {"spec": {"type": "normals"}, "labels": []},
    "depth": {"spec": {"type": "depth"}, "labels": []},
}


@dataclass(frozen=True)
class Subject:
    """A network to measure."""

    backbone: str
    size: int
    tasks: dict[str, dict[str, Any]]
    router: RouterSpec


SUBJECTS = {
    "cifar": Subject("cifar10_resnet32", 32, ROOM, RouterSpec(downscale=2)),
    "resnet18": Subject("resnet18", 128, DENSE, RouterSpec(downscale=4)),
    "vit": Subject("vit_tiny_patch16_224", 224, ROOM, RouterSpec(downscale=4)),
}


def make(subject: Subject) -> tuple[RoutedNet, Manifest]:
    """The routed network with random weights; for each kind of picture its router keeps another half."""
    torch.manual_seed(0)
    size_HW = (subject.size, subject.size)
    spec, heads = BackboneSpec(name=subject.backbone, weights="none"), HeadsSpec(channels=64)
    tasks = tasks_from(subject.tasks)
    net = build_supernet(spec, heads, tasks, size_HW).eval()
    blocks = [block.name for block in net.blocks]
    plan = Plan.all_keep(list(tasks), blocks).with_routed(range(len(blocks)))
    router = build_router(subject.router, len(blocks), size_HW).eval()
    manifest = Manifest(
        name="bench", backbone=spec, heads=heads, tasks=tasks, plan=plan, method="adashare", size_HW=size_HW,
        mean=net.mean, std=net.std, cost={}, metrics={}, router=subject.router,
    )  # fmt: skip
    routed = with_router(router, compact_and_fold(net, plan, size_HW), manifest)
    fit(routed, subject.size)
    return routed, manifest


def pictures(batch: int, size: int) -> Tensor:
    """Faint noise on a plain colour, one colour for each kind, the kinds in turn: (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    colour_K3 = torch.randn(KINDS, 3, generator=generator) * 2
    noise = 0.1 * torch.randn(batch, 3, size, size, generator=generator)
    return noise + colour_K3[torch.arange(batch) % KINDS][:, :, None, None]


@torch.no_grad()
def fit(routed: RoutedNet, size: int) -> None:
    """Sets the router's last layer by least squares, so that each kind of picture gets a policy of half the blocks."""
    num_routed, router = len(routed.plan.routed()), routed.router
    generator = torch.Generator().manual_seed(1)
    order_KR = torch.rand(KINDS, num_routed, generator=generator).argsort(1)
    keep_KR = order_KR < num_routed // 2
    image = pictures(8 * KINDS, size)
    features = router.trunk(F.avg_pool2d(image, router.downscale)).double()
    features = torch.cat([features, torch.ones(len(image), 1)], dim=1)
    wished_BR = keep_KR[torch.arange(len(image)) % KINDS]
    solved = torch.linalg.lstsq(features, 2 * wished_BR.double() - 1, driver="gelsd").solution
    router.decide.weight.copy_(solved[:-1].T)
    router.decide.bias.copy_(solved[-1])
    if not torch.equal(router.keep(image), wished_BR):
        raise SystemExit("the router could not be fitted: its features do not tell the kinds apart")


def predicted(cost: RouteCost, keep_BR: Tensor) -> float:
    """MACs with these decisions and the router, over those of all blocks without it."""
    added = (keep_BR.double() @ torch.tensor(cost.added_R, dtype=torch.float64)).mean().item()
    return (cost.always + added + cost.router) / cost.full


@torch.no_grad()  # exports refuse tensors of inference mode
def measure(
    name: str, batch: int, ways: tuple[str, ...], rounds: int, clock: str, threads: int
) -> list[dict[str, Any]]:
    """A row for every variant at one batch size; prints them."""
    subject = SUBJECTS[name]
    routed, manifest = make(subject)
    image = pictures(batch, subject.size)
    keep_BR, cost = routed.router.keep(image), route_cost(routed, manifest.size_HW)
    one = batch == 1
    variants: dict[str, Callable[[], object]] = {}
    with TemporaryDirectory(prefix="bench-") as folder_name:
        folder = Path(folder_name)
        full = write_static(routed, manifest, folder / "full.onnx", any_batch=not one)
        variants["static"] = partial(open_onnx(full, "cpu", threads)[0], image)
        if one:
            half = folder / "half.onnx"
            onnx.save(
                static_graph(routed.static(keep_BR[0].tolist()), manifest.size_HW, any_batch=False), half
            )
            variants["static, half kept"] = partial(open_onnx(half, "cpu", threads)[0], image)
        for way in ways:
            path = folder / (way if way == "codebook" else f"{way}.onnx")
            # one more than the kinds: the network that keeps all is always in the book
            export_dynamic(
                routed, manifest, path, way, [pictures(8 * KINDS, subject.size)], policies=KINDS + 1
            )
            variants[way] = partial(load(path, "cpu", threads=threads).forward, image)
        seconds = interleave(variants, rounds, 3, clock=CLOCKS[clock])
    static = seconds["static"]
    print(
        f"\n{name}: {subject.backbone}, {subject.size} px, batch {batch}, {len(subject.tasks)} task(s)",
        end="",
    )
    print(
        f", {keep_BR.double().mean():.0%} of {keep_BR.shape[1]} blocks kept, {threads} thread(s), {clock} time"
    )
    router = cost.router / cost.full
    print(f"  MACs of the static network {cost.full / 1e6:.0f} M, of the router {router:.1%} of it")
    rows = []
    for variant, taken in seconds.items():
        row: dict[str, Any] = {
            "model": name,
            "batch": batch,
            "variant": variant,
            "seconds": spread(taken).to_dict(),
        }
        text = f"  {variant:18} {spread(taken).median * 1e3:9.2f} ms"
        if variant != "static":
            macs = predicted(cost, keep_BR) - (router if variant.startswith("static") else 0)
            saved = spread([1 - fast / slow for fast, slow in zip(taken, static, strict=True)])
            row |= {"macs": macs, "saving": saved.to_dict(), "fraction": saved.median / (1 - macs)}
            held = variant == ("branch" if one else "codebook")
            row["held"] = row["fraction"] >= AT_LEAST if held else None
            text += f"   time x{1 - saved.median:.3f} [{1 - saved.high:.3f}, {1 - saved.low:.3f}]  MACs x{macs:.3f}"
            text += f"   fraction {row['fraction']:.3f}"
            text += f"   at least {AT_LEAST}: {'yes' if row['held'] else 'NO'}" if held else ""
        print(text, flush=True)
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", default=list(SUBJECTS), metavar="MODEL", help=", ".join(SUBJECTS)
    )
    parser.add_argument(
        "--batch", type=int, default=32, help="of gather and codebook; branch takes one picture"
    )
    parser.add_argument("--ways", nargs="+", default=["branch", "gather", "codebook"], metavar="WAY")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file")
    o = parser.parse_args()
    if unknown := [name for name in o.models if name not in SUBJECTS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(SUBJECTS)}")
    batches = (
        (1, tuple(way for way in o.ways if way == "branch")),
        (o.batch, tuple(way for way in o.ways if way != "branch")),
    )
    rows = []
    for name in o.models:
        for batch, ways in batches:
            if ways:
                rows += measure(name, batch, ways, o.rounds, o.clock, o.threads)
    if o.out is not None:
        o.out.write_text(
            json.dumps({"machine": machine("cpu"), "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if all(row.get("held") is not False for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
