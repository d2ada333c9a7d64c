"""Speed ratios that the project promises, measured: all variants interleaved in one process.

python tools/bench.py trie by-hand gating search-step --backbone resnet18 --size 128 --rounds 20

    trie         compact model vs one timm net per task, with NYUv2's published policy for three tasks: as it is written
                 (norms folded, heads fused, channels_last), with its norms folded only, and without any of it, which
                 is what MACs predict
    by-hand      compact model vs the same network written by hand without perceptkit (tools/plain_nets.py)
    optimize     compact model arranged for latency, for size, and merely folded; all tasks share all blocks
    gating       supernet that keeps all blocks vs the untouched timm model, inference and training step
    exports      ONNX, int8 and AOTInductor files vs one eager timm net per task; tasks part in the last two blocks
    data         decoding and augmenting vs torchvision.transforms.v2; options of its own, see `bench.py data --help`
    search-step  step of the AdaShare search vs one pass per task, half of the blocks held by the curriculum

Every ratio is the median over rounds, with quartiles, beside the bound that it is held to. Exit code 1 when
one of them misses it. Random weights: time does not depend on them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bench_data
import torch
from plain_nets import PlainNet, UntouchedNet, fold
from torch import Tensor, nn

from perceptkit.compact.artifact import Manifest, tasks_from
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.export import export_network
from perceptkit.compact.network import compact
from perceptkit.compact.quantize import quantize
from perceptkit.model import cost
from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.policies.adashare import AdaSharePolicy
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.load import load
from perceptkit.runtime.timing import CLOCKS, Spread, interleave, speedup, spread
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec

CHANNELS = 64
TASKS = ("seg", "normals", "depth")
DECLARED: dict[str, dict[str, Any]] = {
    "seg": {"spec": {"type": "segmentation", "classes": 13}, "labels": [f"class {i}" for i in range(13)]},
    "normals": {"spec": {"type": "normals"}, "labels": []},
    "depth": {"spec": {"type": "depth"}, "labels": []},
}
NYU3 = {"seg": {6}, "normals": {9, 10, 11}, "depth": {5, 10, 11}}
"""Blocks that AdaShare's published policy for NYUv2 skips, of the 16 of a ResNet-34."""


@dataclass(frozen=True)
class Setup:
    """What all benchmarks run with."""

    backbone: str
    size: int
    batch: int
    rounds: int
    warmup: int
    clock: str

    def time(self, variants: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Seconds of every variant in every round."""
        return interleave(variants, self.rounds, self.warmup, clock=CLOCKS[self.clock])


@dataclass
class Outcome:
    """What a benchmark found; `ratios` are (what, value, smallest or None, note)."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: list[tuple[str, Spread, float | None, str]] = field(default_factory=list)


def make_supernet(setup: Setup) -> Supernet:
    """The supernet of three dense tasks, random weights, random statistics in the norms."""
    torch.manual_seed(0)
    spec = BackboneSpec(name=setup.backbone, weights="none")
    net = build_supernet(spec, HeadsSpec(channels=CHANNELS), tasks_from(DECLARED), (setup.size, setup.size))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]  # it tracks them
    return net.eval()


def published(net: Supernet) -> tuple[Plan, dict[str, set[int]]]:
    """NYU3 for this network, stretched where it has not 16 blocks; also as the blocks that tasks skip."""
    count = len(net.blocks)
    skipped = {task: {block * count // 16 for block in blocks} for task, blocks in NYU3.items()}
    keep = [[block not in skipped[task] for block in range(count)] for task in TASKS]
    return Plan.from_keep(TASKS, [block.name for block in net.blocks], keep), skipped


def make_plain(
    setup: Setup,
    net: Supernet,
    skipped: Mapping[str, set[int]] | None = None,
    tasks: Sequence[str] = TASKS,
    kind: type[PlainNet] = PlainNet,
) -> PlainNet:
    """The hand-written network with the supernet's weights."""
    plain = kind(setup.backbone, {t: net.tasks[t].out_channels for t in tasks}, CHANNELS, setup.size, skipped)
    plain.trunk.load_state_dict(net.backbone.state_dict(), strict=False)  # a classifier's layers may be cut
    assert net.neck is not None
    plain.neck.load_state_dict(net.neck.state_dict())
    for task in tasks:
        plain.heads[task].load_state_dict(net.heads[f"task_{task}"].state_dict())
    return plain.eval()


def same(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Only equal networks may be compared."""
    for task, value in expected.items():
        torch.testing.assert_close(got[task], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()))


@torch.inference_mode()
def trie(setup: Setup) -> Outcome:
    """The compact model against one net per task."""
    net = make_supernet(setup)
    plan, skipped = published(net)
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    separate = [make_plain(setup, net, tasks=[task]) for task in TASKS]
    bare, fast = compact(net, plan), compact_and_fold(net, plan, net.size_HW)
    folded = compact_and_fold(net, plan, net.size_HW, "none")
    for other in (bare, folded, fast):
        same(net(image, plan), other(image))
    found = Outcome()
    found.seconds = setup.time(
        {
            "separate timm nets": lambda: [one(image) for one in separate],
            "passes with their plans": lambda: [net(image, plan, [task]) for task in TASKS],
            "compact": lambda: fast(image),
            "compact, folded only": lambda: folded(image),
            "compact, no folding": lambda: bare(image),
        }
    )
    steps = cost.measure(net, net.size_HW)
    everything = Plan.all_keep(TASKS, plan.blocks)
    ours = cost.macs(net, plan, steps)[0]
    macs = {
        "separate timm nets": sum(cost.macs(net, everything, steps, [task])[0] for task in TASKS),
        "passes with their plans": sum(cost.macs(net, plan, steps, [task])[0] for task in TASKS),
    }
    for name, theirs in macs.items():
        for variant in ("compact", "compact, folded only", "compact, no folding"):
            ratio = speedup(found.seconds[name], found.seconds[variant])
            predicted = theirs / ours
            bound = 0.9 * predicted if variant == "compact" else None
            found.ratios.append((f"{variant} over {name}", ratio, bound, f"MACs predict {predicted:.2f}"))
    return found


@torch.inference_mode()
def by_hand(setup: Setup) -> Outcome:
    """The compact model against the same network written by hand, as one writes it and with norms folded."""
    net = make_supernet(setup)
    plan, skipped = published(net)
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    small = {"latency": compact_and_fold(net, plan, net.size_HW, "latency")}
    small["size"] = compact_and_fold(net, plan, net.size_HW, "size")
    plain = make_plain(setup, net, skipped)
    folded = fold(make_plain(setup, net, skipped))
    last = fold(make_plain(setup, net, skipped)).to(memory_format=torch.channels_last)
    for other in (plain, folded, last, small["size"]):
        same(small["latency"](image), other(image))
    found = Outcome()
    found.seconds = setup.time(
        {
            "compact for latency": lambda: small["latency"](image),
            "compact for size": lambda: small["size"](image),
            "by hand": lambda: plain(image),
            "by hand, folded": lambda: folded(image),
            "by hand, folded, channels_last": lambda: last(image),
        }
    )
    seconds = found.seconds
    for ours, theirs in (
        ("compact for latency", "by hand"),
        ("compact for latency", "by hand, folded, channels_last"),
        ("compact for size", "by hand, folded"),
    ):
        ratio = speedup(seconds[theirs], seconds[ours])
        found.ratios.append((f"{ours} over {theirs}", ratio, 1 / 1.03, ""))
    found.ratios.append(
        ("latency over size", speedup(seconds["compact for size"], seconds["compact for latency"]), None, "")
    )
    return found


@torch.inference_mode()
def optimize(setup: Setup) -> Outcome:
    """What compaction can be asked for, where all tasks share all blocks and their heads can be fused."""
    net = make_supernet(setup)
    plan = Plan.all_keep(TASKS, [block.name for block in net.blocks])
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    folded = compact_and_fold(net, plan, net.size_HW, "none")
    size, latency = (compact_and_fold(net, plan, net.size_HW, what) for what in ("size", "latency"))
    found = Outcome()
    found.seconds = setup.time(
        {
            "folded only": lambda: folded(image),
            "size": lambda: size(image),
            "latency": lambda: latency(image),
        }
    )
    for name in ("size", "latency"):
        ratio = speedup(found.seconds["folded only"], found.seconds[name])
        found.ratios.append((f"{name} over folded only", ratio, None, ""))
    return found


def gating(setup: Setup) -> Outcome:
    """All blocks kept: what the gates cost."""
    net = make_supernet(setup)
    untouched = make_plain(setup, net, kind=UntouchedNet)
    plan = Plan.all_keep(TASKS, [block.name for block in net.blocks])
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    found = Outcome()
    with torch.inference_mode():
        same(net(image, plan), untouched(image))
        inference = setup.time(
            {
                "untouched, inference": lambda: untouched(image),
                "gated, inference": lambda: net(image, plan),
                "untouched again, inference": lambda: untouched(image),
            }
        )
    net.train()
    untouched.train()
    training = setup.time(
        {
            "untouched, training": lambda: step(untouched(image).values(), untouched),
            "gated, training": lambda: step(net(image, plan).values(), net),
            "untouched again, training": lambda: step(untouched(image).values(), untouched),
        }
    )
    found.seconds = {**inference, **training}
    for mode in ("inference", "training"):
        first, gated, again = (
            found.seconds[f"{v}, {mode}"] for v in ("untouched", "gated", "untouched again")
        )
        reference = [(a + b) / 2 for a, b in zip(first, again, strict=True)]
        noise = f"untouched over itself {speedup(first, again).median:.3f}"
        found.ratios.append((f"gated over untouched, {mode}", speedup(reference, gated), 1 / 1.02, noise))
    return found


def search_step(setup: Setup) -> Outcome:
    """Forward and backward of a step in which the policy's samples mix the upper half of the blocks."""
    net = make_supernet(setup).train()
    policy = AdaSharePolicy(TASKS, [block.name for block in net.blocks])
    generator = torch.Generator().manual_seed(0)
    keep = policy.relax(2.0, len(net.blocks) // 2, generator)
    fixed = {task: [k if k is True else k.detach() for k in row] for task, row in keep.items()}  # type: ignore[union-attr]  # tensors or bool
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    plain = [make_plain(setup, net, tasks=[task]).train() for task in TASKS]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0

    def apart() -> None:
        outputs = [net(image, fixed, [task])[task] for task in TASKS]
        step(outputs, net)

    def timm_nets() -> None:
        for one in plain:
            step(one(image).values(), one)

    steps, held = cost.measure(net, net.size_HW), -(-len(net.blocks) // 2)
    once = sum(steps.plain[: held + 1]) + sum(steps.block[: held + 1]) + steps.projection[held]
    own = sum(steps.plain[held + 1 :]) + sum(steps.block[held + 1 :] + steps.projection[held + 1 :])
    own += steps.neck + sum(steps.heads.values()) // len(TASKS)
    predicted = len(TASKS) * (once + own) / (once + len(TASKS) * own)

    found = Outcome()
    found.seconds = setup.time(
        {
            "passes per task": apart,
            "separate timm nets": timm_nets,
            "search step": lambda: step(net(image, fixed).values(), net),
        }
    )
    for name in ("passes per task", "separate timm nets"):
        ratio = speedup(found.seconds[name], found.seconds["search step"])
        note = f"MACs predict {predicted:.2f}" if name == "passes per task" else ""
        found.ratios.append((f"search step over {name}", ratio, 1.3, note))
    return found


def step(outputs: Any, net: nn.Module) -> None:
    """A loss of all outputs and its gradients; the optimiser's part is the same for all and left out."""
    net.zero_grad(set_to_none=True)
    loss = sum(output.square().mean() for output in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()


@torch.inference_mode()
def exports(setup: Setup) -> Outcome:
    """Exported files against one eager timm net per task; the plans of the tasks part in the last two blocks only."""
    net = make_supernet(setup)
    last = len(net.blocks) - 1
    skips = {"seg": set(), "normals": {last}, "depth": {last - 1, last}}
    keep = [[block not in skips[task] for block in range(last + 1)] for task in TASKS]
    plan = Plan.from_keep(TASKS, [block.name for block in net.blocks], keep)
    manifest = Manifest(
        name="bench",
        backbone=BackboneSpec(name=setup.backbone, weights="none"),
        heads=HeadsSpec(channels=CHANNELS),
        tasks=net.tasks,
        plan=plan,
        method="adashare",
        size_HW=net.size_HW,
        mean=net.mean,
        std=net.std,
        cost=cost.table(net, plan, net.size_HW),
        metrics={},
    )
    image = torch.randn(setup.batch, 3, setup.size, setup.size)
    separate = [make_plain(setup, net, tasks=[task]) for task in TASKS]
    fast = compact_and_fold(net, plan, net.size_HW)
    variants: dict[str, Callable[[], object]] = {
        "separate timm nets": lambda: [one(image) for one in separate],
        "compact": lambda: fast(image),
    }
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        files = {
            "ONNX": folder / "model.onnx",
            "AOTInductor": folder / "model.pt2",
            "ONNX int8": folder / "int8.onnx",
        }
        export_network(fast, manifest, files["ONNX"], "onnx")
        export_network(fast, manifest, files["AOTInductor"], "aoti")
        quantize(
            files["ONNX"], files["ONNX int8"], [torch.randn(1, 3, setup.size, setup.size) for _ in range(8)]
        )
        threads = torch.get_num_threads()
        models = {title: load(path, "cpu", threads=threads) for title, path in files.items()}
        variants |= {title: partial(model.forward, image) for title, model in models.items()}
        found = Outcome()
        found.seconds = setup.time(variants)
    bounds = {"ONNX": 4.0, "ONNX int8": 7.0}
    for title in ("compact", *files):
        ratio = speedup(found.seconds["separate timm nets"], found.seconds[title])
        found.ratios.append((f"{title} over separate timm nets", ratio, bounds.get(title), ""))
    return found


BENCHMARKS: dict[str, Callable[[Setup], Outcome]] = {
    "trie": trie,
    "by-hand": by_hand,
    "optimize": optimize,
    "gating": gating,
    "search-step": search_step,
    "exports": exports,
}


def report(name: str, setup: Setup, found: Outcome) -> bool:
    """Prints one benchmark; True when all bounds hold."""
    print(
        f"\n{name}: {setup.backbone}, {setup.size} px, batch {setup.batch}, {setup.rounds} rounds, "
        f"{torch.get_num_threads()} thread(s), {setup.clock} time"
    )
    for variant, seconds in found.seconds.items():
        s = spread(seconds)
        print(f"  {variant:32} {s.median * 1e3:8.2f} ms   [{s.low * 1e3:.2f}, {s.high * 1e3:.2f}]")
    held = True
    for what, ratio, smallest, note in found.ratios:
        verdict = "" if smallest is None else f"at least {smallest:.3f}: "
        if smallest is not None:
            verdict += "yes" if ratio.median >= smallest else "NO"
            held &= ratio.median >= smallest
        print(f"  {what:52} {ratio.median:6.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]  {verdict}  {note}")
    return held


def to_dict(name: str, setup: Setup, found: Outcome) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "benchmark": name,
        "setup": vars(setup),
        "seconds": {variant: spread(times).to_dict() for variant, times in found.seconds.items()},
        "ratios": [
            {"what": what, **ratio.to_dict(), "at_least": smallest, "note": note}
            for what, ratio, smallest, note in found.ratios
        ],
    }


def commit() -> str:
    """Of the sources that were measured."""
    git = ["git", "-C", str(Path(__file__).parent)]
    at = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    return at + (" with changes" if changed else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmarks. Exit code 0 when all bounds hold."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["data"]:
        return bench_data.main(arguments[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmarks", nargs="+", choices=list(BENCHMARKS))
    parser.add_argument("--backbone", nargs="+", default=["resnet18"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: of this process alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results, held = [], True
    for backbone in options.backbone:
        setup = Setup(backbone, options.size, options.batch, options.rounds, options.warmup, options.clock)
        for name in options.benchmarks:
            found = BENCHMARKS[name](setup)
            held &= report(name, setup, found)
            results.append(to_dict(name, setup, found))
    if options.out:
        options.out.write_text(
            json.dumps({"meta": {"commit": commit(), **machine("cpu")}, "results": results}, indent=1) + "\n"
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
