"""A routed artifact skips when it is loaded, says what it ran, and gives the reference's outputs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import write_artifact
from perceptkit.errors import SpecError
from perceptkit.runtime import executors, skipping
from perceptkit.runtime.load import load
from perceptkit.runtime.skip_cost import CostModel, Curve, NodeCost
from perceptkit.runtime.skipping import EXECUTORS, SkippingForward
from perceptkit.spec.router import RouterSpec
from tests.compact.conftest import SIZE, manifest_of, network, plan_of
from tests.compact.test_routed import some_router
from tests.runtime.test_executors import picture, routed, same, tables


@pytest.fixture(scope="module")
def model():
    """Its router tells pictures apart."""
    made = routed("cifar10_resnet20", keep="all", chosen=("seg", "room"))
    made.router = some_router(len(made.plan.routed()))
    return made


@pytest.fixture(scope="module")
def routed_artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routed") / "artifact"
    net = network(chosen=("seg", "room"))
    plan = plan_of(net, "all").with_routed(range(len(net.blocks)))
    manifest = replace(manifest_of(net, plan), router=RouterSpec(name="resnet8", downscale=4))
    write_artifact(folder, net, manifest, some_router(len(plan.routed())))
    return folder


def free(model):
    """A cost model in which nothing costs anything: the first executor named is taken, runs are not merged."""
    nodes = [NodeCost(node.route, Curve({1: 0.0})) for node in model.network.nodes]
    return CostModel(nodes, Curve({1: 0.0}))


@pytest.mark.parametrize("executor", ["auto", *EXECUTORS])
def test_the_routers_decisions_are_run(model, executor):
    image = picture(1 if executor == "branch" else 5)
    forward = SkippingForward(model, executor=executor)
    forward.costs[SIZE] = free(model)
    got = forward(image)  # without any mode of the caller's
    with torch.no_grad():
        same(got, model(image), executor)
        keep_BR = model.router.keep(image)
    assert not any(value.requires_grad for value in got.values())
    assert forward.last.executor == ("mask" if executor == "auto" else executor)
    assert forward.last.table == tuple(map(tuple, keep_BR.tolist()))
    assert forward.last.blocks_run == tuple(keep_BR.sum(1).tolist())
    assert forward.last.kept_fraction == pytest.approx(keep_BR.float().mean().item())
    assert sum(forward.last.policies.values()) == len(image)
    with torch.inference_mode():
        same(forward(image), got, executor)


def test_auto_without_a_book_branches_for_one_picture_and_measures_for_more(model, monkeypatch):
    measured = []
    forward = SkippingForward(model)
    monkeypatch.setattr(CostModel, "measure", lambda *args: measured.append(args[1:3]) or free(model))
    forward(picture(1))
    assert forward.last.executor == "branch" and not measured
    forward(picture(4))
    forward(picture(6))
    forward(picture(2, (40, 40)))
    assert measured == [(SIZE, [1, 2, 8, 16]), ((40, 40), [1, 2, 8, 16])]  # once per size


@torch.inference_mode()
@pytest.mark.parametrize(("static", "taken"), [(1.0, "codebook"), (99.0, "branch")])
def test_one_picture_takes_the_book_where_that_is_measured_to_be_faster(model, monkeypatch, static, taken):
    count = len(model.plan.routed())
    half = tuple(r < count // 2 for r in range(count))
    nodes = [NodeCost(node.route, Curve({1: 1.0})) for node in model.network.nodes]
    costs = CostModel(nodes, Curve({1: 1.0}), static={half: Curve({1: static})})
    measured = []
    monkeypatch.setattr(CostModel, "measure", lambda *args: measured.append(args[1:3]) or costs)
    forward, image = SkippingForward(model, codebook=[half]), picture(1)
    for _ in range(2):
        same(forward.run(image, (half,)), executors.mask(model, image, (half,)), taken)
        assert forward.last.executor == taken
    forward.run(image, ((False,) * count,))  # not in the book: nothing to choose
    assert forward.last.executor == "branch"
    assert measured == [(SIZE, [1])]  # soon done
    forward.run(picture(2), (half, half))
    assert measured == [(SIZE, [1]), (SIZE, [1, 2, 8, 16])]


@torch.inference_mode()
def test_what_was_chosen_for_a_picture_alone_is_remembered_until_times_are_measured_anew(model, monkeypatch):
    count = len(model.plan.routed())
    half = tuple(r < count // 2 for r in range(count))
    nodes = [NodeCost(node.route, Curve({1: 1.0})) for node in model.network.nodes]
    costs = CostModel(nodes, Curve({1: 1.0}), static={half: Curve({1: 1.0})})
    asked, choose = [], CostModel.choose
    monkeypatch.setattr(CostModel, "measure", lambda *args: costs)
    monkeypatch.setattr(
        CostModel, "choose", lambda self, table, among: asked.append(table) or choose(self, table, among)
    )
    forward, full = SkippingForward(model, codebook=[half]), (True,) * count
    for policy in (half, full, half, half, full):
        same(forward.run(picture(1), (policy,)), executors.mask(model, picture(1), (policy,)), str(policy))
        assert forward.last.table == (policy,)
    assert asked == [(half,), (full,)]
    forward.run(picture(1, (40, 40)), (half,))
    assert asked[2:] == [(half,)]  # another size
    costs.static[half] = Curve({1: 99.0})
    costs._known.clear()
    forward.run(picture(1), (half,))
    assert forward.last.executor == "codebook"
    forward.warm_up(SIZE)
    forward.run(picture(1), (half,))
    assert forward.last.executor == "branch"


@torch.inference_mode()
def test_a_remembered_network_is_the_books(model, monkeypatch):
    count = len(model.plan.routed())
    policies = [tuple(r != first for r in range(count)) for first in range(3)]
    forward = SkippingForward(model, codebook=policies)
    forward.book.limit = 2
    monkeypatch.setattr(CostModel, "choose", lambda self, table, among: "codebook")
    for _ in range(2):
        for policy in policies:
            same(
                forward.run(picture(1), (policy,)), executors.mask(model, picture(1), (policy,)), str(policy)
            )
            assert len(forward.book.networks) <= 2 and policy in forward.book.networks


@torch.inference_mode()
def test_the_router_decides_in_float32_whatever_the_caller_mixes(model):
    forward, seen = SkippingForward(model), []
    logits = forward._logits
    forward._logits = lambda image: seen.append(logits(image)) or seen[-1]
    expected = forward.decide(picture(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert forward.decide(picture(4)) == expected
        forward(picture(4))
    assert [value.dtype for value in seen] == [torch.float32] * 3


@torch.inference_mode()
def test_no_more_is_remembered_than_fits(model, monkeypatch):
    monkeypatch.setattr(skipping, "KNOWN", 3)
    forward, count = SkippingForward(model), len(model.plan.routed())
    for first in range(count):
        forward.run(picture(1), (tuple(r != first for r in range(count)),))
        assert len(forward._ways_of_one) <= 3 and forward.last.executor == "branch"


class WaitsForTheDevice(TorchDispatchMode):
    """Operators that on a GPU would make the host wait: their results are read, or their sizes depend on values."""

    NAMES = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique",
        "unique_dim",
        "item",
    )

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith(("index", "_index")) and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for argument in args if isinstance(argument, list | tuple) for index in argument
        )  # fmt: skip
        if name.startswith(self.NAMES) or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
@pytest.mark.parametrize("executor", ["auto", *EXECUTORS])
@pytest.mark.parametrize("batch", [1, 6])
def test_a_batch_waits_once_for_its_decisions(model, monkeypatch, executor, batch):
    if executor == "branch" and batch > 1:
        return
    forward = SkippingForward(model, executor=executor)
    forward.costs[SIZE] = free(model)
    forward(picture(batch))  # static networks are made
    copies = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original, name=name, **more):
            copies.append(name)
            return original(self, *args, **more)

        monkeypatch.setattr(torch.Tensor, name, counted)
    with WaitsForTheDevice() as waits:
        forward(picture(batch))
    assert copies == ["tolist"] and not waits.seen


def test_what_makes_the_host_wait_is_seen():
    x = torch.arange(3.0)
    with WaitsForTheDevice() as waits:
        x[x > 1], x.max().item(), x.nonzero(), x[torch.tensor([0, 1])]
    assert len(waits.seen) >= 3 and "nonzero" in waits.seen and "_local_scalar_dense" in waits.seen


@pytest.mark.gpu
@torch.inference_mode()
def test_on_a_gpu_nothing_waits_but_the_decisions(model):
    """torch itself raises where the host waits; the decisions are waited for by their stream, which it allows."""
    device = torch.device("cuda")
    for executor in ("gather", "segments", "group", "codebook"):
        forward, image = SkippingForward(model, device, "32", executor), picture(6).to(device)
        forward.costs[SIZE] = free(model)
        expected = forward(image)
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = forward(image)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value)


@torch.inference_mode()
def test_measured_for_real(model):
    forward = SkippingForward(model)
    forward.warm_up(SIZE, batch=4, repeats=1)
    image = picture(6)
    for table in tables(model, 6):
        same(forward.run(image, table), executors.mask(model, image, table), table)


@torch.inference_mode()
def test_a_book_is_exact_by_itself_and_covers_when_told(model):
    count = len(model.plan.routed())
    half = tuple(r < count // 2 for r in range(count))
    image, inside = picture(3), (half, (True,) * count, half)
    outside = (half, (False,) * count, half)
    forward = SkippingForward(model, codebook=[half])
    costs = forward.costs[SIZE] = free(model)
    costs.static |= {half: Curve({1: -1.0})}  # the fastest there is
    same(forward.run(image, inside), executors.mask(model, image, inside), "inside")
    assert forward.last.executor == "codebook" and forward.last.policies[half] == 2
    same(forward.run(image, outside), executors.mask(model, image, outside), "outside")
    assert forward.last.executor != "codebook"
    forced = SkippingForward(model, executor="codebook", codebook=[half])
    same(forced.run(image, outside), executors.mask(model, image, (half,) * 3), "covered")
    assert forced.last.table == (half,) * 3


def test_decisions_do_not_depend_on_the_precision(model):
    image = picture(6)
    exact, rounded = SkippingForward(model, executor="gather"), SkippingForward(model, None, "bf16", "gather")
    outputs = exact(image), rounded(image)
    assert exact.last == rounded.last
    assert outputs[1]["room"].dtype == torch.bfloat16


def test_what_is_refused(model, routed_artifact, artifact, tmp_path):
    with pytest.raises(
        SpecError, match="'fast' is not an executor; choose one of auto, mask, branch, gather"
    ):
        SkippingForward(model, executor="fast")
    with pytest.raises(SpecError, match="'branch' runs one picture at a time, not 2"):
        SkippingForward(model, executor="branch")(picture(2))
    with pytest.raises(SpecError, match="'fast' is not an executor"):
        load(artifact, "cpu", executor="fast")
    with pytest.raises(SpecError, match="'gather' is for artifacts with a router, and .* has none"):
        load(artifact, "cpu", executor="gather")
    with pytest.raises(SpecError, match="fixed when it was exported"):
        load(tmp_path / "model.onnx", executor="gather")
    with pytest.raises(SpecError, match="decides by picture"):
        load(routed_artifact, "cpu", cuda_graphs=True)


def test_a_loaded_artifact_skips(routed_artifact):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), dtype=np.uint8)
    expected = load(routed_artifact, "cpu", executor="mask").predict_many(list(pixels), batch=3)
    loaded = load(routed_artifact, "cpu", executor="segments")
    for got, result in zip(loaded.predict_many(list(pixels), batch=3), expected, strict=True):
        assert got["room"].probabilities == pytest.approx(result["room"].probabilities, abs=1e-4)
    assert isinstance(loaded.forward, SkippingForward) and len(loaded.forward.last.table) == 3
    one = load(routed_artifact, "cpu").predict(pixels[0])
    assert one["room"].probabilities == pytest.approx(expected[0]["room"].probabilities, abs=1e-4)
    again = loaded.optimized("size").forward
    assert isinstance(again, SkippingForward) and again.executor == "segments"
    assert not load(routed_artifact, "cpu").forward.has_book
    usual = ((True,) * len(loaded.manifest.plan.routed()),)
    book = loaded.place(loaded.network, replace(loaded.manifest, policies=usual))
    assert not book.has_book  # a larger network would stand in
    automatic = load(routed_artifact, "cpu")
    book = automatic.place(automatic.network, replace(automatic.manifest, policies=usual))
    assert book.has_book and book.book.policies == list(usual)
    named = replace(automatic.manifest, policies=usual)
    assert Manifest.from_dict(json.loads(json.dumps(named.to_dict()))).policies == usual


@pytest.mark.parametrize("executor", ["auto", *EXECUTORS])
def test_no_picture_has_no_answer(executor, model):
    outputs = SkippingForward(model, executor=executor)(torch.zeros(0, 3, 32, 32))
    assert (
        all(len(value) == 0 for value in outputs.values())
        and outputs.keys() == model(torch.zeros(1, 3, 32, 32)).keys()
    )
