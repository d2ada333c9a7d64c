"""Branching: the shared part runs once, the rest once per task, with weights of its own."""

import pytest
import torch

from perceptkit import api
from perceptkit.errors import PlanError, SpecError
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.plan import Plan
from tests.baselines.sharing.conftest import (
    SIZE,
    all_kept,
    answer,
    make,
    noise,
    refuse_another_compact_model,
    run_to_the_end,
)


def test_parameters_and_macs_by_hand():
    """test_resnet has 4 blocks; with k = 2 the last two, the neck and the heads are there per task."""
    net = make("branch", share_first=2)
    plain, tasks = net.plain(), len(net.tasks)
    rest = sum(num_params(plain.backbone.get_submodule(b.name)) for b in plain.blocks[2:])
    shared = num_params(plain.backbone) - rest
    necks, heads = 2 * num_params(plain.neck), num_params(plain.heads)  # two of the three tasks are dense
    table = cost.table(net, all_kept(net), SIZE)
    assert table["rows"]["compact"]["params"] == shared + tasks * rest + necks + heads

    steps = cost.measure(plain, SIZE)
    once, each = sum(steps.plain) + sum(steps.block[:2]), sum(steps.block[2:])
    assert steps.plain[3:] == (0, 0)  # nothing lies between the last blocks
    made = once + tasks * each
    assert table["rows"]["compact"]["backbone_macs"] == made
    assert table["rows"]["compact"]["macs"] == made + 2 * steps.neck + sum(steps.heads.values())
    assert table["per_task_macs"]["room"] == once + each + steps.heads["room"]
    single, hard = table["rows"]["single_task_nets"], table["rows"]["hard_shared"]
    assert hard["backbone_macs"] < made < single["backbone_macs"] == tasks * (once + each)


@pytest.mark.parametrize("share_first", [0, 1, 3])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_copies_that_are_equal_give_what_hard_sharing_gives(name, share_first):
    net = make("branch", name, share_first=share_first)
    for copies in (*(net.net.backbone.get_submodule(own) for own in net.own), net.necks):
        first = next(iter(copies.values())).state_dict()
        for module in copies.values():
            module.load_state_dict(first)
    plain = net.plain()
    expected, got = answer(plain, noise()), answer(net, noise())
    assert all(torch.equal(got[task], expected[task]) for task in net.tasks)


def test_what_is_shared_and_what_is_not():
    net = make("branch", share_first=2)
    before = answer(net, noise())
    with torch.no_grad():  # the second task's copy of the last block
        for parameter in net.net.backbone.get_submodule(f"{net.own[-1]}.task_depth").parameters():
            parameter.add_(1)
    after = answer(net, noise())
    assert torch.equal(after["seg"], before["seg"]) and not torch.equal(after["depth"], before["depth"])
    with torch.no_grad():
        next(net.net.backbone.parameters()).mul_(2)
    assert not torch.equal(answer(net, noise())["seg"], before["seg"])


@pytest.mark.parametrize("name", ["pvt_v2_b0", "xcit_nano_12_p16_224", "levit_128s"])
def test_families_that_look_at_names_know_a_copy_by_its_place(name):
    net = make("branch", name, chosen=("seg", "room"), size=(224, 224), share_first=0)
    assert set(answer(net, noise(1, (224, 224)))) == {"seg", "room"}


def test_some_tasks():
    net = make("branch", share_first=1)
    part = net.only(["depth"])
    assert torch.equal(answer(part, noise())["depth"], answer(net, noise())["depth"])
    assert num_params(part) < num_params(net)
    assert set(answer(net, noise(), ["room"])) == {"room"}


def test_all_blocks_shared_is_hard_sharing():
    with pytest.raises(
        SpecError, match=r"share_first: 4 leaves none of the 4 blocks .* at most 3, or .* hard"
    ):
        make("branch", share_first=4)


def test_nothing_can_be_skipped():
    net = make("branch", share_first=1)
    plan = Plan.from_keep(list(net.tasks), [b.name for b in net.blocks], [[True, True, True, False]] * 3)
    with pytest.raises(PlanError, match="no blocks that can be skipped"):
        net(noise(), plan)


def test_the_compact_model():
    refuse_another_compact_model(make("branch", share_first=2))


@pytest.mark.slow
def test_a_run(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "branch", "share_first: 2")
    page = api.report(run.path).read_text(encoding="utf-8")
    assert "branching after the first blocks" in page and "each has a copy of the rest" in page
    out = api.export(run.path, tmp_path / "one", format="artifact", per_task=True)
    assert list(api.load(out / "artifact_room").tasks) == ["room"]
    assert "MACs" in api.summary([run.path])
