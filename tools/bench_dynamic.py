"""What dynamic ONNX files save, measured: against the static ONNX of the same network, all blocks kept.

python tools/bench_dynamic.py --artifact runs/blockdrop
python tools/bench_dynamic.py cifar resnet18 vit --rounds 30

With `--artifact`, a run or artifact with a router, both sides see test pictures of its run, or of --data, and its own
router decides: branch at batch 1, gather at 8 and 32, codebook at all. The static file is of the network before
anything was skipped, as the manifest has it or by `--host`, its run or artifact: what was folded away counts as saved
too. A codebook is made for training pictures.

Without, networks with random weights, all blocks routed, half of them kept; pictures are of four kinds, and the router
is fitted to give each kind a policy of its own:

    cifar       cifar10_resnet32, 32 px, one classification task
    resnet18    resnet18, 128 px, three dense tasks
    vit         vit_tiny_patch16_224, 224 px, one classification task

The files are what `export --dynamic-skip` writes, proved and loaded as users load them: the router's time is in theirs.
Of every one it prints

    fraction = (1 - its time / the static time) / (1 - its MACs / the static MACs)

the part of the saving that MACs predict which the clock shows, router in both, held to 0.85 for branch at batch 1 and
for codebook at 32. Where MACs predict no saving there is no fraction, and it is missed. MACs are those that the router
asks for: what a codebook adds to them counts against it. `static, half kept` is a network that never had the skipped
blocks, without router: what no dynamic file can beat. All variants are interleaved in one process.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptkit.api import data_of
from perceptkit.compact.artifact import Manifest, tasks_from
from perceptkit.compact.build import compact_and_fold, host_network, with_router
from perceptkit.compact.export_dynamic import DYNAMIC, POLICIES, export_dynamic, write_static
from perceptkit.compact.network import CompactNet
from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.route_cost import RouteCost, route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.skip_graph import static_graph
from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.cost import measured_macs
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.load import load
from perceptkit.runtime.timing import CLOCKS, Spread, interleave, spread
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.train.evaluate_model import sample_images

AT_LEAST = 0.85
HELD = {1: "branch", 32: "codebook"}
"""By batch size, what is held to it."""
PICTURES = 200
"""Of --artifact: test pictures to draw from, and training pictures of the codebook."""
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
        whole = routed.static([True] * len(routed.plan.routed()))
        full = write_static(whole, manifest, folder / "full.onnx", any_batch=not one)
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
            row |= judged(saved, macs, variant == HELD.get(batch))
            text += in_words(row)
        print(text, flush=True)
        rows.append(row)
    return rows


def judged(saved: Spread, macs: float, is_held: bool) -> dict[str, Any]:
    """Of a row: its saving and which part of the predicted one that is; `held` is None where nothing is required.

    Args:
        saved: part of the static time.
        macs: part of the static MACs.
        is_held: whether AT_LEAST is required.
    """
    # a slower file of a network that costs more would have a fraction above 0
    fraction = saved.median / (1 - macs) if macs < 1 else None
    held = fraction is not None and fraction >= AT_LEAST
    return {
        "macs": macs,
        "saving": saved.to_dict(),
        "fraction": fraction,
        "held": held if is_held else None,
    }


def in_words(row: dict[str, Any]) -> str:
    """What is printed of `judged`."""
    q1, median, q3 = (1 - row["saving"][key] for key in ("q3", "median", "q1"))
    text = f"   time x{median:.3f} [{q1:.3f}, {q3:.3f}]  MACs x{row['macs']:.3f}   "
    text += "MACs predict no saving" if row["fraction"] is None else f"fraction {row['fraction']:.3f}"
    return text + (
        f"   at least {AT_LEAST}: {'yes' if row['held'] else 'NO'}" if row["held"] is not None else ""
    )


@torch.no_grad()  # exports refuse tensors of inference mode
def measure_artifact(path: Path, host: Path | None, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every variant at every batch size, on real pictures with the router's decisions; prints them.

    Raises SpecError where the model has no router, or there are no pictures.
    """
    model, tasks_file = load(path, "cpu"), data_of(path, options.data)
    m, routed = model.manifest, model.exportable()
    if not isinstance(routed, RoutedNet):
        raise SpecError(f"{path} has no router: nothing in it is skipped by picture")
    test, train = (
        list(sample_images(tasks_file, split, m.size_HW, m.mean, m.std, PICTURES))
        for split in ("test", "train")
    )
    image_NCHW, cost = torch.cat(test), route_cost(routed, m.size_HW)
    keep_NR = routed.router.keep(image_NCHW)
    whole, full_macs = everything_of(m, host)
    print(
        f"\n{path}: {len(image_NCHW)} test pictures keep {keep_NR.double().mean():.0%} of {keep_NR.shape[1]} routed "
        f"blocks by {len(keep_NR.unique(dim=0))} policies; {options.threads} thread(s), {options.clock} time\n"
        f"  static: {host or 'the network before anything was skipped'}, {full_macs / 1e6:.0f} M MACs; router "
        f"{cost.router / full_macs:.1%} of it"
    )
    rows = []
    with TemporaryDirectory(prefix="bench-") as folder_name:
        folder = Path(folder_name)
        files = {
            way: export_dynamic(
                routed, m, folder / ("codebook" if way == "codebook" else f"{way}.onnx"), way, train,
                options.policies, options.nearest,
            )
            for way in options.ways
        }  # fmt: skip
        for batch in options.batch:
            ways = ways_for(batch, options.ways)
            if not ways:
                continue
            static = folder / f"static_{batch}.onnx"
            onnx.save(static_graph(whole, m.size_HW, any_batch=batch > 1), str(static))
            drawn = torch.randint(
                len(image_NCHW), (options.rounds, batch), generator=torch.Generator().manual_seed(batch)
            )
            forwards = {"static": open_onnx(static, "cpu", options.threads)[0]}
            forwards |= {way: load(files[way], "cpu", threads=options.threads).forward for way in ways}
            variants: dict[str, Callable[[], object]] = {
                name: partial(answer_next, forward, image_NCHW, cycle(drawn))
                for name, forward in forwards.items()
            }
            seconds = interleave(variants, options.rounds, 3, clock=CLOCKS[options.clock])
            macs = predicted(cost, keep_NR[drawn.flatten()]) * cost.full / full_macs
            for name, taken in seconds.items():
                row: dict[str, Any] = {"model": str(path), "batch": batch, "variant": name}
                row["seconds"] = spread(taken).to_dict()
                text = f"  batch {batch:3}  {name:9} {spread(taken).median * 1e3:9.2f} ms"
                if name != "static":
                    pairs = zip(taken, seconds["static"], strict=True)
                    saved = spread([1 - fast / slow for fast, slow in pairs])
                    row |= judged(saved, macs, name == HELD.get(batch))
                    text += in_words(row)
                print(text, flush=True)
                rows.append(row)
    return rows


def ways_for(batch: int, ways: Sequence[str]) -> tuple[str, ...]:
    """Those that take so many pictures and are meant for them: rows are gathered from several only."""
    unfit = "gather" if batch == 1 else "branch"
    return tuple(way for way in ways if way != unfit)


def everything_of(manifest: Manifest, host: Path | None) -> tuple[CompactNet, float]:
    """The network before anything was skipped, and its MACs. Raises SpecError for one that cannot be compared."""
    image = torch.zeros(1, 3, *manifest.size_HW)
    if host is None:
        made = host_network(manifest)
        return made, measured_macs(partial(made, image))
    theirs = load(host, "cpu")
    network = theirs.exportable()
    if not isinstance(network, CompactNet):
        raise SpecError(f"{host} decides by picture too; --host is the network before anything was skipped")
    if theirs.manifest.size_HW != manifest.size_HW or set(theirs.manifest.tasks) != set(manifest.tasks):
        raise SpecError(f"{host} has other tasks, or takes pictures of another size, than --artifact")
    return network, measured_macs(partial(network, image))


def answer_next(forward: Callable[[Tensor], object], image_NCHW: Tensor, turns: Iterator[Tensor]) -> object:
    """The outputs for the next batch."""
    return forward(image_NCHW[next(turns)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the named networks, or an artifact. Exit code 0 when the requirement holds for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{', '.join(SUBJECTS)}; all without --artifact"
    )
    parser.add_argument("--artifact", type=Path, metavar="RUN|ARTIFACT", help="a model with a router")
    parser.add_argument(
        "--host",
        type=Path,
        metavar="RUN|ARTIFACT",
        help="the network that it came from, of an artifact that does not tell",
    )
    parser.add_argument("--data", metavar="TASKS", help="of --artifact; that of its run by default")
    parser.add_argument("--policies", type=int, default=POLICIES, help="of the codebook of --artifact")
    parser.add_argument("--nearest", action="store_true", help="that codebook may drop blocks")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 8, 32],
        help="branch takes one picture, gather more, codebook any",
    )
    parser.add_argument("--ways", nargs="+", choices=DYNAMIC, default=list(DYNAMIC))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process alone")
    parser.add_argument("--out", type=Path, help="JSON file")
    o = parser.parse_args(arguments)
    if unknown := [name for name in o.models if name not in SUBJECTS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(SUBJECTS)}")
    if o.artifact is None and (o.host is not None or o.data is not None):
        parser.error("--host and --data are for an --artifact")
    rows = measure_artifact(o.artifact, o.host, o) if o.artifact is not None else []
    for name in o.models or ([] if o.artifact is not None else SUBJECTS):
        for batch in o.batch:
            if ways := ways_for(batch, o.ways):
                rows += measure(name, batch, ways, o.rounds, o.clock, o.threads)
    if o.out is not None:
        o.out.write_text(
            json.dumps({"machine": machine("cpu"), "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if all(row.get("held") is not False for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
