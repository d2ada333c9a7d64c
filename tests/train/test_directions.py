"""What a router is taught before it learns what to skip."""

import math
import re

import pytest
import torch
from torch import nn

from perceptkit.errors import PerceptkitError, SpecError
from perceptkit.model.router import build_router
from perceptkit.model.supernet import Supernet
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.spec.router import RouterSpec
from perceptkit.train import directions, loop, routing_host, session
from perceptkit.train.directions import LEAST_SPREAD, SPREAD, find_directions, prefer
from perceptkit.train.training import Interrupted


def prepared(routed_run, run, *changes):
    """A run at the begin of its stage `route`, before the router exists."""
    tasks, recipe = (
        load(str(path), []) for load, path in zip((load_tasks, load_recipe), routed_run, strict=True)
    )
    how = load_recipe(str(routed_run[1]), list(changes))
    specs = session.Specs(tasks.spec, how.spec, tasks.text, how.text)
    made = session.prepare(specs, run, resume=False, quiet=True)
    made.position.stage = 1
    return made


def begun(routed_run, run, *changes):
    made = prepared(routed_run, run, *changes)
    loop.begin_stage(made, made.recipe.stages[1])
    return made


def pictures(training, source):
    """All of a split."""
    batches = training.loader(source, range(len(source)), train=False, batch=len(source))
    return next(iter(batches)).image_BCHW


def test_directions_by_hand():
    """Points on a long and a short axis: (3, 4) / 5 and what stands upright on it."""
    long_2, short_2 = torch.tensor([0.6, 0.8]), torch.tensor([0.8, -0.6])
    along = torch.tensor([-10.0, -2.0, 1.0, 11.0])
    feature_NF = along[:, None] * long_2 + torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None] * short_2
    direction_FD, median_D = find_directions(feature_NF + 5, 2)
    torch.testing.assert_close(direction_FD, torch.stack([long_2, short_2], 1), atol=0.1, rtol=0)
    torch.testing.assert_close(direction_FD.T @ direction_FD, torch.eye(2))
    side_ND = (feature_NF + 5) @ direction_FD > median_D
    assert side_ND[:, 0].tolist() == [False, False, True, True]


def test_half_of_the_pictures_lie_on_either_side():
    feature_N1 = torch.tensor([-3.0, -2.0, -1.0, 30.0])[:, None]  # their mean is 6
    direction_11, median_1 = find_directions(feature_N1, 1)
    assert (feature_N1 @ direction_11 > median_1).flatten().tolist() == [False, False, True, True]


def test_a_direction_has_its_largest_entry_positive():
    feature_NF = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    for sign in (1, -1):
        direction_FD, _ = find_directions(sign * feature_NF, 3)
        largest_D = direction_FD.gather(0, direction_FD.abs().argmax(0, keepdim=True))
        assert (largest_D > 0).all()


def test_there_are_as_many_directions_as_pictures_differ_in():
    feature_NF = torch.arange(6.0)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    find_directions(feature_NF, 1)
    with pytest.raises(SpecError, match="6 pictures differ in 1 direction"):
        find_directions(feature_NF, 2)


def test_blocks_prefer_the_sides_in_turn():
    """log(0.9 / 0.1) + 2 * (-1)^r * t_d for d = 0 0 1 1 0."""
    torch.manual_seed(0)
    router = build_router(RouterSpec(name="conv3", keep=0.9), 5, (32, 32)).eval()
    told = nn.Linear(router.decide.in_features, 2)
    nn.init.normal_(told.weight)
    image = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer_BD = told(router.features(image))
        mean_D, std_D = answer_BD.mean(0), answer_BD.std(0)
        assert (std_D > LEAST_SPREAD).all()
        prefer(router, told, mean_D, std_D)
        logit_BR = router(image)
    t_BD = (answer_BD - mean_D) / std_D
    sign_R, d_R = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]), [0, 0, 1, 1, 0]
    # the fresh weights of `decide` are replaced, its biases are not
    torch.testing.assert_close(logit_BR, 2.1972246 + SPREAD * sign_R * t_BD[:, d_R], rtol=1e-4, atol=1e-4)


def test_a_direction_that_the_router_cannot_tell_is_left_out():
    torch.manual_seed(0)
    router = build_router(RouterSpec(name="conv3", keep=0.8), 4, (32, 32)).eval()
    told = nn.Linear(router.decide.in_features, 2)
    prefer(router, told, torch.tensor([3.0, 0.0]), torch.tensor([1e-3, 1.0]))
    with torch.no_grad():
        logit_BR = router(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(logit_BR[:, :2], torch.full((8, 2), math.log(4.0)))
    assert (logit_BR[:, 2:].std(0) > 0).all()


def brightness_and_noise(seen):
    """In the place of `Supernet.trunk_means`: the pictures differ most by their brightness, which lies around 5, and
    less by three axes that have nothing to do with it."""

    def trunk_means(self, image_BCHW, plan):
        seen.append((self.training, plan))
        bright_B = image_BCHW.mean((1, 2, 3))
        other_B3 = 0.05 * (1e4 * bright_B[:, None] * torch.tensor([1.0, 1.7, 2.9])).sin()
        return torch.cat([other_B3, 5 + bright_B[:, None]], 1)

    return trunk_means


def test_a_taught_router_prefers_by_what_the_network_sees(routed_run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Supernet, "trunk_means", brightness_and_noise(seen))
    monkeypatch.setattr(directions, "PASSES", 40)
    taught = begun(routed_run, tmp_path / "taught", "routing.directions=1", "augment.hflip=0")
    assert seen and all(not training and plan == taught.plan for training, plan in seen)
    image_BCHW = pictures(taught, taught.train)
    bright_B = image_BCHW.mean((1, 2, 3))
    with torch.no_grad():
        logit_BR = routing_host.current(taught).router.eval()(image_BCHW)
    side_B = bright_B > bright_B.median()
    above_B = logit_BR[:, 0] > logit_BR[:, 0].median()
    assert (side_B == above_B).float().mean() > 0.8
    told = (tmp_path / "taught/log.txt").read_text(encoding="utf-8")
    (right,) = re.findall(r"directions: the router tells the side of (\d+)% of the pictures of val", told)
    assert int(right) > 60


def test_blocks_begin_around_the_keep_probability_as_they_will_be_used(routed_run, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "PASSES", 40)
    taught = begun(routed_run, tmp_path / "taught", "routing.directions=1")
    with torch.no_grad():
        logit_NR = routing_host.current(taught).router.eval()(pictures(taught, taught.val))
    expected_R = torch.full((logit_NR.shape[1],), math.log(0.6 / 0.4))
    torch.testing.assert_close(logit_NR.mean(0), expected_R, atol=0.02, rtol=0)
    torch.testing.assert_close(
        logit_NR.std(0, unbiased=False), torch.full_like(expected_R, SPREAD), atol=0.02, rtol=0
    )
    # neighbours prefer opposite sides
    even_N, odd_N = logit_NR[:, 0] - expected_R[0], logit_NR[:, 1] - expected_R[0]
    torch.testing.assert_close(even_N, -odd_N, rtol=1e-2, atol=1e-2)


def test_the_network_is_left_as_it_is(routed_run, tmp_path):
    fresh = begun(routed_run, tmp_path / "fresh")
    taught = begun(routed_run, tmp_path / "taught", "routing.directions=1")
    for a, b in zip(fresh.supernet.state_dict().values(), taught.supernet.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_of_many_pictures_some_are_drawn(routed_run, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "SAMPLE", 8)
    monkeypatch.setattr(directions, "VAL", 2)
    asked, seen = [], directions._seen

    def noted(training, source, indices):
        asked.append(list(indices))
        return seen(training, source, indices)

    monkeypatch.setattr(directions, "_seen", noted)
    made = begun(routed_run, tmp_path / "run", "routing.directions=1")
    assert [len(indices) for indices in asked] == [8, 2]
    assert asked[0] == sorted(set(asked[0])) and max(asked[0]) < len(made.train) > 8


def test_it_is_the_same_for_the_same_seed(routed_run, tmp_path):
    one, two = (begun(routed_run, tmp_path / name, "routing.directions=2") for name in ("one", "two"))
    states = [routing_host.current(made).router.state_dict() for made in (one, two)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_more_directions_than_pairs_of_blocks_are_refused_before_anything_is_trained(routed_run, tmp_path):
    with pytest.raises(SpecError, match=r"routing.directions is 9, but there are \d+ blocks to route"):
        prepared(routed_run, tmp_path / "run", "routing.directions=9")


def test_features_that_are_no_numbers():
    with pytest.raises(PerceptkitError, match="no finite numbers"):
        find_directions(torch.full((4, 3), torch.nan), 1)


def test_who_asks_to_stop_need_not_wait_and_goes_on_as_if_nothing_was(routed_run, tmp_path):
    stopped = prepared(routed_run, tmp_path / "stopped", "routing.directions=1")
    stopped.stop_requested = True
    with pytest.raises(Interrupted):
        loop.begin_stage(stopped, stopped.recipe.stages[1])
    stopped.stop_requested, stopped.routing = False, None
    loop.begin_stage(stopped, stopped.recipe.stages[1])
    whole = begun(routed_run, tmp_path / "whole", "routing.directions=1")
    states = [routing_host.current(made).router.state_dict() for made in (stopped, whole)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_none_are_taught_by_default(routed_run, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "_seen", None)
    begun(routed_run, tmp_path / "run")
