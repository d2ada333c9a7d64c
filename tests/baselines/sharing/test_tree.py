"""A tree of copies: equal to the shared network when it parts, and every part where it belongs."""

import pytest
import torch

from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.task_tree import TaskTree
from tests.baselines.sharing.conftest import (
    SIZE,
    all_kept,
    answer,
    make,
    noise,
    refuse_another_compact_model,
)

ALL = [["seg", "depth", "room"]]
TWO = [["seg"], ["depth", "room"]]
ALONE = [["seg"], ["depth"], ["room"]]
LEVELS = [ALL, TWO, TWO, ALONE]
"""test_resnet has four blocks."""


def moved(net):
    """With other weights in every copy."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(7)))
    for i, name in enumerate(net.own):
        for j, copy in enumerate(net.net.backbone.get_submodule(name).children()):
            with torch.no_grad():
                next(copy.parameters()).add_(0.01 * (i + j))
    return net


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_when_tasks_part_nothing_changes(name):
    net = make("fafs", name)
    blocks = len(net.blocks)
    levels = [ALL] * (blocks - 3) + [TWO, TWO, ALONE]
    expected = answer(net, noise())
    net.part(TaskTree.of(levels, list(net.tasks), blocks))
    got = answer(net, noise())
    assert all(torch.equal(got[task], expected[task]) for task in net.tasks)
    assert all(torch.equal(answer(net, noise(), [task])[task], got[task]) for task in net.tasks)
    plain = answer(net.plain(), noise())
    assert all(torch.equal(plain[task], expected[task]) for task in net.tasks)


def test_parting_level_by_level_is_parting_at_once():
    at_once, by_level = make("fafs"), make("fafs")
    at_once.part(TaskTree.of(LEVELS, list(at_once.tasks), 4))
    for levels in ([ALL, ALL, ALL, ALONE], [ALL, ALL, TWO, ALONE], LEVELS):
        by_level.part(TaskTree.of(levels, list(by_level.tasks), 4))
    assert by_level.own == at_once.own
    expected = at_once.state_dict()
    assert by_level.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in by_level.state_dict().items())


def test_parameters_and_macs_by_hand():
    """Copies: one of the first block, two of the next two, three of the last; two of the three leaves are dense."""
    net = make("fafs", tree=LEVELS)
    plain = net.plain()
    blocks = [num_params(plain.backbone.get_submodule(block.name)) for block in plain.blocks]
    stem = num_params(plain.backbone) - sum(blocks)
    backbone = stem + blocks[0] + 2 * (blocks[1] + blocks[2]) + 3 * blocks[3]
    made = cost.table(net, all_kept(net), SIZE)
    necks, heads = 2 * num_params(plain.neck), num_params(plain.heads)
    assert made["rows"]["compact"]["params"] == backbone + necks + heads
    steps = cost.measure(plain, SIZE)
    assert steps.plain[3:] == (0, 0)  # nothing lies between the last blocks
    macs = sum(steps.plain) + sum(n * steps.block[b] for b, n in enumerate([1, 2, 2, 3]))
    assert made["rows"]["compact"]["backbone_macs"] == macs
    assert made["per_task_macs"]["room"] == sum(steps.plain) + sum(steps.block) + steps.heads["room"]


@pytest.mark.parametrize(
    ("last", "necks"),
    [(ALL, 1), ([["seg", "depth"], ["room"]], 1), (TWO, 2), ([["depth"], ["seg", "room"]], 2)],
)
def test_a_neck_is_taken_off_for_each_group_that_has_one(last, necks):
    net = make("fafs", tree=[ALL, ALL, ALL, last])
    rows, steps = cost.table(net, all_kept(net), SIZE)["rows"], cost.measure(net.plain(), SIZE)
    macs = sum(steps.plain) + sum(steps.block) + (len(last) - 1) * steps.block[3]
    assert rows["compact"]["backbone_macs"] == macs
    assert rows["compact"]["macs"] == macs + necks * steps.neck + sum(steps.heads.values())
    if last == ALL:
        assert rows["compact"] == rows["hard_shared"]


def test_a_copy_is_read_by_its_group_alone():
    net = make("fafs", tree=LEVELS)
    before = answer(net, noise())
    assert [len(net.net.backbone.get_submodule(name)) for name in net.own] == [2, 2, 3]
    with torch.no_grad():  # the second block of depth and room
        next(net.net.backbone.get_submodule(f"{net.own[0]}.task_depth").parameters()).mul_(2)
    after = answer(net, noise())
    assert torch.equal(after["seg"], before["seg"])
    assert not torch.equal(after["depth"], before["depth"])
    assert not torch.equal(after["room"], before["room"])


@pytest.mark.parametrize("chosen", [["depth"], ["room"], ["seg", "room"], ["depth", "room"]])
def test_some_tasks(chosen):
    """The first task of a group may be among those left out; what is left is the network that would be built for it."""
    net = moved(make("fafs", tree=LEVELS))
    part = net.only(chosen)
    whole, got = answer(net, noise()), answer(part, noise())
    assert list(got) == chosen and all(torch.equal(got[task], whole[task]) for task in chosen)
    built = make("fafs", chosen=chosen, tree=LEVELS)
    assert built.state_dict().keys() == part.state_dict().keys()
    built.load_state_dict(part.state_dict())
    assert all(torch.equal(answer(built, noise())[task], whole[task]) for task in chosen)


def test_the_compact_model():
    refuse_another_compact_model(moved(make("fafs", tree=LEVELS)))


def test_a_tree_of_another_backbone():
    with pytest.raises(SpecError, match="sharing.tree: 2 levels; this backbone has 4 blocks"):
        make("fafs", tree=LEVELS[:2])


def test_gradients_of_a_shared_block_are_of_all_its_tasks():
    net = make("fafs", tree=LEVELS).train()
    outputs = net(noise(4), all_kept(net))
    outputs["room"].sum().backward()
    of = {name: net.net.backbone.get_submodule(name) for name in net.own}
    for copies in of.values():
        for key, copy in copies.items():
            used = any(parameter.grad is not None for parameter in copy.parameters())
            assert used == (
                key in ("task_room", "task_depth") and not (len(copies) == 3 and key == "task_depth")
            )
