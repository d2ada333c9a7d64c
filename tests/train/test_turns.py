"""Who is updated when, on which pictures: by hand."""

import pytest

from perceptkit.spec.recipe import RetrainStage, SearchStage
from perceptkit.train.turns import Stream, steps_per_epoch, turns

TRAIN, WHOLE = 40, 4
"""Pictures, and pictures per step; a quarter of them, 10, are the policy's: 2 steps; the weights have 30: 7 steps."""


def search(**keys) -> SearchStage:
    return SearchStage(name="search", epochs=3, policy_fraction=0.25, **keys)


def found(stage, epoch=0):
    return turns(stage, TRAIN, WHOLE, seed=5, epoch=epoch)


def test_other_stages_see_every_picture_once():
    (turn,) = found(RetrainStage(name="retrain", epochs=2), epoch=1)
    assert (turn.updates, turn.steps, turn.first) == ("weights", 10, 10)
    assert list(turn.indices) == list(range(TRAIN))
    assert (turn.at(0), turn.at(5), turn.at(10)) == (1.0, 1.5, 2.0)


def test_by_epochs():
    weights, policy = found(search(), epoch=2)
    assert (weights.updates, weights.steps, weights.first) == ("weights", 7, 14)
    assert (policy.updates, policy.steps, policy.first) == ("policy", 2, 4)
    assert (policy.begins, policy.ends, policy.at(1)) == (2, 3, 2.5)
    assert sorted([*weights.indices, *policy.indices]) == list(range(TRAIN))
    assert (len(weights.indices), len(policy.indices)) == (30, 10)


def test_by_steps():
    stage = search(alternate="steps", turn_steps=(3, 2))
    plan = found(stage)
    # 7 weight steps in turns of 3: 3 + 3 + 1; 2 of the policy follow, at last a third of them, rounded up
    assert [(t.updates, t.steps, t.first) for t in plan] == [
        ("weights", 3, 0),
        ("policy", 2, 0),
        ("weights", 3, 3),
        ("policy", 2, 2),
        ("weights", 1, 6),
        ("policy", 1, 4),
    ]
    assert [t.begins for t in plan] == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert plan[-1].ends == plan[-2].ends == 1
    assert steps_per_epoch(plan) == {"weights": 7, "policy": 5}
    # the next epoch goes on in both streams
    assert [t.first for t in found(stage, epoch=1)] == [7, 5, 10, 7, 13, 9]


def test_turns_longer_than_an_epoch_keep_their_proportion():
    """A rehearsal on a few pictures makes no hundred policy steps: 7 weight steps, 7 / 400 of 100 rounded up."""
    plan = found(search(alternate="steps", turn_steps=(400, 100)))
    assert [(t.updates, t.steps) for t in plan] == [("weights", 7), ("policy", 2)]


def test_the_same_pictures_are_the_policys_in_either_way():
    by_epochs, by_steps = found(search()), found(search(alternate="steps", turn_steps=(3, 2)))
    assert by_epochs[1].indices == by_steps[1].indices == by_steps[-1].indices


def test_a_stream_opens_every_pass_once_and_goes_on_anywhere():
    opened = []

    def open_pass(number, start):
        opened.append((number, start))
        return [f"{number}.{i}" for i in range(start, 3)]

    stream = Stream(open_pass, per_pass=3)
    assert [stream.take(i) for i in range(5)] == ["0.0", "0.1", "0.2", "1.0", "1.1"]
    assert opened == [(0, 0), (1, 0)]
    resumed = Stream(open_pass, per_pass=3)
    assert [resumed.take(i) for i in (4, 5, 6)] == ["1.1", "1.2", "2.0"]
    assert opened[2:] == [(1, 1), (2, 0)]
