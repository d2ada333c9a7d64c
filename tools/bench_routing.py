"""What skipping by picture saves on the clock, beside what its MACs predict.

python tools/bench_routing.py resnet18 vit --keep 0.6 --policies 4 --clock cpu
python tools/bench_routing.py --artifact runs/blockdrop/artifact --keep 0.6
python tools/bench_routing.py --artifact runs/blockdrop --host runs/host

For batches of 1, 8 and 32 every executor is timed with its router, interleaved with the full compact network (all
blocks, no router), on random decisions with a given keep rate and number of distinct policies:

    saving      1 - time / time of the full network
    predicted   1 - MACs / MACs of the full network, router included
    achieved    saving / predicted

The router runs, and its decisions come to the host, in every timed call; then those to be measured take their place.
Random weights but for an artifact's: time does not depend on them.

With `--host`, a run or artifact of the network before anything was skipped, both models run test pictures of the routed
one's run as they are used, router, real decisions and all: what was folded away counts as saved too.

The requirement: at least 0.85 achieved at batch 1 (branch), and at batch 32 by segments or codebook. Exit code 1 when
it is missed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from bench import DECLARED, commit
from torch import Tensor

from perceptkit.api import data_of
from perceptkit.compact.artifact import tasks_from
from perceptkit.compact.build import compact_and_fold, read
from perceptkit.compact.fold import fold_batchnorm
from perceptkit.compact.route_cost import route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.verify import probe_images
from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.cost import measured_macs
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.load import artifact_folder, load
from perceptkit.runtime.predictor import Predictor
from perceptkit.runtime.routed_latency import macs_by_picture
from perceptkit.runtime.skip_table import Policy, Table
from perceptkit.runtime.skipping import AUTO, EXECUTORS, SkippingForward
from perceptkit.runtime.timing import CLOCKS, Spread, interleave, spread
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.train.evaluate_model import sample_images

REQUIRED = 0.85
PICTURES, HOST_CALLS = 200, 60
"""With --host: test pictures to draw from, and timed calls of each."""
LABEL: dict[str, dict[str, Any]] = {
    "label": {
        "spec": {"type": "classification", "classes": 10},
        "labels": [f"class {i}" for i in range(10)],
    }
}


@dataclass(frozen=True)
class Built:
    """A network that can be measured without an artifact."""

    backbone: str
    size: int
    declared: Mapping[str, Mapping[str, Any]]
    router: RouterSpec


NETWORKS = {
    "resnet18": Built("resnet18", 128, DECLARED, RouterSpec(downscale=4)),
    "lite0": Built("tf_efficientnet_lite0", 128, DECLARED, RouterSpec(downscale=4)),
    "vit": Built("vit_tiny_patch16_224", 128, DECLARED, RouterSpec(downscale=4)),
    "resnet50": Built("resnet50", 96, LABEL, RouterSpec(downscale=4)),
    "cifar": Built("cifar10_resnet32", 32, LABEL, RouterSpec(downscale=2)),
}


def build(what: Built) -> tuple[RoutedNet, tuple[int, int]]:
    """A model all of whose blocks are routed, random weights."""
    torch.manual_seed(0)
    size_HW = (what.size, what.size)
    spec = BackboneSpec(name=what.backbone, weights="none")
    net = build_supernet(spec, HeadsSpec(channels=64), tasks_from(what.declared), size_HW).eval()
    plan = Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])
    plan = plan.with_routed(range(len(plan.blocks)))
    router = build_router(what.router, len(plan.blocks), size_HW).eval()
    fold_batchnorm(router, probe_images(size_HW)[1])
    router = router.to(memory_format=torch.channels_last)
    small: Any = compact_and_fold(net, plan, size_HW)
    return RoutedNet(router, small, plan), size_HW


def draw(batch: int, num_routed: int, keep: float, policies: int, seed: int) -> Table:
    """Random decisions: each distinct policy keeps the same number of blocks, pictures get them in turn."""
    generator = torch.Generator().manual_seed(seed)
    kept = round(keep * num_routed)
    book = []
    for _ in range(min(policies, batch)):
        chosen = torch.randperm(num_routed, generator=generator)[:kept].tolist()
        book.append(tuple(r in chosen for r in range(num_routed)))
    places = torch.randperm(batch, generator=generator).tolist()
    return tuple(book[place % len(book)] for place in places)


class Macs:
    """MACs of one picture by policy, counted by running the static networks."""

    def __init__(self, model: RoutedNet, size_HW: tuple[int, int]) -> None:
        self.model, self.image = model, torch.zeros(1, 3, *size_HW)
        self.full = self.of((True,) * len(model.plan.routed()))
        self.router = measured_macs(partial(model.router, self.image))

    def of(self, policy: Policy) -> int:
        """Without the router."""
        return measured_macs(partial(self.model.static(policy, share=True), self.image))

    def saving(self, table: Table) -> float:
        """1 - MACs / MACs of the full network, router included."""
        by_policy = {policy: self.of(policy) for policy in set(table)}
        mean = sum(by_policy[policy] for policy in table) / len(table)
        return 1 - (mean + self.router) / self.full


def call(forward: SkippingForward, image_BCHW: Tensor, table: Table) -> Mapping[str, Tensor]:
    """As in use, but for the decisions: the router's come to the host, and give way to those to be measured."""
    forward.decide(image_BCHW)
    return forward.run(image_BCHW, table)


@torch.inference_mode()
def measure(
    model: RoutedNet,
    size_HW: tuple[int, int],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Times and savings of one batch size; the mean over several draws at batch 1, where one is a matter of luck."""
    macs = Macs(model, size_HW)
    image = torch.randn(batch, 3, *size_HW, generator=torch.Generator().manual_seed(0))
    image = image.to(memory_format=torch.channels_last) if options.channels_last else image
    count = len(model.plan.routed())
    draws = options.draws if batch == 1 else 1
    tables = [draw(batch, count, options.keep, options.policies, seed) for seed in range(draws)]
    predicted = sum(map(macs.saving, tables)) / draws
    names = [name for name in options.executors if batch == 1 or name != "branch"]
    variants: dict[str, Callable[[], object]] = {"full": lambda: [model.network(image) for _ in tables]}
    forwards = {}
    for name in names:
        book = [policy for table in tables for policy in table]
        forwards[name] = SkippingForward(model, executor=name, codebook=book)
        if name in ("segments", AUTO) and batch > 1:
            forwards[name].warm_up(size_HW, batch)
        variants[name] = partial(
            lambda forward: [call(forward, image, table) for table in tables], forwards[name]
        )
    variants["router"] = lambda: [forwards[names[0]].decide(image) for _ in tables]
    seconds = interleave(variants, options.rounds, 1, clock=CLOCKS[options.clock])
    full = seconds.pop("full")
    taken = forwards[AUTO].last if AUTO in forwards else None
    found: dict[str, Any] = {
        "batch": batch,
        "policies": len({policy for table in tables for policy in table}),
        "predicted_saving": predicted,
        "router_macs": macs.router / macs.full,
        "full_ms": spread([1e3 * s / draws for s in full]).to_dict(),
        "auto_took": taken.executor if taken is not None else None,
        "executors": {},
    }
    for name, values in seconds.items():
        saving = spread([1 - s / f for s, f in zip(values, full, strict=True)])
        ratio = Spread(*(value / predicted for value in (saving.low, saving.median, saving.high)))
        found["executors"][name] = {
            "speedup": 1 / (1 - saving.median),
            "saving": saving.to_dict(),
            "achieved": ratio.to_dict(),
        }
    return found


@torch.inference_mode()
def against_host(path: Path, host: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the model at `path` saves of the time and the MACs of the network it came from, by batch size."""
    ours, theirs = (load(one, threads=options.threads) for one in (path, host))
    m, network = ours.manifest, ours.exportable()
    images = sample_images(data_of(path, options.data), "test", m.size_HW, m.mean, m.std, PICTURES)
    pictures = torch.cat(list(images))
    macs = float(m.size["macs"])
    if isinstance(network, RoutedNet):
        macs = macs_by_picture(network, pictures, route_cost(network, m.size_HW)).mean().item()
    predicted = 1 - macs / theirs.manifest.size["macs"]
    results = []
    for batch in options.batch:
        drawn = torch.randint(
            len(pictures), (HOST_CALLS, batch), generator=torch.Generator().manual_seed(batch)
        )
        variants: dict[str, Callable[[], object]] = {
            name: partial(answer_next, model, pictures, cycle(drawn))
            for name, model in (("host", theirs), ("routed", ours))
        }
        variants["routed"]()  # measures its cost model
        seconds = interleave(variants, HOST_CALLS, 3, clock=CLOCKS[options.clock])
        saving = spread([1 - s / h for s, h in zip(seconds["routed"], seconds["host"], strict=True)])
        results.append(
            {
                "batch": batch,
                "host_ms": spread([1e3 * s for s in seconds["host"]]).to_dict(),
                "predicted_saving": predicted,
                "saving": saving.to_dict(),
                "achieved": saving.median / predicted,
            }
        )
    return results


def answer_next(model: Predictor, image_NCHW: Tensor, turns: Iterator[Tensor]) -> Mapping[str, Tensor]:
    """The model's outputs for the next batch."""
    return model.forward(image_NCHW[next(turns)])


def report_host(path: Path, results: Sequence[Mapping[str, Any]], clock: str) -> bool:
    """Prints it; True when the requirement holds at batch 1 and at 32."""
    print(
        f"\n{path} beside its host ({clock}); MACs predict a saving of {results[0]['predicted_saving']:.3f}"
    )
    print("  batch   host ms   saving [quartiles]        achieved")
    for row in results:
        s = row["saving"]
        print(
            f"  {row['batch']:5} {row['host_ms']['median']:9.2f}    {s['median']:.3f} [{s['q1']:.3f}, {s['q3']:.3f}] "
            f"{row['achieved']:14.2f}"
        )
    held = all(row["achieved"] >= REQUIRED for row in results if row["batch"] in (1, 32))
    print(f"  at least {REQUIRED} at batch 1 and 32: {'yes' if held else 'NO'}")
    return held


def report(name: str, found: Mapping[str, Any], clock: str) -> bool:
    """Prints one batch size; True when the requirement holds there."""
    rows = dict(found["executors"])
    router = rows.pop("router")
    print(
        f"\n{name}, batch {found['batch']}, {found['policies']} policies: full {found['full_ms']['median']:.2f} ms "
        f"({clock}); MACs predict a saving of {found['predicted_saving']:.3f}; router {found['router_macs']:.3f} of "
        f"the MACs, {1 - router['saving']['median']:.3f} of the time"
    )
    print("  executor    x faster   saving   achieved [quartiles]")
    for executor, row in rows.items():
        a = row["achieved"]
        note = f"  took {found['auto_took']}" if executor == AUTO else ""
        print(
            f"  {executor:10} {row['speedup']:9.2f} {row['saving']['median']:8.3f} {a['median']:8.2f} "
            f"[{a['q1']:.2f}, {a['q3']:.2f}]{note}"
        )
    wanted = {1: ["branch"], 32: ["segments", "codebook"]}.get(found["batch"], [])
    judged = [executor for executor in wanted if executor in rows]
    best = max((rows[executor]["achieved"]["median"] for executor in judged), default=REQUIRED)
    if judged:
        print(f"  at least {REQUIRED} by {' or '.join(judged)}: {'yes' if best >= REQUIRED else 'NO'}")
    return best >= REQUIRED


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the named networks, or an artifact. Exit code 0 when the requirement holds for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], metavar=f"{{{','.join(NETWORKS)}}}")
    parser.add_argument("--artifact", type=Path, help="of a model with a router")
    parser.add_argument("--host", type=Path, help="run or artifact of the network that --artifact came from")
    parser.add_argument("--data", metavar="TASKS", help="with --host; that of the run by default")
    parser.add_argument(
        "--keep", type=float, default=0.5, help="fraction of the routed blocks that a picture keeps"
    )
    parser.add_argument("--policies", type=int, default=4, help="distinct ones in a batch")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--draws", type=int, default=4, help="random policies that are timed at batch 1")
    parser.add_argument("--executors", nargs="+", choices=[*EXECUTORS, AUTO], default=[*EXECUTORS, AUTO])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: of this process alone")
    parser.add_argument("--channels-last", action="store_true", help="pictures come so")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args(arguments)
    if not options.networks and options.artifact is None:
        parser.error(f"nothing to measure: name some of {', '.join(NETWORKS)}, or an --artifact")
    if options.host is not None and options.artifact is None:
        parser.error("--host is for an --artifact")
    torch.set_num_threads(options.threads)
    if options.host is not None:
        compared = against_host(options.artifact, options.host, options)
        if options.out:
            meta = {"commit": commit(), **machine("cpu"), "threads": options.threads, "clock": options.clock}
            options.out.write_text(json.dumps({"meta": meta, "results": compared}, indent=1) + "\n")
        return 0 if report_host(options.artifact, compared, options.clock) else 1
    models: dict[str, Callable[[], tuple[RoutedNet, tuple[int, int]]]] = {
        name: partial(build, NETWORKS[name]) for name in options.networks
    }
    if options.artifact:
        models[str(options.artifact)] = partial(open_artifact, options.artifact)
    results, held = [], True
    for name, make in models.items():
        model, size_HW = make()
        for batch in options.batch:
            found = measure(model, size_HW, batch, options)
            held &= report(name, found, options.clock)
            results.append({"network": name, **found})
    if options.out:
        setup = {key: value for key, value in vars(options).items() if key not in ("out", "artifact")}
        meta = {"commit": commit(), **machine("cpu"), **setup}
        options.out.write_text(json.dumps({"meta": meta, "results": results}, indent=1) + "\n")
    return 0 if held else 1


def open_artifact(path: Path) -> tuple[RoutedNet, tuple[int, int]]:
    """Raises SpecError where it has no router."""
    network, manifest = read(artifact_folder(path))
    if not isinstance(network, RoutedNet):
        raise SpecError(f"{path} has no router: nothing in it is skipped by picture")
    return network, manifest.size_HW


if __name__ == "__main__":
    sys.exit(main())
