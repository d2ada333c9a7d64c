"""Gates and the shared prefix: what is equal is computed once, what is skipped does not run."""

import pytest
import torch

from perceptkit.model.plan import Plan
from perceptkit.model.trie import trie
from tests.model.conftest import TASKS, make_net, some_plan


def calls_of(net, run):
    """Names of backbone blocks in the order of execution."""
    seen, hooks = [], []
    for block in net.blocks:
        module = net.backbone.get_submodule(block.name)
        hooks.append(module.register_forward_hook(lambda *_, name=block.name: seen.append(name)))
    run()
    for hook in hooks:
        hook.remove()
    return seen


def alone(net, image, keep, task):
    return net(image, keep, [task])[task]


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_vit", "tf_efficientnet_lite0"])
def test_all_tasks_together_equal_each_alone(name, image):
    net = make_net(name)
    plan = some_plan(net)
    with torch.no_grad():
        together = net(image, plan)
        for task in TASKS:
            assert torch.equal(together[task], alone(net, image, plan, task))


def test_hard_skip_is_removal(image):
    net, removed = make_net("test_convnext"), make_net("test_convnext")
    index = 2
    name = net.blocks[index].name
    parent, _, child = name.rpartition(".")
    removed.backbone.get_submodule(parent)[int(child)] = torch.nn.Identity()
    keep = {t: [i != index for i in range(len(net.blocks))] for t in TASKS}
    everything = {t: [True] * len(net.blocks) for t in TASKS}
    with torch.no_grad():
        assert torch.equal(net(image, keep)["a"], removed(image, everything)["a"])
        assert not torch.equal(net(image, keep)["a"], net(image, everything)["a"])


def test_blocks_run_as_often_as_the_trie_says(image):
    net = make_net("resnet18")
    for seed in range(3):
        plan = some_plan(net, seed)
        executed = calls_of(net, lambda plan=plan: net(image, plan))
        assert len(executed) == sum(node.kept for node in trie(plan))


def test_a_single_task_runs_its_own_path_only(image):
    net = make_net("resnet18")
    plan = some_plan(net)
    executed = calls_of(net, lambda: net(image, plan, ["b"]))
    expected = [block.name for block, keep in zip(net.blocks, plan.row("b"), strict=True) if keep]
    assert executed == expected


def test_equal_plans_run_once(image):
    net = make_net("resnet18")
    plan = Plan.all_keep(TASKS, [b.name for b in net.blocks])
    assert len(calls_of(net, lambda: net(image, plan))) == len(net.blocks)


def test_relaxed_ends_equal_hard(image):
    net = make_net("resnet18")
    plan = some_plan(net)
    relaxed = {t: [torch.tensor(float(k)) for k in plan.row(t)] for t in TASKS}
    with torch.no_grad():
        hard, soft = net(image, plan), net(image, relaxed)
    for task in TASKS:
        torch.testing.assert_close(soft[task], hard[task], rtol=1e-4, atol=1e-4)


def test_relaxed_blocks_run_once_on_a_shared_input(image):
    net = make_net("resnet18")
    half = torch.tensor(0.5)
    first_open = {t: [True] * 6 + [half, half] for t in TASKS}
    executed = calls_of(net, lambda: net(image, first_open))
    assert len(executed) == 7 + 3  # the shared prefix and the first open block once, then each task its own


def test_gradient_of_keep_is_the_difference_it_makes(image):
    net = make_net("resnet18").double()
    keep = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    rows = {"a": [True] * 7 + [keep]}
    x = image.double()
    (grad,) = torch.autograd.grad(net(x, rows, ["a"])["a"].square().mean(), keep)
    step = 1e-5
    with torch.no_grad():
        up, down = (net(x, {"a": [True] * 7 + [keep + s]}, ["a"])["a"].square().mean() for s in (step, -step))
    assert grad.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["plan", "relaxed above a held prefix"])
@pytest.mark.parametrize(
    "name",
    ["resnet10t", "test_convnext", "test_vit", pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow)],
)
def test_training_equals_separate_passes(name, kind, image):
    """Outputs and gradients in train mode, norms included: they see the same values, only once."""
    net = make_net(name).double().train()
    keep, x = some_plan(net), image.double()
    if kind != "plan":
        held = len(net.blocks) // 2
        soft = torch.rand(len(TASKS), len(net.blocks), generator=torch.Generator().manual_seed(3)).double()
        keep = {t: [True] * held + list(soft[k, held:]) for k, t in enumerate(TASKS)}

    def run(forward):
        net.zero_grad()
        outputs = forward()
        sum(output.square().mean() for output in outputs.values()).backward()
        return outputs, {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    together, grads = run(lambda: net(x, keep))
    apart, expected = run(lambda: {t: alone(net, x, keep, t) for t in TASKS})
    for task in TASKS:
        torch.testing.assert_close(together[task], apart[task], rtol=1e-9, atol=1e-12)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        error = (grad - expected[name]).abs().max()
        assert error <= 1e-6 * expected[name].abs().max() + 1e-12, name


def test_running_statistics_move_once_per_execution(image):
    """The one difference to separate passes: a norm that three tasks share sees the batch once, not thrice."""
    net = make_net("resnet10t").train()
    plan = Plan.all_keep(TASKS, [b.name for b in net.blocks])
    norms = [m for m in net.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [int(m.num_batches_tracked) for m in norms]
    net(image, plan)
    assert [int(m.num_batches_tracked) for m in norms] == [count + 1 for count in before]
    for task in TASKS:
        alone(net, image, plan, task)
    assert [int(m.num_batches_tracked) for m in norms] == [count + 4 for count in before]


@pytest.mark.parametrize("other", [False, torch.tensor(0.3), torch.tensor([True, False])], ids=str)
def test_statistics_of_a_projection_move_once_where_tasks_part(image, other):
    """It runs in the block and beside it; its statistics are those of the whole batch, moved once."""
    part = make_net("resnet10t")
    at = [block.kind for block in part.blocks].index("shortcut")
    projection = next(step for step in part.steps if step.block == at).projection
    everything = [True] * len(part.blocks)
    parted = [*everything[:at], other, *everything[at + 1 :]]

    def statistics(rows):
        net = make_net("resnet10t").train()
        outputs = net(image, rows)
        found = net.backbone.get_submodule(projection).state_dict()
        return outputs, {
            key: value for key, value in found.items() if "running" in key or "num_batches" in key
        }

    together, expected = statistics(dict.fromkeys(TASKS, everything))
    outputs, found = statistics({"a": everything, **dict.fromkeys(TASKS[1:], parted)})
    assert found and all(torch.equal(value, expected[key]) for key, value in found.items())
    assert torch.equal(outputs["a"], together["a"])


def test_skipped_blocks_leave_running_statistics_alone(image):
    """A block that some tasks skip sees what the others bring, bit for bit; one that all skip sees nothing."""
    blocks = [block.name for block in make_net("resnet10t").blocks]
    last, before_last = len(blocks) - 1, len(blocks) - 2
    rows = {task: [True] * len(blocks) for task in TASKS}
    for task in TASKS:
        rows[task][last] = False
    rows["b"][before_last] = rows["c"][before_last] = False
    plan = Plan.from_keep(TASKS, blocks, list(rows.values()))

    def statistics(tasks):
        net = make_net("resnet10t").train()
        net(image, plan, tasks)
        found = net.backbone.state_dict()
        return {key: value for key, value in found.items() if "running" in key or "num_batches" in key}

    together, alone_a, without_a = statistics(TASKS), statistics(["a"]), statistics(["b", "c"])
    fresh = make_net("resnet10t").backbone.state_dict()

    def of(block):
        return [key for key in together if key.startswith(block) and "downsample" not in key]

    assert of(blocks[last]) and of(blocks[before_last])
    assert all(torch.equal(together[key], fresh[key]) for key in of(blocks[last]))
    assert all(torch.equal(together[key], alone_a[key]) for key in of(blocks[before_last]))
    assert all(torch.equal(without_a[key], fresh[key]) for key in of(blocks[before_last]))
    assert not any(torch.equal(together[key], fresh[key]) for key in of(blocks[0]))


def test_held_blocks_run_once_for_all_tasks(image):
    """As in the search: the curriculum holds the lower half."""
    net = make_net("resnet18")
    half, held = torch.tensor(0.5), len(net.blocks) // 2
    keep = {t: [True] * held + [half] * (len(net.blocks) - held) for t in TASKS}
    executed = calls_of(net, lambda: net(image, keep))
    # the first open block too has one input for all; only what comes after it is each task's own
    assert len(executed) == held + 1 + len(TASKS) * (len(net.blocks) - held - 1)
    assert executed[: held + 1] == [block.name for block in net.blocks[: held + 1]]


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_vit"])
def test_means_of_the_trunk_are_what_heads_of_whole_pictures_get(name, image, monkeypatch):
    net, last = make_net(name), []
    run_heads = net.run_heads

    def seen(features, last_BCHW, tasks, size_HW):
        last.append(last_BCHW.mean((2, 3)))
        return run_heads(features, last_BCHW, tasks, size_HW)

    monkeypatch.setattr(net, "run_heads", seen)
    everything = Plan.all_keep(TASKS, [block.name for block in net.blocks])
    for plan in (everything, some_plan(net)):
        last.clear()
        with torch.no_grad():
            net(image, plan)
            mean_BC = net.trunk_means(image, plan)
        assert len(last) == len({plan.row(task) for task in TASKS})
        assert torch.equal(mean_BC, torch.cat(last, 1))


@pytest.mark.parametrize("size", [(64, 64), (70, 90), (33, 47)])
def test_any_input_size(size):
    net = make_net("resnet10t")
    output = net(torch.randn(1, 3, *size), {t: [True] * len(net.blocks) for t in TASKS})
    assert output["a"].shape == (1, 1, *size)


def test_a_row_of_the_wrong_length_is_refused(image):
    with pytest.raises(ValueError, match="keep of 'a' has 2 entries"):
        make_net("resnet10t")(image, {"a": [True, False]}, ["a"])


def test_export_of_a_fixed_plan(image):
    net = make_net("resnet10t")
    plan = some_plan(net)

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x, plan)["a"]

    program = torch.export.export(Fixed(), (image,))
    torch.testing.assert_close(program.module()(image), net(image, plan)["a"], rtol=1e-5, atol=1e-5)
