"""What a router is taught before it learns what to skip."""

import pytest
import torch
from torch import nn

from perceptkit.errors import SpecError
from perceptkit.model.router import build_router
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.spec.router import RouterSpec
from perceptkit.train import directions, loop, routing_host, session
from perceptkit.train.directions import SPREAD, find_directions, prefer, teach_directions
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


def logits(training):
    """Of the training pictures, by the fresh router."""
    router = routing_host.current(training).router.train()
    batches = training.loader(
        training.train, range(len(training.train)), train=False, batch=len(training.train)
    )
    with torch.no_grad():
        return router(next(iter(batches)).image_BCHW)


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
    router = build_router(RouterSpec(name="conv3", keep=0.9), 5, (32, 32)).eval()
    told = nn.Linear(router.decide.in_features, 2)
    image = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer_BD = told(router.features(image))
        mean_D, std_D = answer_BD.mean(0), answer_BD.std(0)
        prefer(router, told, mean_D, std_D)
        logit_BR = router(image)
    t_BD = (answer_BD - mean_D) / std_D
    sign_R, d_R = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]), [0, 0, 1, 1, 0]
    # the fresh weights of `decide` are replaced, its biases are not
    torch.testing.assert_close(logit_BR, 2.1972246 + SPREAD * sign_R * t_BD[:, d_R], rtol=1e-4, atol=1e-4)


def test_an_answer_that_is_the_same_for_all_pictures_is_no_nan():
    router = build_router(RouterSpec(name="conv3"), 2, (32, 32)).eval()
    told = nn.Linear(router.decide.in_features, 1)
    prefer(router, told, torch.zeros(1), torch.zeros(1))
    assert router(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_a_taught_router_tells_pictures_apart_and_a_fresh_one_does_not(routed_run, tmp_path):
    fresh = begun(routed_run, tmp_path / "fresh")
    taught = begun(routed_run, tmp_path / "taught", "routing.directions=1")
    before_NR, after_NR = logits(fresh), logits(taught)
    assert after_NR.std(0).min() > 10 * before_NR.std(0).max()
    # neighbours prefer opposite sides
    even_N, odd_N = (after_NR[:, r] - after_NR[:, r].mean() for r in (0, 1))
    torch.testing.assert_close(even_N, -odd_N, rtol=1e-3, atol=1e-3)
    for a, b in zip(fresh.supernet.state_dict().values(), taught.supernet.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    told = (tmp_path / "taught/log.txt").read_text(encoding="utf-8")
    assert "the router tells the sides of 1 direction(s)" in told


def test_it_is_the_same_for_the_same_seed(routed_run, tmp_path):
    one, two = (begun(routed_run, tmp_path / name, "routing.directions=2") for name in ("one", "two"))
    states = [routing_host.current(made).router.state_dict() for made in (one, two)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_router_learns_what_it_is_taught(routed_run, tmp_path, monkeypatch):
    """Sides that its pixels say."""
    monkeypatch.setattr(directions, "PASSES", 40)
    made = prepared(routed_run, tmp_path / "run", "augment.hflip=0", "routing.directions=1")

    def brightness(training, batch):
        return batch.image_BCHW.mean((2, 3))

    monkeypatch.setattr(directions, "_features", brightness)
    said = []
    monkeypatch.setattr(made, "say", said.append)
    loop.begin_stage(made, made.recipe.stages[1])
    right = float(said[0].split(", ")[1].split("%")[0])
    assert right >= 85


def test_more_directions_than_pairs_of_blocks(routed_run, tmp_path):
    with pytest.raises(SpecError, match=r"routing.directions is 9, but there are \d+ routed blocks"):
        begun(routed_run, tmp_path / "run", "routing.directions=9")


def test_who_asks_to_stop_need_not_wait(routed_run, tmp_path):
    made = prepared(routed_run, tmp_path / "run", "routing.directions=1")
    made.stop_requested = True
    with pytest.raises(Interrupted):
        loop.begin_stage(made, made.recipe.stages[1])


def test_none_are_taught_by_default(routed_run, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "_sample", None)
    made = begun(routed_run, tmp_path / "run")
    teach_directions(made)
