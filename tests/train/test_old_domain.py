"""The look back at the base's tasks is fair: to heads that learned while the trunk did, and to what did not change."""

import copy
from types import SimpleNamespace

import torch

from perceptkit.model.build import build_supernet
from perceptkit.spec.recipe import HeadsSpec
from perceptkit.spec.tasks_file import DepthSpec
from perceptkit.tasks.depth import Depth
from perceptkit.train import old_domain
from perceptkit.train.old_domain import OldHeads, answering_as_base, learned_heads, look_back
from tests.baselines.adaptation.conftest import SIZE, all_keep, backbone_spec, base, begun, images, train


def test_heads_of_lwf_that_learned_answer_for_the_old_tasks():
    strategy, net, plan = begun("lwf")
    train(strategy, net, plan, lr=0.1)
    asked = strategy.asked(plan)
    with torch.no_grad():
        expected = net(images(), asked, asked.tasks)["base/old"]
        learned = learned_heads(net)
        strategy.fold(net)
        base, old_plan = strategy.origin.net, strategy.origin.plan
        got = answering_as_base(net, base, learned).eval()(images(), old_plan)
        assert list(got) == ["old"] and torch.equal(got["old"], expected)
        with_base = answering_as_base(net, base, learned_heads(net)).eval()(images(), old_plan)
        assert not torch.equal(with_base["old"], expected)


def test_other_methods_have_none():
    _, net, _ = begun("bn")
    learned = learned_heads(net)
    assert not learned.by_task and learned.neck is None


def test_the_bases_neck_comes_with_its_dense_heads():
    tasks = {"depth": Depth("depth", DepthSpec(type="depth", target="d/{id}.png"), ())}
    backbone = backbone_spec("resnet18")
    old = build_supernet(backbone, HeadsSpec(channels=16), tasks, SIZE).eval()
    adapted = copy.deepcopy(old)
    with torch.no_grad():
        for parameter in adapted.neck.parameters():
            parameter.add_(1.0)
    learned = OldHeads({}, None)
    answered = answering_as_base(adapted, old, learned).eval()(images(), all_keep(old))
    assert torch.equal(answered["depth"], old(images(), all_keep(old))["depth"])


def test_a_trunk_that_did_not_change_forgets_nothing_where_the_domain_has_its_own_mean_and_std(
    tmp_path, monkeypatch
):
    _, net, plan = begun("feature_extractor")
    net.mean, net.std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    old, old_plan, rgb = base(), all_keep(base()), images()

    def normalised(by):
        return (rgb - torch.tensor(by.mean).view(1, 3, 1, 1)) / torch.tensor(by.std).view(1, 3, 1, 1)

    (tmp_path / "results.json").write_text('{"tasks": {}}')
    tasks_file = SimpleNamespace(first=SimpleNamespace(size=(32, 64)))
    monkeypatch.setattr(old_domain, "read_resolved", lambda run: (tasks_file, None))
    monkeypatch.setattr(old_domain, "base_of", lambda run, recipe: (old, old_plan))
    monkeypatch.setattr(old_domain, "open_split", lambda *_: [])
    answers = []

    def evaluate(forward, batches, *_):
        answers.extend(map(forward, batches))
        return SimpleNamespace(metrics={})

    monkeypatch.setattr(old_domain, "evaluate", evaluate)
    training = SimpleNamespace(
        recipe=SimpleNamespace(start_from=str(tmp_path)), supernet=net, plan=plan, routing=None,
        fabric=SimpleNamespace(device="cpu"), loader=lambda *_, **__: [normalised(net)],
    )  # fmt: skip
    look_back(training, learned_heads(net))
    with torch.no_grad():
        torch.testing.assert_close(answers[0]["old"], old(normalised(old), old_plan)["old"])
