"""Dynamic exports: what is read back gives what the mask reference gives, whatever the router decides."""

import json

import onnx
import pytest
import torch

from perceptkit.compact import export_dynamic as dynamic
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import compact_and_fold, with_router
from perceptkit.compact.export import export_network
from perceptkit.compact.export_dynamic import export_dynamic
from perceptkit.compact.route_cost import route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.skip_graph import BranchNet, branches
from perceptkit.errors import ExportError, SpecError
from perceptkit.model import cost
from perceptkit.runtime.load import load
from tests.compact.conftest import SIZE, lone, manifest_of, network, plan_of
from tests.compact.test_routed import ROUTER, some_router

CHOSEN = ("seg", "room")


def routed_of(name="test_resnet", chosen=CHOSEN, keep="mixed", route=lambda b: True):
    net = network(name, chosen=chosen)
    plan = plan_of(net, keep)
    plan = plan.with_routed([b for b in range(len(plan.blocks)) if route(b)])
    manifest = Manifest(**(vars(manifest_of(net, plan, name)) | {"router": ROUTER}))
    model = with_router(some_router(len(plan.routed())), compact_and_fold(net, plan, SIZE), manifest)
    return net, model, manifest


def noise(batch, seed=3):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def agrees(path, routed, batches):
    """What `load` gives for the file, beside the reference."""
    model = load(path, device="cpu")
    for batch in batches:
        image = noise(batch, batch)
        got, expected = model.forward(image), routed(image)
        assert list(got) == list(expected)
        for task, value in expected.items():
            torch.testing.assert_close(got[task], value, atol=1e-4, rtol=1e-4)
    return model


def test_costs_are_those_of_the_supernet():
    net, routed, manifest = routed_of(chosen=("seg", "depth", "room"), route=lambda b: b != 1)
    found = route_cost(routed, SIZE)
    steps = cost.measure(net, SIZE)
    always, added = cost.routed_macs(net, manifest.plan, steps)
    assert found.added_R == added
    assert found.always == pytest.approx(always, rel=0.01)  # heads of a leaf are fused
    assert found.router > 0 and found.full == found.always + sum(added)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["branch", "gather"])
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("test_resnet", ("seg", "room")),
        ("test_resnet", ("seg", "depth", "normals", "room")),
        ("test_vit", ("seg", "room")),
        ("test_convnext", ("seg", "room")),
        ("cifar10_resnet20", ("room",)),
        ("decathlon_resnet26", ("room",)),
    ],
)
def test_one_file(tmp_path, how, name, chosen):
    _, routed, manifest = routed_of(name, chosen)
    path = export_dynamic(routed, manifest, tmp_path / "model.onnx", how)
    agrees(path, routed, (1, 2, 3, 8))
    report = json.loads((tmp_path / "parity.json").read_text())["model.onnx"]
    assert report["dynamic_skip"] == how and report["compared_on"]["decisions"] == 16
    assert set(report["heads"]) == set(manifest.tasks)
    model = onnx.load(str(path))
    told = {entry.key for entry in model.metadata_props}
    assert {f"output.{output.name}" for output in model.graph.output} <= told
    graph = onnx.load(str(path)).graph
    conditions = [node for node in graph.node if node.op_type == "If"]
    assert len(conditions) == sum(node.route is not None for node in routed.network.nodes)
    # weights of a block are in its own branch: onnxruntime lays out no others
    first = next(branch for branch in branches(conditions[0]) if len(branch.node) > 1)
    assert first.initializer


@pytest.mark.slow
def test_a_codebook_that_drops_blocks(tmp_path):
    _, routed, manifest = routed_of(chosen=("room",))
    path = export_dynamic(
        routed, manifest, tmp_path / "book", "codebook", [noise(8)], policies=1, nearest=True
    )
    told, report = (json.loads((path / name).read_text()) for name in ("codebook.json", "parity.json"))
    assert told["assign"] == "nearest" and report["codebook"]["may_drop"] and report["codebook"]["nearest"]
    model = load(path, device="cpu").forward
    (only,), image = told["networks"], noise(3)
    for task, value in routed.masked(image, torch.tensor(only["keep"]).expand(3, -1)).items():
        torch.testing.assert_close(model(image)[task], value, atol=1e-4, rtol=1e-4)
    (path / "codebook.json").write_text(json.dumps(told | {"assign": "cheapest"}))
    with pytest.raises(ExportError, match="is damaged"):
        load(path, device="cpu")


@pytest.mark.slow
def test_a_codebook(tmp_path):
    _, routed, manifest = routed_of()
    path = tmp_path / "book"
    export_dynamic(routed, manifest, path, "codebook", [noise(8), noise(8, 4)], policies=3)
    told = json.loads((path / "codebook.json").read_text())
    assert 1 < len(told["networks"]) <= 3 and told["outputs"] == list(manifest.tasks)
    assert sum(entry["share"] for entry in told["networks"]) == pytest.approx(1)
    assert all(told["networks"][-1]["keep"])
    model = load(path, device="cpu")
    assert model.manifest.plan == manifest.plan
    report = json.loads((path / "parity.json").read_text())
    assert report["codebook"]["policies"] == len(told["networks"]) and report["codebook"]["pictures"] == 16
    keep = torch.tensor([entry["keep"] for entry in told["networks"]])
    for i, keep_R in enumerate(keep):  # wanted as the book has it: nothing is added
        image = noise(2, i)
        got = model.forward.answer(image, keep_R.expand(2, -1))
        for task, value in routed.masked(image, keep_R.expand(2, -1)).items():
            torch.testing.assert_close(got[task], value, atol=1e-4, rtol=1e-4)
    pictures = [*noise(8).split(1), *noise(8).split(1)]  # each for the second time from what was remembered
    for one in pictures:
        by_hand = model.forward.answer(one, model.forward.decide(one))
        assert all(torch.equal(value, by_hand[task]) for task, value in model.forward(one).items())
    assert len(model.forward._assigned) == len(routed.router.keep(noise(8)).unique(dim=0))
    again = export_dynamic(routed, manifest, path, "codebook", [noise(8)], policies=1)
    assert sorted(p.name for p in again.iterdir()) == [
        "codebook.json",
        "network_0.onnx",
        "parity.json",
        "router.onnx",
    ]
    agrees_with_all = load(again, device="cpu").forward(noise(3))
    (only,) = json.loads((again / "codebook.json").read_text())["networks"]
    with torch.no_grad():
        assert only["keep"] == routed.router.keep(noise(8)).any(0).tolist()
    every = torch.tensor(only["keep"]).expand(3, -1)
    for task, value in routed.masked(noise(3), every).items():
        torch.testing.assert_close(agrees_with_all[task], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["branch", "codebook"])
def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, way):
    def stopped(*args, **more):
        assert list(tmp_path.iterdir()) or way == "branch"  # the unfinished folder
        raise KeyboardInterrupt

    monkeypatch.setattr(dynamic, "router_graph" if way == "codebook" else "_prove_file", stopped)
    monkeypatch.setattr(dynamic, "branch_graph", lambda *args: onnx.ModelProto())
    _, routed, manifest = routed_of(chosen=("room",))
    path = tmp_path / ("book" if way == "codebook" else "model.onnx")
    with pytest.raises(KeyboardInterrupt):
        export_dynamic(routed, manifest, path, way, [noise(2)])
    assert not list(tmp_path.iterdir())


def test_every_table_is_tried_at_one_batch_and_some_at_the_others():
    _, routed, _ = routed_of(chosen=("room",))
    asked = []

    def answer(image, keep_BR):
        asked.append(len(image))
        return routed.masked(image, keep_BR)

    images = dynamic._images(SIZE, (1, 2, 3))
    heads = dynamic._prove(routed, images, routed, routed.router.keep, answer)
    assert asked == [1] * 4 + [2] * 4 + [3] * 16 and heads["room"]["max_abs"] == 0
    with pytest.raises(ExportError, match="router does not decide"):
        dynamic._prove(routed, images[:1], routed, lambda image: ~routed.router.keep(image), answer, every=1)


@pytest.mark.slow
def test_a_wrong_branch_is_never_written(tmp_path, monkeypatch):
    """A branch that swaps what is kept and skipped is right for no table but by chance."""
    visit = BranchNet.visit

    def swapped(self, node, x, shared, keep_BR):
        return visit(self, node, x, shared, ~keep_BR)

    monkeypatch.setattr(BranchNet, "visit", swapped)
    _, routed, manifest = routed_of(chosen=("room",), keep="all")
    with pytest.raises(ExportError, match="does not reproduce"):
        export_dynamic(routed, manifest, tmp_path / "model.onnx", "branch")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_router_that_decides_otherwise_is_never_written(tmp_path, monkeypatch):
    _, routed, manifest = routed_of(chosen=("room",))
    honest = dynamic.branch_graph

    def other(model, size_HW):
        with torch.no_grad():
            model = RoutedNet(some_router(len(model.plan.routed())), model.network, model.plan)
            model.router.decide.weight.neg_()
        return honest(model, size_HW)

    monkeypatch.setattr(dynamic, "branch_graph", other)
    with pytest.raises(ExportError, match="router does not decide"):
        export_dynamic(routed, manifest, tmp_path / "model.onnx", "branch")
    assert not list(tmp_path.iterdir())


def test_refused(tmp_path):
    _, routed, manifest = routed_of(chosen=("room",))
    with pytest.raises(SpecError, match="no router.*plain `perceptkit export`"):
        export_dynamic(*lone(), tmp_path / "model.onnx", "branch")
    with pytest.raises(SpecError, match="'if' is no way to skip; choose one of branch, gather, codebook"):
        export_dynamic(routed, manifest, tmp_path / "model.onnx", "if")
    with pytest.raises(SpecError, match=r"ends in \.onnx"):
        export_dynamic(routed, manifest, tmp_path / "model.pt2", "branch")
    with pytest.raises(SpecError, match="--pictures must be at least 1"):
        export_dynamic(routed, manifest, tmp_path / "book", "codebook")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    with pytest.raises(SpecError, match="is no codebook"):
        export_dynamic(routed, manifest, tmp_path / "mine", "codebook", [noise(1)])
    for format in ("torch", "aoti", "onnx"):
        with pytest.raises(SpecError, match="decides by picture.*--dynamic-skip"):
            export_network(routed, manifest, tmp_path / "model", format)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
