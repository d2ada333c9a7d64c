"""What skipping by picture saves on the clock, beside what its MACs predict.

python tools/bench_routing.py --artifact runs/blockdrop
python tools/bench_routing.py --artifact runs/blockdrop --host
python tools/bench_routing.py resnet18 vit --keep 0.6 --policies 4

For batches of 1, 8 and 32 every executor is timed with its router, interleaved with the full compact network (all
blocks, no router):

    saving      1 - time / time of the full network
    predicted   1 - MACs / MACs of the full network, router included
    achieved    saving / predicted

An artifact is timed on test pictures of its run, or of --data, with the decisions of its own router. Networks without
an artifact have random weights, and noise for pictures: the router runs, and its decisions come to the host, in every
timed call; then random ones with a given keep rate and number of distinct policies take their place. `--random` does
so with an artifact too.

With `--host` the network before anything was skipped, and the model, run test pictures of the model's run as they are
used, router, real decisions and all: what was folded away counts as saved too. After that single executors stand beside
the host, and the static network of the most frequent policy, which has no router.

The requirement: at least 0.85 achieved at batch 1 by branch, and at batch 32 by auto, which is what users get. Where
MACs predict no saving nothing can be achieved, and it is missed. Exit code 1 when it is.

The masked reference computes every block. It is no way to skip and is not timed by itself; where auto takes it, the
requirement is missed. Before anything is timed, every executor's outputs are compared with its.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from bench import DECLARED, commit
from torch import Tensor

from perceptkit.api import data_of
from perceptkit.compact.artifact import Manifest, tasks_from
from perceptkit.compact.build import compact_and_fold, counted, host_network, read
from perceptkit.compact.route_cost import route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.verify import BOUND, probe_images
from perceptkit.errors import SpecError
from perceptkit.model.build import build_supernet
from perceptkit.model.cost import measured_macs
from perceptkit.model.fold import fold_batchnorm
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.runtime import executors
from perceptkit.runtime.benchmark import machine
from perceptkit.runtime.eager import on_device
from perceptkit.runtime.load import artifact_folder, load
from perceptkit.runtime.predictor import Predictor
from perceptkit.runtime.routed_latency import macs_by_picture
from perceptkit.runtime.skip_table import Policy, Table, to_host
from perceptkit.runtime.skipping import AUTO, EXECUTORS, SkippingForward
from perceptkit.runtime.timing import CLOCKS, Spread, interleave, spread
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.train.evaluate_model import sample_images

REQUIRED = 0.85
TIMED = tuple(name for name in EXECUTORS if name != "mask")
PICTURES, HOST_CALLS = 200, 60
"""Test pictures to draw from; with --host, timed calls of each model."""
STATIC = "most frequent policy, static"
PER_ROUND = 32
"""Of the test pictures, in a round without --host, in calls of the batch size."""
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
    "cifar": Built("cifar10_resnet32", 32, LABEL, RouterSpec(name="conv3", downscale=1)),
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


Turns = list[tuple[Tensor, Table]]
"""The calls of a round: pictures, and what is decided for them."""


@dataclass(frozen=True)
class Work:
    """A model and what it is timed on."""

    model: RoutedNet
    size_HW: tuple[int, int]
    turns: Callable[[int], Turns]
    """By batch size."""
    predict: Callable[[Sequence[Table]], float]
    """What MACs predict to be saved for these decisions."""
    router: float
    """MACs of the router as a part of the full network's."""
    book: tuple[Policy, ...] | None = None
    """What `auto` has static networks for in use; None: those of the turns."""


def random_work(model: RoutedNet, size_HW: tuple[int, int], options: argparse.Namespace) -> Work:
    """Noise, and random decisions: several draws at batch 1, where one is a matter of luck."""
    macs, count = Macs(model, size_HW), len(model.plan.routed())

    def turns(batch: int) -> Turns:
        image = torch.randn(batch, 3, *size_HW, generator=torch.Generator().manual_seed(0))
        seeds = range(options.draws if batch == 1 else 1)
        return [(image, draw(batch, count, options.keep, options.policies, seed)) for seed in seeds]

    def predict(tables: Sequence[Table]) -> float:
        return sum(map(macs.saving, tables)) / len(tables)

    return Work(model, size_HW, turns, predict, macs.router / macs.full)


@torch.inference_mode()
def real_work(path: Path, options: argparse.Namespace) -> Work:
    """Test pictures and what the artifact's own router decides. Raises SpecError where there are no data."""
    model, manifest = open_artifact(path)
    m = manifest
    images = sample_images(data_of(path, options.data), "test", m.size_HW, m.mean, m.std, PICTURES)
    pictures = torch.cat(list(images))
    cost = route_cost(model, m.size_HW)
    added_R = torch.tensor(cost.added_R, dtype=torch.float64)

    def turns(batch: int) -> Turns:
        shape = (max(1, PER_ROUND // batch), batch)
        drawn = torch.randint(len(pictures), shape, generator=torch.Generator().manual_seed(batch))
        return [(image, to_host(model.router.keep(image))) for image in (pictures[rows] for rows in drawn)]

    def predict(tables: Sequence[Table]) -> float:
        keep_NR = torch.tensor([policy for table in tables for policy in table])
        mean = (keep_NR.double() @ added_R).mean().item()
        return 1 - (cost.always + cost.router + mean) / cost.full

    return Work(model, m.size_HW, turns, predict, cost.router / cost.full, m.policies)


def call(forward: SkippingForward, image_BCHW: Tensor, table: Table) -> Mapping[str, Tensor]:
    """As in use: the router's decisions come to the host, and where others are to be measured give way to those."""
    forward.decide(image_BCHW)
    return forward.run(image_BCHW, table)


def check_outputs(model: RoutedNet, forward: SkippingForward, image_BCHW: Tensor, table: Table) -> None:
    """Raises SystemExit where an executor's outputs are not those of the masked reference under what it ran."""
    got = call(forward, image_BCHW, table)
    assert forward.last is not None
    ran, expected = forward.last, executors.mask(model, image_BCHW, forward.last.table)
    for task, value in expected.items():
        difference = (got[task] - value).abs().max().item()
        if not difference <= BOUND * max(1.0, value.abs().max().item()):
            raise SystemExit(
                f"{ran.executor} computes something else than the reference: {task} by {difference:.1e}"
            )


@torch.inference_mode()
def measure(work: Work, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Times and savings of one batch size: the mean over the turns of a round."""
    model, turns = work.model, work.turns(batch)
    if options.channels_last:
        turns = [(image.to(memory_format=torch.channels_last), table) for image, table in turns]
    tables = [table for _, table in turns]
    predicted = work.predict(tables)
    seen = sorted({policy for table in tables for policy in table})
    names = [name for name in options.executors if batch == 1 or name != "branch"]
    variants: dict[str, Callable[[], object]] = {"full": lambda: [model.network(image) for image, _ in turns]}
    forwards, took = {}, Counter[str]()
    for name in names:
        book = work.book or None if name == AUTO and work.book is not None else seen
        forwards[name] = SkippingForward(model, executor=name, codebook=book)
        if name in ("segments", AUTO) and batch > 1:
            forwards[name].warm_up(work.size_HW, batch)
        check_outputs(model, forwards[name], *turns[0])
        variants[name] = partial(
            lambda forward: [call(forward, image, table) for image, table in turns], forwards[name]
        )
    if AUTO in forwards:
        for image, table in turns:
            forwards[AUTO].run(image, table)
            last = forwards[AUTO].last
            took[last.executor if last is not None else ""] += 1
    variants["router"] = lambda: [forwards[names[0]].decide(image) for image, _ in turns]
    seconds = interleave(variants, options.rounds, 1, clock=CLOCKS[options.clock])
    full = seconds.pop("full")
    found: dict[str, Any] = {
        "batch": batch,
        "policies": len(seen),
        "kept_fraction": sum(map(sum, seen_by_picture(tables))) / (len(tables) * batch * len(seen[0])),
        "predicted_saving": predicted,
        "router_macs": work.router,
        "full_ms": spread([1e3 * s / len(turns) for s in full]).to_dict(),
        "auto_took": dict(took),
        "executors": {},
    }
    for name, values in seconds.items():
        saving = spread([1 - s / f for s, f in zip(values, full, strict=True)])
        found["executors"][name] = {
            "speedup": 1 / (1 - saving.median),
            "saving": saving.to_dict(),
            "achieved": achieved(saving, predicted),
        }
    return found


def seen_by_picture(tables: Sequence[Table]) -> list[Policy]:
    """The policies of all pictures."""
    return [policy for table in tables for policy in table]


def achieved(saving: Spread, predicted: float) -> dict[str, float] | None:
    """The part of what is predicted; None where that is no saving: a model that is slower would pass."""
    if predicted <= 0:
        return None
    return Spread(*(value / predicted for value in (saving.low, saving.median, saving.high))).to_dict()


def holds(row: Mapping[str, Any], took: Mapping[str, int] = MappingProxyType({})) -> bool:
    """Whether the requirement is met, by executors that skip."""
    return row["achieved"] is not None and row["achieved"]["median"] >= REQUIRED and "mask" not in took


@torch.inference_mode()
def against_host(path: Path, host: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the model at `path` saves of the time and the MACs of the network it came from, by batch size.

    `host`: a run or artifact; empty for what the model's manifest says, with random weights.
    """
    ours = load(path, threads=options.threads)
    m, network = ours.manifest, ours.exportable()
    if host:
        theirs = load(host, threads=options.threads)
        whole, full_macs = theirs.forward, theirs.manifest.size["macs"]
    else:
        made = host_network(m)
        whole, full_macs = on_device(made, torch.device("cpu")), counted(m, made).size["macs"]
    images = sample_images(data_of(path, options.data), "test", m.size_HW, m.mean, m.std, PICTURES)
    pictures = torch.cat(list(images))
    macs = float(m.size["macs"])
    if isinstance(network, RoutedNet):
        macs = macs_by_picture(network, pictures, route_cost(network, m.size_HW)).mean().item()
    predicted = 1 - macs / full_macs
    results = []
    for batch in options.batch:
        drawn = torch.randint(
            len(pictures), (HOST_CALLS, batch), generator=torch.Generator().manual_seed(batch)
        )
        ours.forward(pictures[drawn[0]])  # measures its cost model
        took = executors_taken(ours, pictures, drawn)
        clock = CLOCKS[options.clock]
        host_ms, saving = saved(whole, {"routed": ours.forward}, pictures, drawn, clock)
        found = {"batch": batch, "auto_took": took, "host_ms": host_ms.to_dict()}
        found |= beside_prediction(saving["routed"], predicted)
        if isinstance(network, RoutedNet):
            everything = [True] * len(network.plan.routed())
            static = network.static(m.policies[0] if m.policies else everything)
            forwards: dict[str, Callable[[Tensor], object]] = {
                name: SkippingForward(network, executor=name, codebook=m.policies or None)
                for name in (("branch", "codebook") if batch == 1 else ("segments", "codebook"))
            }
            _, others = saved(whole, forwards | {STATIC: static}, pictures, drawn, clock)
            without = 1 - measured_macs(partial(static, pictures[:1])) / full_macs
            found["others"] = {
                name: beside_prediction(other, without if name == STATIC else predicted)
                for name, other in others.items()
            }
        results.append(found)
    return results


def saved(
    host: Callable[[Tensor], object],
    forwards: Mapping[str, Callable[[Tensor], object]],
    image_NCHW: Tensor,
    drawn: Tensor,
    clock: Callable[[], float],
) -> tuple[Spread, dict[str, Spread]]:
    """Milliseconds of the host, and by name the part of its time that the others save on the same batches."""
    variants: dict[str, Callable[[], object]] = {
        name: partial(answer_next, forward, image_NCHW, cycle(drawn))
        for name, forward in {"host": host, **forwards}.items()
    }
    seconds = interleave(variants, HOST_CALLS, 3, clock=clock)
    whole = seconds.pop("host")
    by_name = {
        name: spread([1 - s / h for s, h in zip(values, whole, strict=True)])
        for name, values in seconds.items()
    }
    return spread([1e3 * s for s in whole]), by_name


def beside_prediction(saving: Spread, predicted: float) -> dict[str, Any]:
    """For the results."""
    return {
        "predicted_saving": predicted,
        "saving": saving.to_dict(),
        "achieved": achieved(saving, predicted),
    }


def executors_taken(model: Predictor, image_NCHW: Tensor, drawn: Tensor) -> dict[str, int]:
    """How often each was chosen for these batches; empty for a model that decides nothing any more."""
    took = Counter[str]()
    for rows in drawn:
        if isinstance(model.forward, SkippingForward):
            model.forward(image_NCHW[rows])
            took[model.forward.last.executor if model.forward.last is not None else ""] += 1
    return dict(took)


def answer_next(forward: Callable[[Tensor], object], image_NCHW: Tensor, turns: Iterator[Tensor]) -> object:
    """The outputs for the next batch."""
    return forward(image_NCHW[next(turns)])


def report_host(path: Path, results: Sequence[Mapping[str, Any]], clock: str) -> bool:
    """Prints it; True when the requirement holds at batch 1 and at 32."""
    print(
        f"\n{path} beside its host ({clock}); MACs predict a saving of {results[0]['predicted_saving']:.3f}"
    )
    print("  batch   host ms   saving [quartiles]        achieved  took")
    for row in results:
        took = ", ".join(f"{name} {count}" for name, count in row["auto_took"].items())
        print(f"  {row['batch']:5} {row['host_ms']['median']:9.2f}    {in_words(row)}  {took}")
        for name, other in row.get("others", {}).items():
            note = f" (MACs predict {other['predicted_saving']:.3f})" if name == STATIC else ""
            print(f"  {'':15}    {in_words(other)}  {name}{note}")
    held = all(holds(row, row["auto_took"]) for row in results if row["batch"] in (1, 32))
    print(f"  at least {REQUIRED} at batch 1 and 32: {verdict(held, results[0]['predicted_saving'])}")
    return held


def in_words(row: Mapping[str, Any]) -> str:
    """The part of the time that is saved, with quartiles, and of what is predicted."""
    s, a = row["saving"], row["achieved"]
    part = f"{a['median']:14.2f}" if a else f"{'-':>14}"
    return f"{s['median']:.3f} [{s['q1']:.3f}, {s['q3']:.3f}] {part}"


def verdict(held: bool, predicted: float) -> str:
    """The requirement in words."""
    return (
        "yes"
        if held
        else "NO"
        if predicted > 0
        else "NO: MACs predict no saving, so there is none to achieve"
    )


def report(name: str, found: Mapping[str, Any], clock: str) -> bool:
    """Prints one batch size; True when the requirement holds there."""
    rows = dict(found["executors"])
    router = rows.pop("router")
    print(
        f"\n{name}, batch {found['batch']}, {found['policies']} policies that keep {found['kept_fraction']:.2f}: full "
        f"{found['full_ms']['median']:.2f} ms ({clock}); MACs predict a saving of {found['predicted_saving']:.3f}; "
        f"router {found['router_macs']:.3f} of the MACs, {1 - router['saving']['median']:.3f} of the time"
    )
    print("  executor    x faster   saving   achieved [quartiles]")
    for executor, row in rows.items():
        a = row["achieved"]
        part = f"{a['median']:8.2f} [{a['q1']:.2f}, {a['q3']:.2f}]" if a else f"{'-':>8}"
        took = ", ".join(f"{taken} {count}" for taken, count in found["auto_took"].items())
        note = f"  took {took}" if executor == AUTO else ""
        print(f"  {executor:10} {row['speedup']:9.2f} {row['saving']['median']:8.3f} {part}{note}")
    judged = {1: "branch", 32: AUTO}.get(found["batch"])
    if judged not in rows:
        return True
    held = holds(rows[judged], found["auto_took"] if judged == AUTO else {})
    print(f"  at least {REQUIRED} by {judged}: {verdict(held, found['predicted_saving'])}")
    return held


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the named networks, or an artifact. Exit code 0 when the requirement holds for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], metavar=f"{{{','.join(NETWORKS)}}}")
    parser.add_argument("--artifact", type=Path, help="of a model with a router")
    parser.add_argument(
        "--host", nargs="?", const="", metavar="RUN|ARTIFACT",
        help="beside the network that --artifact came from; of an artifact that does not tell, where it is",
    )  # fmt: skip
    parser.add_argument("--data", metavar="TASKS", help="of an --artifact; that of its run by default")
    parser.add_argument("--random", action="store_true", help="random decisions for an --artifact too")
    parser.add_argument(
        "--keep", type=float, default=0.5, help="fraction of the routed blocks that a picture keeps"
    )
    parser.add_argument("--policies", type=int, default=4, help="distinct ones in a batch")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--draws", type=int, default=4, help="random policies that are timed at batch 1")
    parser.add_argument("--executors", nargs="+", choices=[*TIMED, AUTO], default=[*TIMED, AUTO])
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
    work: dict[str, Callable[[], Work]] = {
        name: partial(lambda what: random_work(*build(what), options), NETWORKS[name])
        for name in options.networks
    }
    if options.artifact and options.random:
        work[str(options.artifact)] = lambda: random_on_artifact(options)
    elif options.artifact:
        work[str(options.artifact)] = partial(real_work, options.artifact, options)
    results, held = [], True
    for name, make in work.items():
        made = make()
        for batch in options.batch:
            found = measure(made, batch, options)
            held &= report(name, found, options.clock)
            results.append({"network": name, **found})
    if options.out:
        setup = {key: value for key, value in vars(options).items() if key not in ("out", "artifact", "host")}
        meta = {"commit": commit(), **machine("cpu"), **setup}
        options.out.write_text(json.dumps({"meta": meta, "results": results}, indent=1) + "\n")
    return 0 if held else 1


def random_on_artifact(options: argparse.Namespace) -> Work:
    """Its network, and random decisions."""
    model, manifest = open_artifact(options.artifact)
    return random_work(model, manifest.size_HW, options)


def open_artifact(path: Path) -> tuple[RoutedNet, Manifest]:
    """Raises SpecError where it has no router."""
    network, manifest = read(artifact_folder(path))
    if not isinstance(network, RoutedNet):
        raise SpecError(f"{path} has no router: nothing in it is skipped by picture")
    return network, manifest


if __name__ == "__main__":
    sys.exit(main())
