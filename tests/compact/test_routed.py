"""A routed compact model: for any decisions its outputs are those of the supernet with the resolved plan."""

import pytest
import torch

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import (
    compact_and_fold,
    keep_tables,
    read,
    with_router,
    write_artifact,
)
from perceptkit.compact.network import CompactNet
from perceptkit.compact.route_cost import route_cost
from perceptkit.model.blocks import num_params
from perceptkit.model.router import build_router
from perceptkit.spec.router import RouterSpec
from tests.compact.conftest import SIZE, manifest_of, network, plan_of

ROUTER = RouterSpec(name="resnet8", downscale=4)


def some_router(num_routed):
    """With decisions that differ between pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = build_router(ROUTER, num_routed, SIZE)
        torch.nn.init.normal_(router.decide.weight)
        torch.nn.init.zeros_(router.decide.bias)
    return router.eval()


@pytest.fixture
def routed():
    """Supernet, routed plan, router, routed compact model."""
    net = network()
    plan = plan_of(net, "mixed")
    plan = plan.with_routed([b for b in range(len(plan.blocks)) if b % 3])
    router = some_router(len(plan.routed()))
    small = compact_and_fold(net, plan, SIZE)
    manifest = Manifest(**(vars(manifest_of(net, plan)) | {"router": ROUTER}))
    return net, plan, router, with_router(router, small, manifest), manifest


def close(got, expected):
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_every_table_gives_the_supernets_outputs(routed, image):
    net, plan, _, model, _ = routed
    for keep_BR in keep_tables(len(image), len(plan.routed())):
        got = model.masked(image, keep_BR)
        close(got, net(image, plan, keep_BR=keep_BR))
        for i, keep_R in enumerate(keep_BR.tolist()):
            one = {name: value[i : i + 1] for name, value in got.items()}
            close(one, net(image[i : i + 1], plan.resolved(keep_R)))
            close(one, model.static(keep_R)(image[i : i + 1]))


@torch.no_grad()
def test_a_static_network_holds_nothing_it_skips(routed, image):
    _, plan, _, model, _ = routed
    none = model.static([False] * len(plan.routed()))
    assert isinstance(none, CompactNet)
    assert all(node.route is None for node in none.nodes)
    blocks = {plan.blocks[b] for b in plan.routed()}
    assert not blocks & {node.module for node in none.nodes}
    assert sum(p.numel() for p in none.parameters()) < sum(p.numel() for p in model.network.parameters())


@torch.no_grad()
def test_the_router_decides(routed, image):
    _, _, router, model, _ = routed
    keep_BR = router(image) >= 0
    assert 0 < keep_BR.float().mean() < 1
    close(model(image), model.masked(image, keep_BR))


@torch.no_grad()
def test_written_read_and_verified(routed, image, tmp_path):
    net, _, router, model, manifest = routed
    report = write_artifact(tmp_path / "artifact", net, manifest, router)
    assert set(report["heads"]) == {*net.tasks, "router"}
    again, told = read(tmp_path / "artifact")
    priced = route_cost(again, SIZE)
    assert told.written == {
        "params": num_params(again.network) + num_params(again.router),
        "macs": priced.full + priced.router,
    }
    assert told.plan == manifest.plan and told.router == ROUTER
    close(again(image), model(image))
    assert "?" in (tmp_path / "artifact/README.md").read_text()


@torch.no_grad()
def test_some_tasks(routed, image):
    *_, model, _ = routed
    everything = model(image)
    close(model.only(["seg"])(image), {"seg": everything["seg"]})
