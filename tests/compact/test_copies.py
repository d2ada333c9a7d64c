"""Two copies of a block: the compact model runs for each picture the copy that its router names, however it is run."""

import copy

import pytest
import torch

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import compact_and_fold, keep_tables, read, with_router, write_artifact
from perceptkit.compact.route_cost import route_cost
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.copies import add_copies, choose_copy, may_have_copies
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.runtime import executors
from perceptkit.runtime.skip_table import sort
from perceptkit.spec.router import RouterSpec
from tests.compact.conftest import SIZE, manifest_of, network, plan_of

ROUTER = RouterSpec(name="conv3", downscale=2)
BACKBONES = [
    "test_resnet",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("test_vit", "test_convnext")),
]


def with_copies(name="test_resnet", keep="mixed"):
    """A network whose tuned copies differ from the base's blocks, and its plan: every second kept block has two."""
    base = network(name)
    plan = plan_of(base, keep)
    plan = Plan(plan.tasks, plan.blocks, plan.table, dual=may_have_copies(base, plan)[::2])
    net = copy.deepcopy(base)
    add_copies(net, plan.dual)
    generator = torch.Generator().manual_seed(0)
    for parameter_name, parameter in net.named_parameters():
        if ".tuned." in parameter_name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return base, net.eval(), plan


def some_router(num_routed):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = build_router(ROUTER, num_routed, SIZE)
        torch.nn.init.normal_(router.decide.weight)
        torch.nn.init.zeros_(router.decide.bias)
    return router.eval()


def close(got, expected):
    assert list(got) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_the_base_copy_is_the_base(name, image):
    base, net, plan = with_copies(name)
    none = torch.zeros(len(image), len(plan.dual), dtype=torch.bool)
    for task, value in base(image, Plan(plan.tasks, plan.blocks, plan.table)).items():
        assert torch.equal(net(image, plan, keep_BR=none)[task], value)
    assert all(
        net.backbone.get_submodule(f"{block}.base") is not net.backbone.get_submodule(f"{block}.tuned")
        for block in plan.dual
    )
    ours, theirs = (
        {
            p.data_ptr()
            for block in plan.dual
            for p in net.backbone.get_submodule(f"{block}.{kind}").parameters()
        }
        for kind in ("base", "tuned")
    )
    assert not ours & theirs, "the copies share storage"


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("keep", ["all", "mixed"])
def test_each_picture_gets_the_network_of_its_copies(name, keep, image):
    _, net, plan = with_copies(name, keep)
    small = with_router(
        some_router(len(plan.dual)), compact_and_fold(net, plan, SIZE), routed_manifest(net, plan, name)
    )
    for keep_BR in keep_tables(len(image), len(plan.dual), count=4):
        expected = net(image, plan, keep_BR=keep_BR)
        close(small.masked(image, keep_BR), expected)
        table = tuple(map(tuple, keep_BR.tolist()))
        for run in (
            executors.gather,
            lambda m, x, t: executors.segments(m, x, sort(t)),
            lambda m, x, t: executors.group(m, x, sort(t)),
            lambda m, x, t: executors.Codebook(m)(x, sort(t)),
        ):
            close(run(small, image, table), expected)
        for i, keep_R in enumerate(keep_BR.tolist()):
            chosen = copy.deepcopy(net)
            for block, tuned in zip(plan.dual, keep_R, strict=True):
                choose_copy(chosen, block, tuned)
            one = chosen(image[i : i + 1], plan.resolved(keep_R))
            close(one, {task: value[i : i + 1] for task, value in expected.items()})
            static = small.static(keep_R)
            close(static(image[i : i + 1]), one)
            assert not any(
                f"{block}.{'base' if tuned else 'tuned'}." in parameter
                for block, tuned in zip(plan.dual, keep_R, strict=True)
                for parameter, _ in static.named_parameters()
                if "downsample" not in parameter
            )
            close(executors.branch(small, image[i : i + 1], keep_R), one)


def routed_manifest(net, plan, name="test_resnet"):
    return Manifest(**(vars(manifest_of(net, plan, name)) | {"router": ROUTER}))


@torch.no_grad()
def test_relaxed_choices_mix_the_two_copies(image):
    net = copy.deepcopy(network())
    plan, name = plan_of(net, "all"), net.blocks[-1].name
    add_copies(net, [name])
    net.backbone.get_submodule(f"{name}.tuned.conv1").weight.data *= 2
    plan = Plan(plan.tasks, plan.blocks, plan.table, dual=(name,))
    half = torch.full((len(image), 1), 0.5)
    seen = {}
    for kind in ("base", "tuned"):
        net.backbone.get_submodule(f"{name}.{kind}").register_forward_hook(
            lambda module, args, output, kind=kind: seen.__setitem__(kind, output.clone())
        )
    last = []
    net.run_heads, run_heads = (lambda f, x, *rest: last.append(x) or run_heads(f, x, *rest)), net.run_heads
    net(image, plan, keep_BR=half)
    torch.testing.assert_close(last[0], seen["base"] / 2 + seen["tuned"] / 2)


@torch.no_grad()
def test_written_read_and_verified(image, tmp_path):
    _, net, plan = with_copies()
    router = some_router(len(plan.dual))
    manifest = routed_manifest(net, plan)
    report = write_artifact(tmp_path / "artifact", net, manifest, router)
    assert set(report["heads"]) == {*net.tasks, "router"}
    again, told = read(tmp_path / "artifact")
    assert told.plan == plan
    priced = route_cost(again, SIZE)
    assert priced.added_R == (0,) * len(plan.dual), "one copy runs, whichever it is"
    close(again(image), with_router(router, compact_and_fold(net, plan, SIZE), manifest)(image))


def test_a_transition_that_only_some_tasks_keep_has_no_second_copy():
    net = network()
    transition = next(b for b, block in enumerate(net.blocks) if block.kind == "shortcut")
    plan = plan_of(net, lambda k, b: b != transition or k == 0)
    assert set(may_have_copies(net, plan)) == {block.name for block in net.blocks} - {
        net.blocks[transition].name
    }


def test_a_second_copy_is_counted_where_the_plan_has_it():
    base, net, plan = with_copies(keep="all")
    shared = Plan(plan.tasks, plan.blocks, plan.table)
    copies = sum(num_params(base.backbone.get_submodule(block)) for block in plan.dual)
    assert cost.params(net, shared) == cost.params(base, shared)
    assert cost.params(net, plan) == cost.params(base, shared) + copies
    assert plan.skippable() == () and len(plan.routed()) == len(plan.dual)
