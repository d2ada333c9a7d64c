"""Every way to skip gives the outputs of the masked reference, for any table, batch and network."""

from collections import Counter
from functools import lru_cache

import pytest
import torch

from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.network import Leaf, Node, _spending
from perceptkit.compact.routed import RoutedNet
from perceptkit.model.build import build_supernet
from perceptkit.model.router import build_router
from perceptkit.runtime import executors
from perceptkit.runtime.skip_table import merged, sort
from perceptkit.runtime.skipping import EXECUTORS
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.spec.router import RouterSpec
from tests.compact.conftest import SIZE, network, plan_of
from tests.data.conftest import make_tasks

SWIN = "swin_tiny_patch4_window7_224"
ARGS = {SWIN: {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": 4}}
BACKBONES = [
    "test_resnet",
    "test_vit",
    "test_convnext",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("tf_efficientnet_lite0", "mobilenetv3_small_050", "cifar10_resnet20", SWIN)
    ),
]


@lru_cache
def routed(name="test_resnet", keep="mixed", every=1, chosen=("seg", "depth", "room")):
    """A model whose blocks are routed, but for each `every`-th where that is more than 1."""
    if name in ARGS:
        spec = BackboneSpec(name=name, weights="none", args=ARGS[name])
        tasks = {task: made for task, made in make_tasks().items() if task in chosen}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = build_supernet(spec, HeadsSpec(channels=16), tasks, SIZE).eval()
    else:
        net = network(name, chosen=chosen)
    plan = plan_of(net, keep)
    plan = plan.with_routed([b for b in range(len(plan.blocks)) if every == 1 or b % every])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = build_router(RouterSpec(downscale=4), len(plan.routed()), SIZE)
    return RoutedNet(router, compact_and_fold(net, plan, SIZE), plan)


def tables(model, batch, seed=0):
    """All, none, random, few policies, one that differs by picture in one block, one with blocks that nobody keeps."""
    count = len(model.plan.routed())
    generator = torch.Generator().manual_seed(seed + batch)
    some = torch.rand(3, count, generator=generator) < 0.5
    found = [
        torch.ones(batch, count),
        torch.zeros(batch, count),
        torch.rand(batch, count, generator=generator) < 0.5,
    ]
    found += [some[torch.arange(batch) % 3], torch.arange(batch)[:, None] % count != torch.arange(count)]
    found += [found[2].bool() & (torch.arange(count) % 2 > 0)]
    return [tuple(map(tuple, table.bool().tolist())) for table in found]


def every_way(model, image, table):
    batch = sort(table)
    yield "gather", executors.gather(model, image, table)
    yield "segments", executors.segments(model, image, batch)
    yield (
        "merged",
        executors.segments(model, image, batch, lambda node, kept, runs: merged(runs, lambda n: 5 + n)),
    )
    yield "group", executors.group(model, image, batch)
    if len(set(table)) < 4:  # making a static network takes longer than all the others
        yield "codebook", executors.Codebook(model, table)(image, batch)
    if len(image) == 1:
        yield "branch", executors.branch(model, image, table[0])


def same(got, expected, what):
    assert list(got) == list(expected)
    for name, value in expected.items():
        difference = (got[name] - value).abs().max()
        assert difference <= 1e-5 * max(1, value.abs().max()), (what, name, difference)


def picture(batch, size_HW=SIZE):
    return torch.randn(batch, 3, *size_HW, generator=torch.Generator().manual_seed(batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_all_backbones(name):
    model, tried = routed(name), {"mask"}
    for batch in (1, 3):
        image = picture(batch)
        before = image.clone()
        for table in tables(model, batch):
            expected = executors.mask(model, image, table)
            for way, got in every_way(model, image, table):
                same(got, expected, (way, table))
                tried.add(way)
        assert torch.equal(image, before)  # the caller's
    assert tried >= set(EXECUTORS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, keep, batches",
    [
        ("test_resnet", "all", (2, 9)),
        ("test_vit", "first", (1, 3, 5)),
        pytest.param("cifar10_resnet20", "mixed", (4, 6, 7, 8), marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_all_batches_and_tries(name, keep, batches):
    model = routed(name, keep, every=5, chosen=("seg", "normals", "room"))
    for batch in batches:
        image = picture(batch)
        for table in tables(model, batch):
            expected = executors.mask(model, image, table)
            for way, got in every_way(model, image, table):
                same(got, expected, (way, table))


@pytest.mark.parametrize("size_HW", [(50, 70), (33, 97)])
@torch.no_grad()
def test_odd_sizes(size_HW):
    model = routed()
    image = picture(5, size_HW)
    for table in tables(model, 5):
        expected = executors.mask(model, image, table)
        for way, got in every_way(model, image, table):
            same(got, expected, (way, table))


def nodes_seen(monkeypatch):
    """(module, input) of every block that runs."""
    seen = []
    original = executors.run_node

    def run(network, node, x, shared):
        seen.append((node, x))
        return original(network, node, x, shared)

    monkeypatch.setattr(executors, "run_node", run)
    return seen


@pytest.mark.parametrize("way", ["gather", "segments"])
@torch.inference_mode()
def test_blocks_see_only_the_rows_that_keep_them(way, monkeypatch):
    model, image = routed(), picture(6)
    seen = nodes_seen(monkeypatch)
    for table in tables(model, 6):
        seen.clear()
        run = getattr(executors, way)
        run(model, image, table if way == "gather" else sort(table))
        rows = Counter()
        for node, x in seen:
            assert len(x) > 0
            rows[node] += len(x)
        for node in model.network.nodes:
            assert rows[node] == (6 if node.route is None else sum(policy[node.route] for policy in table))


@torch.inference_mode()
def test_channels_last_is_kept(monkeypatch):
    model, image = routed(), picture(6).to(memory_format=torch.channels_last)
    seen = nodes_seen(monkeypatch)
    for table in tables(model, 6):
        for _ in every_way(model, image, table):
            assert all(x.is_contiguous(memory_format=torch.channels_last) for _, x in seen if len(x) > 1)
            seen.clear()


@torch.inference_mode()
def test_segments_are_views_and_written_in_place(monkeypatch):
    """Of a chain of identity blocks, all work in the memory of the first one's input."""
    model, image = routed("cifar10_resnet20", keep="all", chosen=("room",)), picture(4)
    seen = nodes_seen(monkeypatch)
    count = len(model.plan.routed())
    table = tuple((i < 2,) * count for i in range(4))
    executors.segments(model, image, sort(table))
    stage = [x for node, x in seen if node.module.startswith("layer1.")]
    assert len(stage) == 3 and len({x.untyped_storage().data_ptr() for x in stage}) == 1


@torch.no_grad()
def test_what_others_still_read_is_not_written_over():
    """After a block that all pictures skip, the first branch must not change what the second, and the neck, read."""
    memory = executors.Memory(image := torch.zeros(2, 1, 1, 1))
    assert not memory.may_write(image, last=True)
    x = image + 1
    assert memory.may_write(x, last=True) and not memory.may_write(x, last=False)
    memory.passed(x, x, last=False)  # skipped by all, and x is needed again
    assert not memory.may_write(x, last=True)
    y = image + 2
    memory.passed(y, y.flatten(1), last=True)
    assert memory.may_write(y.flatten(1), last=True)


@torch.no_grad()
def test_heads_read_their_features_after_the_node_they_follow():
    nodes = [Node("stem", 0), Node("a", 1, 0), Node("b", 2, 1), Node("c", 2, 2)]
    leaves = [Leaf(("x",), 3, (2, 3)), Leaf(("y",), 4, (1, 4))]
    # b is not the last to read a; c reads it last, and only the first leaf, answered before, taps it
    assert _spending(nodes, leaves) == {
        0,
        3,
    }  # the stem's output is tapped by the second leaf, after a has read it


def test_the_codebook_covers_with_the_smallest_superset():
    model = routed("cifar10_resnet20", keep="all", chosen=("room",))
    count = len(model.plan.routed())
    low = tuple(r < 3 for r in range(count))
    more = tuple(r < 5 for r in range(count))
    book = executors.Codebook(model, [more, low], limit=2)
    everything = (True,) * count
    assert book.policies == [low, more, everything]
    assert book.member(low) == low and book.holds(low)
    assert book.member((False,) * count) == low and not book.holds((False,) * count)
    assert book.member(tuple(r in (0, 4) for r in range(count))) == more
    assert book.member((False,) * (count - 1) + (True,)) == everything
    first = book.network(low)
    assert book.network(low) is first
    book.network(more)
    book.network(everything)
    assert book.network(low) is not first  # it was the one not used for longest
    assert next(first.parameters()) is next(model.network.parameters())
    with pytest.raises(ValueError, match="no decision on"):
        executors.Codebook(model, [(True,)])
